/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What viommu-testdev is to PCI. */
#ifndef VIOMMU_TESTDEV_PCI_H
#define VIOMMU_TESTDEV_PCI_H

#include "testdev.h"

/**
 * Adds the capabilities: PCI Express, and on top of it what the IOMMU has the features
 * for.
 */
bool viommu_testdev_pci_init(ViommuTestdev *d, Error **errp);
void viommu_testdev_pci_reset(ViommuTestdev *d);
void viommu_testdev_pci_write_config(PCIDevice *pci, uint32_t address, uint32_t value,
                                     int size);
/**
 * FEATURE bits of the capabilities that are there, and of those that the guest has
 * switched on.
 */
uint32_t viommu_testdev_pci_features(const ViommuTestdev *d);
uint32_t viommu_testdev_pci_enabled(const ViommuTestdev *d);
/** Page requests that the guest allows to be under way; 0 when it must not send any. */
uint32_t viommu_testdev_pci_page_requests(const ViommuTestdev *d);
/**
 * A group of page requests was answered: notes a Response Failure, a response to no
 * group, and whether all requests have stopped.
 */
void viommu_testdev_pci_note_response(ViommuTestdev *d, bool failure, bool unexpected);

#endif
