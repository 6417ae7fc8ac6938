/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What PCI asks of an IOMMU: the address space of a device; and to take note of a device of the host. Those that QEMU's VFIO
 * has through iommufd become a host of the descriptors that QEMU holds (iommufd-host.h), and people are told what it can do.
 * Everything here runs under the big lock.
 */
#include "compat.h"
#include "viommu-core.h"
#include "iommufd-host.h"

/* Nothing comes up as long as nobody attaches guest tables. */
static void no_page_request(void *opaque, const HostDevice *device, const struct iommu_hwpt_pgfault *fault)
{
}

static void no_event(void *opaque, uint32_t space, const void *record, uint32_t size, bool lost)
{
}

static const HostSink no_sink = { .page_request = no_page_request, .event = no_event };

static AddressSpace *get_address_space(PCIBus *bus, void *opaque, int devfn)
{
    return &viommu_space_get(opaque, bus, devfn)->as;
}

static const char *kind_of(uint32_t type)
{
    switch (type) {
    case IOMMU_HW_INFO_TYPE_INTEL_VTD:
        return "VT-d";
    case IOMMU_HW_INFO_TYPE_ARM_SMMUV3:
        return "SMMUv3";
    default:
        return "an IOMMU of which the kernel says nothing";
    }
}

/* In the planner's terms (docs/assignment.md). */
static void tell(const char *name, const HostDevice *device)
{
    g_autofree char *pasids = device->abilities & HOST_PASIDS ?
                              g_strdup_printf(", PASIDs of %" PRIu32 " bits", device->info.max_pasid_log2) : g_strdup("");

    info_report("viommu: %s by iommufd, behind %s: %s%s%s", name, kind_of(device->info.type),
                device->abilities & HOST_NEST_PARENT ? "can nest" : "cannot nest", pasids,
                device->abilities & HOST_FAULT_QUEUE ? ", page requests" : "");
}

static IommufdHost *host_of(ViommuCore *core, int fd)
{
    if (!core->host) {
        core->host = g_new(IommufdHost, 1);
        iommufd_host_init(core->host, &iommufd_kernel, fd, &no_sink);
    }
    return core->host->io.fd == fd ? core->host : NULL;
}

static bool set_iommu_device(PCIBus *bus, void *opaque, int devfn, HostIOMMUDevice *hiod, Error **errp)
{
    ViommuCore *core = opaque;
    ViommuSpace *space = viommu_space_get(core, bus, devfn);
    VFIODevice *vfio = hiod->agent;
    IommufdHost *host;
    int result;

    /* By a container there is nothing but mapping. */
    if (!object_dynamic_cast(OBJECT(hiod), TYPE_HOST_IOMMU_DEVICE_IOMMUFD)) {
        return true;
    }
    host = host_of(core, vfio->iommufd->fd);
    if (!host) {
        warn_report("viommu: %s is by another iommufd than the first device: it can only be mapped for", vfio->name);
        return true;
    }
    result = iommufd_host_add_device(host, vfio->devid, vfio->devid, vfio->fd, &space->host_device);
    if (result) {
        error_setg_errno(errp, -result, "viommu: %s: iommufd says nothing of it", vfio->name);
        return false;
    }
    tell(vfio->name, space->host_device);
    return true;
}

static void unset_iommu_device(PCIBus *bus, void *opaque, int devfn)
{
    ViommuCore *core = opaque;
    ViommuSpace *space = viommu_space_get(core, bus, devfn);

    if (space->host_device) {
        iommufd_host_remove_device(core->host, space->host_device);
        space->host_device = NULL;
    }
}

const PCIIOMMUOps viommu_pci_ops = {
    .get_address_space = get_address_space,
    .set_iommu_device = set_iommu_device,
    .unset_iommu_device = unset_iommu_device,
};

void viommu_host_close(ViommuCore *core)
{
    if (core->host) {
        iommufd_host_close(core->host);
    }
    g_clear_pointer(&core->host, g_free);
}
