/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Host mappings of assigned devices, as the daemon asks for them (HOST_BATCH). */
#ifndef VIOMMU_HOST_BATCH_H
#define VIOMMU_HOST_BATCH_H

#include "wire.h"

typedef struct ViommuCore ViommuCore;

/** Serves a HOST_BATCH. Backend thread. */
bool viommu_host_batch_serve(ViommuCore *core, const WireFrame *frame);
/**
 * Carries out operations for a device, by handle, and notes which of them failed. Big
 * lock.
 */
void viommu_host_batch_run(ViommuCore *core, uint32_t device,
                           const WireOperations *operations,
                           viommu_HostBatchReply *reply);

#endif
