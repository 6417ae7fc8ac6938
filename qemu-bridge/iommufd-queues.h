/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What comes up from a host, and the answers to it. */
#ifndef VIOMMU_IOMMUFD_QUEUES_H
#define VIOMMU_IOMMUFD_QUEUES_H

#include "iommufd-host.h"

/**
 * Descriptors that become readable when something comes up; returns how many were filled
 * in.
 */
uint32_t viommu_iommufd_host_descriptors(const IommufdHost *host, int *fds,
                                         uint32_t most);
/** Hands everything that waits to the sink. */
int viommu_iommufd_host_poll(IommufdHost *host);
/**
 * Answers a group of page requests; `code` as PCI Express numbers it. -ENOENT: there is
 * no such group.
 */
int viommu_iommufd_host_respond(IommufdHost *host, const HostDevice *device,
                                int32_t pasid, uint32_t group, uint32_t code);

#endif
