/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Invalidations that the daemon asks for (INVALIDATE). */
#ifndef VIOMMU_INVALIDATION_H
#define VIOMMU_INVALIDATION_H

#include "wire.h"

typedef struct ViommuCore ViommuCore;

/** Serves an INVALIDATE. Backend thread. */
bool viommu_invalidation_serve(ViommuCore *core, const WireFrame *frame);

#endif
