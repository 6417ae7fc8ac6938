/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the daemon asks of the host's objects (HOST_SPACE_CREATE to HOST_RESPOND). */
#ifndef VIOMMU_HOST_OBJECTS_H
#define VIOMMU_HOST_OBJECTS_H

#include "wire.h"

typedef struct ViommuCore ViommuCore;

/** Carries out one of these requests, and answers it. Backend thread. */
bool viommu_host_objects_serve(ViommuCore *core, const WireFrame *frame);

#endif
