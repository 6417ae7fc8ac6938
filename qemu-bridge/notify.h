/* SPDX-License-Identifier: GPL-2.0-or-later */
/* IOMMU notifiers: VFIO, vhost (notify.c). Big lock. */
#ifndef VIOMMU_NOTIFY_H
#define VIOMMU_NOTIFY_H

#include "endpoint.h"
#include "iotlb.h"

typedef struct ViommuCore ViommuCore;

int viommu_notify_flag_changed(IOMMUMemoryRegion *mr, IOMMUNotifierFlag old_flags, IOMMUNotifierFlag new_flags,
                               Error **errp);
void viommu_notify_replay(IOMMUMemoryRegion *mr, IOMMUNotifier *n);
/** UNMAP for the block, then what is mapped there now. */
void viommu_notify_invalidate(ViommuSpace *space, const IotlbScope *scope);
/** Tells those who keep translations for a device with ATS (vhost) to drop the block. */
void viommu_notify_device_tlb(ViommuSpace *space, uint64_t address, uint32_t log2_size);
/** UNMAP everything that listens to one requester's translations. */
void viommu_notify_unmap(ViommuSpace *space);
/** UNMAP everything; for those whose mappings the daemon keeps only when it is gone (`all`). */
void viommu_notify_unmap_all(ViommuCore *core, bool all);
/** One operation of a HOST_BATCH, as events. */
void viommu_notify_operation(ViommuSpace *space, const uint32_t *words);
/** MAP what is mapped now, for those who asked. */
void viommu_notify_replay_all(ViommuCore *core);

#endif
