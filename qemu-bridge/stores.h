/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Stores to RAM under an overlay. */
#ifndef VIOMMU_STORES_H
#define VIOMMU_STORES_H

typedef struct ViommuCore ViommuCore;

/**
 * Tells the daemon of a store under an overlay, if it was to a tracked page. Returns when
 * the store may end. Big lock.
 */
void viommu_stores_tell(ViommuCore *core, uint64_t gpa, unsigned size);

#endif
