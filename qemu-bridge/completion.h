/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Invalidations that complete in the store that rings their doorbell (docs/protocol.md,
 * "Queues"). Where an invalidation concerns only the caches here, the vCPU carries it
 * out, and the daemon gets a copy in a ring.
 */
#ifndef VIOMMU_COMPLETION_H
#define VIOMMU_COMPLETION_H

#include "wire.h"

typedef struct ViommuCore ViommuCore;

/** Serves a QUEUE. Backend thread. */
bool viommu_completion_serve_queue(ViommuCore *core, const WireFrame *frame);
/**
 * Carries out what a store to a register asks for, and completes it. False: nothing has
 * happened, and the daemon has to be told of the store. Big lock and front.lock.
 */
bool viommu_completion_locked(ViommuCore *core, hwaddr offset, uint64_t value,
                              unsigned size);
/** The session is over: forgets the queue. */
void viommu_completion_stop(ViommuCore *core);

#endif
