/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The numbers that the guest knows devices by: vDEVICEs. */
#ifndef VIOMMU_IOMMUFD_VDEVICES_H
#define VIOMMU_IOMMUFD_VDEVICES_H

#include "iommufd-objects.h"

/**
 * The number that the guest knows a device by; every vIOMMU is told, those to come as
 * well.
 */
int viommu_iommufd_host_identify(IommufdHost *host, HostDevice *device,
                                 uint64_t virtual_id);

/* For iommufd-*.c: */

/** vDEVICEs on a new vIOMMU. */
int viommu_iommufd_identify_all(IommufdHost *host, HostSpace *space);
/** Destroys a device's vDEVICE on one vIOMMU. */
void viommu_iommufd_drop_vdevice(IommufdHost *host, HostSpace *space, HostDevice *device);
/** Destroys all vDEVICEs of a device. */
void viommu_iommufd_drop_vdevices(IommufdHost *host, HostDevice *device);

#endif
