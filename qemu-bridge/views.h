/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What vCPUs see: guest memory, and overlays above it that only they see. */
#ifndef VIOMMU_VIEWS_H
#define VIOMMU_VIEWS_H

/**
 * Puts an overlay there, in a memory transaction that ends with viommu_views_update. Big
 * lock.
 */
void viommu_views_add(MemoryRegion *overlay, hwaddr gpa);
/** Takes it away again. */
void viommu_views_remove(MemoryRegion *overlay);
/** Every vCPU's address space gets a view, if there are overlays. Big lock. */
void viommu_views_update(void);
/**
 * Where a store of an emulated device meets the overlays as a vCPU's does. Any thread.
 */
AddressSpace *viommu_views_store_space(void);

#endif
