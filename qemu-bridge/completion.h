/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Invalidations that are complete when the store that rings their doorbell is (docs/protocol.md, "Queues"): what concerns nothing
 * but the caches here is carried out by the vCPU itself, and the daemon gets a copy, in a ring.
 */
#ifndef VIOMMU_COMPLETION_H
#define VIOMMU_COMPLETION_H

#include "wire.h"

typedef struct ViommuCore ViommuCore;

/** Serves a QUEUE. Backend thread. */
bool viommu_completion_serve_queue(ViommuCore *core, const WireFrame *frame);
/**
 * Carries out what a store to a register asks for, and completes it. False: nothing has happened, it is for the daemon. Big
 * lock and front.lock.
 */
bool viommu_completion_locked(ViommuCore *core, hwaddr offset, uint64_t value, unsigned size);
/** No session, no queue. */
void viommu_completion_stop(ViommuCore *core);

#endif
