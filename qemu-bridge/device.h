/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the devices (viommu-vtd.c, viommu-smmuv3.c) show of their unit: the register window (regs.c), and to PCI an
 * IOMMU (pci.c).
 */
#ifndef VIOMMU_DEVICE_H
#define VIOMMU_DEVICE_H

typedef struct ViommuCore ViommuCore;

/* regs.c */

void viommu_regs_init(ViommuCore *core, const char *name);

/* pci.c */

/** For pci_setup_iommu, with the core. */
extern const PCIIOMMUOps viommu_pci_ops;

#endif
