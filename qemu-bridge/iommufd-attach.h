/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What devices go through. */
#ifndef VIOMMU_IOMMUFD_ATTACH_H
#define VIOMMU_IOMMUFD_ATTACH_H

#include "iommufd-objects.h"

/** `pasid`: IOMMUFD_NO_PASID for requests without. Replaces what was attached there. */
int viommu_iommufd_host_attach(IommufdHost *host, HostDevice *device, int32_t pasid,
                               uint32_t space);
/** Guest tables, described as IOMMU_HWPT_ALLOC takes them. */
int viommu_iommufd_host_attach_nested(IommufdHost *host, HostDevice *device,
                                      int32_t pasid, uint32_t parent, uint32_t type,
                                      const void *data, uint32_t size);
int viommu_iommufd_host_detach(IommufdHost *host, HostDevice *device, int32_t pasid);
/**
 * Invalidations of a vIOMMU, `size` bytes each; `count` becomes how many were carried
 * out.
 */
int viommu_iommufd_host_invalidate_viommu(IommufdHost *host, uint32_t parent,
                                          uint32_t type, const void *entries,
                                          uint32_t size, uint32_t *count);
/** Invalidations of the guest tables that a device or PASID goes through. */
int viommu_iommufd_host_invalidate_tables(IommufdHost *host, const HostDevice *device,
                                          int32_t pasid, uint32_t type,
                                          const void *entries, uint32_t size,
                                          uint32_t *count);

/* For iommufd-*.c: */

HostAttachment *viommu_iommufd_attachment(const IommufdHost *host,
                                          const HostDevice *device, int32_t pasid);
/** The device has left what it went through. */
void viommu_iommufd_leave(IommufdHost *host, HostAttachment *a);

#endif
