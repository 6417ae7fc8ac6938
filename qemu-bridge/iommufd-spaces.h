/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Address spaces of a host. */
#ifndef VIOMMU_IOMMUFD_SPACES_H
#define VIOMMU_IOMMUFD_SPACES_H

#include "iommufd-objects.h"

/** `parent`: guest tables will be on top of it. -EEXIST: there is one of this number. */
int viommu_iommufd_host_create_space(IommufdHost *host, uint32_t space,
                                     HostDevice *device, bool parent);
/** -EBUSY: something is attached to it. */
int viommu_iommufd_host_destroy_space(IommufdHost *host, uint32_t space);
int viommu_iommufd_host_map(IommufdHost *host, uint32_t space, uint64_t iova,
                            const void *memory, uint64_t size, uint32_t rights);
int viommu_iommufd_host_unmap(IommufdHost *host, uint32_t space, uint64_t iova,
                              uint64_t size);

/* For iommufd-*.c: */

HostSpace *viommu_iommufd_space(const IommufdHost *host, uint32_t number);
int viommu_iommufd_make_hwpt(IommufdHost *host, HostSpace *space,
                             const HostDevice *device);
/** Destroys everything that a space is made of. */
void viommu_iommufd_drop_space(IommufdHost *host, HostSpace *space);

#endif
