/* SPDX-License-Identifier: GPL-2.0-or-later */
/* viommu-testdev as a device that is assigned from the host. */
#ifndef VIOMMU_TESTDEV_ASSIGNED_H
#define VIOMMU_TESTDEV_ASSIGNED_H

#include "testdev.h"

/**
 * Registers for notifiers when the device is an assigned one. Fails where the IOMMU
 * cannot tell of new mappings.
 */
void viommu_testdev_assigned_start(ViommuTestdev *d, Error **errp);
void viommu_testdev_assigned_stop(ViommuTestdev *d);
/** A DMA through what is mapped, within one mapping. */
MemTxResult viommu_testdev_assigned_rw(ViommuTestdev *d, uint64_t address, void *data,
                                       uint32_t size, bool write);

#endif
