/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Devices of the host that VFIO has by iommufd. Big lock, except viommu_hosts_wait. */
#ifndef VIOMMU_HOST_DEVICES_H
#define VIOMMU_HOST_DEVICES_H

typedef struct ViommuCore ViommuCore;
typedef struct ViommuSpace ViommuSpace;

void viommu_hosts_init(ViommuCore *core);
/**
 * QEMU's VFIO has attached a device. False with errp set: there is no way to assign it.
 */
bool viommu_hosts_add(ViommuSpace *space, HostIOMMUDevice *hiod, Error **errp);
/** It goes; its descriptor is still open. */
void viommu_hosts_remove(ViommuSpace *space);
/** The daemon is gone: devices are detached from everything that it asked for. */
void viommu_hosts_end(ViommuCore *core);
/** Lets go of the devices, and of the iommufd. */
void viommu_hosts_close(ViommuCore *core);
/**
 * Returns when the backend channel has something, or after the host's queues had. Backend
 * thread.
 */
void viommu_hosts_wait(ViommuCore *core);

#endif
