/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Events for IOMMU notifiers: those inside QEMU (VFIO, vhost) that keep translations of
 * their own. Big lock.
 */
#ifndef VIOMMU_NOTIFY_H
#define VIOMMU_NOTIFY_H

#include "iotlb.h"

typedef struct ViommuCore ViommuCore;
typedef struct ViommuSpace ViommuSpace;

/**
 * Whether the daemon keeps what this notifier has mapped: one for MAP events, with
 * HOST_BATCH.
 */
bool viommu_notify_is_shadowed(const ViommuSpace *space, const IOMMUNotifier *n);
/**
 * The part of a notifier's range that this IOMMU's input addresses reach. False: none.
 */
bool viommu_notify_range(const ViommuSpace *space, const IOMMUNotifier *n,
                         uint64_t *first, uint64_t *last);
/** MAP what is mapped now, if the notifier is for MAP events. */
void viommu_notify_replay_one(ViommuSpace *space, IOMMUNotifier *n);
/** UNMAP for the block, then what is mapped there now. */
void viommu_notify_invalidate(ViommuSpace *space, const IotlbScope *scope);
/** Drops the block from what notifiers keep for a device with ATS (vhost). */
void viommu_notify_device_tlb(ViommuSpace *space, uint64_t address, uint32_t log2_size);
/** UNMAP everything for the notifiers of one requester. */
void viommu_notify_unmap(ViommuSpace *space);
/** UNMAP everything; shadowed notifiers only with `all`, when the daemon is gone. */
void viommu_notify_unmap_all(ViommuCore *core, bool all);
/** One operation of a HOST_BATCH, as events. */
void viommu_notify_operation(ViommuSpace *space, const uint32_t *words);
/** MAP what is mapped now, for every notifier that is not shadowed. */
void viommu_notify_replay_all(ViommuCore *core);

#endif
