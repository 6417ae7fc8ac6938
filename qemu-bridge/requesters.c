/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Address spaces of requesters are made when PCI first asks for one, and stay. One has an
 * IOMMU memory region (translate.c), and over it the interrupt range (interrupt-range.c).
 */
#include "compat.h"
#include "front.h"
#include "interrupt-range.h"
#include "iotlb.h"
#include "requesters.h"
#include "spaces.h"
#include "viommu-core.h"

static QLIST_HEAD(, ViommuCore) cores = QLIST_HEAD_INITIALIZER(cores);

ViommuSpace *viommu_requesters_get(ViommuCore *core, PCIBus *bus, int devfn)
{
    g_autofree char *name = g_strdup_printf("viommu-%02x.%x", PCI_SLOT(devfn),
                                            PCI_FUNC(devfn));
    ViommuSpace *space;

    QLIST_FOREACH_RCU(space, &core->spaces, next) {
        if (space->bus == bus && space->devfn == devfn && !space->pasid_plus_1) {
            return space;
        }
    }
    space = g_new0(ViommuSpace, 1);
    space->core = core;
    space->bus = bus;
    space->devfn = devfn;
    space->bus_number = pci_bus_is_root(bus) ?
                            NULL :
                            &bus->parent_dev->config[PCI_SECONDARY_BUS];
    space->rid = viommu_space_rid(space);
    viommu_iotlb_init(&space->tlb);
    memory_region_init(&space->root, OBJECT(core->dev), name, UINT64_MAX);
    memory_region_init_iommu(&space->iommu, sizeof(space->iommu),
                             TYPE_VIOMMU_IOMMU_MEMORY_REGION, OBJECT(core->dev), name,
                             UINT64_MAX);
    memory_region_add_subregion_overlap(&space->root, 0, MEMORY_REGION(&space->iommu), 0);
    viommu_interrupt_range_cover(space, name);
    address_space_init(&space->as, &space->root, name);
    QLIST_INSERT_HEAD_RCU(&core->spaces, space, next);
    return space;
}

ViommuSpace *viommu_requesters_find(const AddressSpace *as)
{
    ViommuCore *core;
    ViommuSpace *space;

    QLIST_FOREACH(core, &cores, next) {
        QLIST_FOREACH_RCU(space, &core->spaces, next) {
            if (&space->as == as) {
                return space;
            }
        }
    }
    return NULL;
}

static void retire(ViommuSpace *space)
{
    ViommuCore *core = space->core;
    viommu_DeviceRemoved msg = { .device = space->handle };

    qemu_mutex_lock(&core->front.lock);
    if (space->handle) {
        viommu_front_post_locked(core, viommu_MessageType_DEVICE_REMOVED,
                                 viommu_DeviceRemoved_fields, &msg);
        space->handle = 0;
    }
    qemu_mutex_unlock(&core->front.lock);
    qemu_mutex_lock(&space->tlb.lock);
    viommu_space_replace_tables_locked(space, NULL);
    qemu_mutex_unlock(&space->tlb.lock);
    viommu_iotlb_flush(&space->tlb);
}

/*
 * A function was unplugged, or a bridge with the bus behind it. Its address space may
 * still be referenced, so the object stays. A new device in the same place finds it
 * again; a new bus never does.
 */
static void device_unrealized(DeviceListener *listener, DeviceState *dev)
{
    ViommuCore *core = container_of(listener, ViommuCore, device_listener);
    PCIDevice *device = (PCIDevice *)object_dynamic_cast(OBJECT(dev), TYPE_PCI_DEVICE);
    PCIBridge *bridge = (PCIBridge *)object_dynamic_cast(OBJECT(dev), TYPE_PCI_BRIDGE);
    ViommuSpace *space;

    if (!device) {
        return;
    }
    QLIST_FOREACH_RCU(space, &core->spaces, next) {
        if (!space->bus) {
            continue;
        }
        if (bridge && space->bus == pci_bridge_get_sec_bus(bridge)) {
            qatomic_set(&space->bus_number, NULL);
            qatomic_set(&space->bus, NULL);
            retire(space);
        } else if (space->bus == pci_get_bus(device) && space->devfn == device->devfn) {
            retire(space);
        }
    }
}

bool viommu_requesters_start(ViommuCore *core, Error **errp)
{
    if (!memory_region_init_ram(&core->void_memory, OBJECT(core->dev), "viommu-void",
                                VOID_SIZE, errp)) {
        return false;
    }
    address_space_init(&core->void_as, &core->void_memory, "viommu-void");
    core->device_listener = (DeviceListener) { .unrealize = device_unrealized };
    device_listener_register(&core->device_listener);
    QLIST_INSERT_HEAD(&cores, core, next);
    return true;
}

void viommu_requesters_stop(ViommuCore *core)
{
    if (core->device_listener.unrealize) {
        QLIST_REMOVE(core, next);
        device_listener_unregister(&core->device_listener);
        core->device_listener.unrealize = NULL;
        address_space_destroy(&core->void_as);
    }
}
