/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The QOM types that this bridge adds, and their registration. */
#ifndef VIOMMU_TYPES_H
#define VIOMMU_TYPES_H

#define TYPE_VIOMMU_VTD "viommu-vtd"
#define TYPE_VIOMMU_SMMUV3 "viommu-smmuv3"
#define TYPE_VIOMMU_TESTDEV "viommu-testdev"

/**
 * Registers all of them. From type_init in a QEMU tree, from the loader (load.c) in a
 * stock QEMU.
 */
void viommu_register_types(void);

#endif
