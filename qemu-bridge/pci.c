/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What PCI asks of an IOMMU: the address space of a device, and to take note of a device
 * of the host. Big lock.
 */
#include "compat.h"
#include "host-devices.h"
#include "pci.h"
#include "requesters.h"
#include "spaces.h"

static AddressSpace *get_address_space(PCIBus *bus, void *opaque, int devfn)
{
    return &viommu_requesters_get(opaque, bus, devfn)->as;
}

static bool set_iommu_device(PCIBus *bus, void *opaque, int devfn, HostIOMMUDevice *hiod,
                             Error **errp)
{
    return viommu_hosts_add(viommu_requesters_get(opaque, bus, devfn), hiod, errp);
}

static void unset_iommu_device(PCIBus *bus, void *opaque, int devfn)
{
    viommu_hosts_remove(viommu_requesters_get(opaque, bus, devfn));
}

const PCIIOMMUOps viommu_pci_ops = {
    .get_address_space = get_address_space,
    .set_iommu_device = set_iommu_device,
    .unset_iommu_device = unset_iommu_device,
};
