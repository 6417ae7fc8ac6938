/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the bridge does for devices of the host: mappings of assigned ones (host.c), those that are here by iommufd
 * (host-devices.c), and the objects that the daemon wants for these (host-objects.c).
 */
#ifndef VIOMMU_HOST_H
#define VIOMMU_HOST_H

#include "viommu-core.h"

/* host.c: host mappings of assigned devices. Big lock. */

/** Whether the daemon keeps the host mappings of whoever wants MAP events. */
static inline bool viommu_hosts_are_shadowed(const ViommuCore *core)
{
    return core->features & 1u << viommu_Feature_FEATURE_HOST_BATCH;
}

/** Carries out operations for a device, by handle, and notes which of them failed. */
void viommu_host_run(ViommuCore *core, uint32_t device, const WireOperations *operations,
                     viommu_HostBatchReply *reply);
/** For notifiers of our own: the operation under way fails with this errno. */
void viommu_host_failed(int error);
/**
 * Returns when host mappings are what the guest's tables say: the caller waits, and does itself what there is to do.
 * False: all is done but for TRACKs that vCPUs have to hear of; when they have, the daemon looks again.
 */
bool viommu_host_settle(ViommuCore *core);
/** Somebody listens for [first, last] who has nothing mapped; returns when he has. */
void viommu_host_listen(ViommuSpace *space, uint64_t first, uint64_t last);

/* host-devices.c: devices of the host that are here by iommufd. Big lock, but for viommu_hosts_wait. */

void viommu_hosts_init(ViommuCore *core);
/** QEMU's VFIO has attached a device. False with errp set: it can be assigned in no way. */
bool viommu_hosts_add(ViommuSpace *space, HostIOMMUDevice *hiod, Error **errp);
/** It goes; its descriptor is still open. */
void viommu_hosts_remove(ViommuSpace *space);
/** The daemon is gone: no device goes through anything that it asked for. */
void viommu_hosts_end(ViommuCore *core);
/** Lets go of the devices, and of the iommufd. */
void viommu_hosts_close(ViommuCore *core);
/** Returns when the backend channel has something, or after the host's queues had. Backend thread. */
void viommu_hosts_wait(ViommuCore *core);

/* host-objects.c */

/** Carries out a HOST_SPACE_CREATE … HOST_RESPOND, and answers it. False: it cannot be decoded. Backend thread. */
bool viommu_objects_serve(ViommuCore *core, const WireFrame *frame);

#endif
