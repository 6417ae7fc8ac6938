/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What PCI asks of an IOMMU. */
#ifndef VIOMMU_PCI_H
#define VIOMMU_PCI_H

/** For pci_setup_iommu, with the core. */
extern const PCIIOMMUOps viommu_pci_ops;

#endif
