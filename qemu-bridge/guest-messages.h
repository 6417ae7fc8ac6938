/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Guest memory that the daemon reads and writes through messages (MEM_READ, MEM_WRITE,
 * MEM_CAS).
 */
#ifndef VIOMMU_GUEST_MESSAGES_H
#define VIOMMU_GUEST_MESSAGES_H

#include "wire.h"

typedef struct ViommuCore ViommuCore;

/** Each serves the message that it is named after. Backend thread. */
bool viommu_guest_messages_serve_read(ViommuCore *core, const WireFrame *frame);
bool viommu_guest_messages_serve_write(ViommuCore *core, const WireFrame *frame);
bool viommu_guest_messages_serve_cas(ViommuCore *core, const WireFrame *frame);

#endif
