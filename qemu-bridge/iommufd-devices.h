/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The devices of a host, and the end of everything. */
#ifndef VIOMMU_IOMMUFD_DEVICES_H
#define VIOMMU_IOMMUFD_DEVICES_H

#include "iommufd-host.h"

void viommu_iommufd_host_init(IommufdHost *host, const IommufdCalls *calls, int fd,
                              const HostSink *sink);
/** Detaches everything and destroys every object; devices stay. */
void viommu_iommufd_host_clear(IommufdHost *host);
/** The same, and lets go of the devices. */
void viommu_iommufd_host_close(IommufdHost *host);
/** A device that is bound to this iommufd; tries out what can be done with it. */
int viommu_iommufd_host_add_device(IommufdHost *host, uint32_t number, uint32_t dev_id,
                                   int fd, HostDevice **device);
/** Before its descriptor is closed. */
void viommu_iommufd_host_remove_device(IommufdHost *host, HostDevice *device);
HostDevice *viommu_iommufd_host_device(const IommufdHost *host, uint32_t number);

#endif
