/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One address space per requester: its IOMMU memory region (translate.c) and the interrupt range over it (interrupts.c). Requesters
 * are known by bus and devfn; the guest numbers buses when it likes, so the requester id is computed at use.
 */
#include "compat.h"
#include "front.h"
#include "iotlb.h"
#include "shared-page.h"
#include "spaces.h"
#include "text.h"
#include "viommu-core.h"
#include "walk.h"

uint16_t viommu_space_rid(const ViommuSpace *space)
{
    PCIBus *bus = qatomic_read(&space->bus);

    return PCI_BUILD_BDF(bus ? pci_bus_num(bus) : space->rid >> 8, space->devfn);
}

static void name_of(const ViommuSpace *space, char *name, size_t size)
{
    PCIDevice *device = space->bus ? space->bus->devices[space->devfn] : NULL;
    const char *id = device ? DEVICE(device)->id : NULL;

    if (id) {
        viommu_text_copy(name, size, id);
    } else if (device) {
        pstrcpy(name, size, object_get_typename(OBJECT(device)));
    } else {
        pstrcpy(name, size, "alias");
    }
}

/* Readers may be in the middle of a walk; what they find is not fresh, or still true. */
static void replace_tables_locked(ViommuSpace *space, WalkTables *tables)
{
    WalkTables *old = space->tables;

    qatomic_rcu_set(&space->tables, tables);
    if (old) {
        g_free_rcu(old, rcu);
    }
}

bool viommu_spaces_take_tables(ViommuCore *core, const viommu_Tables *msg)
{
    ViommuSpace *space;

    QLIST_FOREACH_RCU(space, &core->spaces, next) {
        WalkTables *tables;

        if (space->rid != msg->rid || space->pasid_plus_1 != msg->pasid) {
            continue;
        }
        tables = walk_tables_new(msg);
        if (!tables) {
            return false;
        }
        qemu_mutex_lock(&space->tlb.lock);
        if (space->handle && space->rid == msg->rid) {
            replace_tables_locked(space, tables);
            tables = NULL;
        }
        qemu_mutex_unlock(&space->tlb.lock);
        g_free(tables);
    }
    return true;
}

void viommu_spaces_drop_tables(ViommuCore *core)
{
    ViommuSpace *space;

    QLIST_FOREACH_RCU(space, &core->spaces, next) {
        qemu_mutex_lock(&space->tlb.lock);
        replace_tables_locked(space, NULL);
        qemu_mutex_unlock(&space->tlb.lock);
    }
}

bool viommu_space_announce_locked(ViommuSpace *space)
{
    ViommuCore *core = space->core;
    viommu_DeviceAdded msg = viommu_DeviceAdded_init_zero;
    uint16_t rid = viommu_space_rid(space);

    if (space->handle && space->rid == rid) {
        return true;
    }
    if (!space->handle) {
        space->handle = ++core->next_handle;
    }
    qemu_mutex_lock(&space->tlb.lock);
    space->rid = rid;
    replace_tables_locked(space, NULL);
    qemu_mutex_unlock(&space->tlb.lock);
    iotlb_flush(&space->tlb);
    msg.device = space->handle;
    msg.rid = rid;
    name_of(space, msg.name, sizeof(msg.name));
    return viommu_front_post_locked(core, viommu_MessageType_DEVICE_ADDED, viommu_DeviceAdded_fields, &msg);
}

void viommu_spaces_refresh_locked(ViommuCore *core)
{
    ViommuSpace *space;

    QLIST_FOREACH_RCU(space, &core->spaces, next) {
        if (space->notifier_flags && !viommu_space_rid_is_current(space)) {
            viommu_space_announce_locked(space);
        }
    }
}

void viommu_spaces_invalidate(ViommuCore *core, const IotlbScope *scope, uint32_t rid, uint32_t pasid_plus_1)
{
    ViommuSpace *space;
    uint32_t dropped = 0;

    QLIST_FOREACH_RCU(space, &core->spaces, next) {
        if ((rid == IOTLB_ANY || rid == space->rid) &&
            (pasid_plus_1 == IOTLB_ANY || pasid_plus_1 == space->pasid_plus_1)) {
            dropped += iotlb_invalidate(&space->tlb, scope);
        }
    }
    dropped += qatomic_read(&core->invalidated);
    qatomic_set(&core->invalidated, dropped);
    qatomic_set(viommu_control(core, CONTROL_WORD_INVALIDATED), dropped);
}

void viommu_spaces_flush(ViommuCore *core)
{
    const IotlbScope all = { .space = IOTLB_ANY, .sub = IOTLB_ANY, .log2_size = 64 };

    viommu_spaces_invalidate(core, &all, IOTLB_ANY, IOTLB_ANY);
}

ViommuSpace *viommu_space_by_handle(ViommuCore *core, uint32_t handle)
{
    ViommuSpace *space;

    QLIST_FOREACH_RCU(space, &core->spaces, next) {
        if (handle && space->handle == handle) {
            break;
        }
    }
    return space;
}

ViommuSpace *viommu_space_get(ViommuCore *core, PCIBus *bus, int devfn)
{
    g_autofree char *name = g_strdup_printf("viommu-%02x.%x", PCI_SLOT(devfn), PCI_FUNC(devfn));
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
    space->bus_number = pci_bus_is_root(bus) ? NULL : &bus->parent_dev->config[PCI_SECONDARY_BUS];
    space->rid = viommu_space_rid(space);
    iotlb_init(&space->tlb);
    memory_region_init(&space->root, OBJECT(core->dev), name, UINT64_MAX);
    memory_region_init_iommu(&space->iommu, sizeof(space->iommu), TYPE_VIOMMU_IOMMU_MEMORY_REGION,
                             OBJECT(core->dev), name, UINT64_MAX);
    memory_region_add_subregion_overlap(&space->root, 0, MEMORY_REGION(&space->iommu), 0);
    viommu_interrupts_cover(space, name);
    address_space_init(&space->as, &space->root, name);
    QLIST_INSERT_HEAD_RCU(&core->spaces, space, next);
    return space;
}

static void retire(ViommuSpace *space)
{
    ViommuCore *core = space->core;
    viommu_DeviceRemoved msg = { .device = space->handle };

    qemu_mutex_lock(&core->front.lock);
    if (space->handle) {
        viommu_front_post_locked(core, viommu_MessageType_DEVICE_REMOVED, viommu_DeviceRemoved_fields, &msg);
        space->handle = 0;
    }
    qemu_mutex_unlock(&core->front.lock);
    qemu_mutex_lock(&space->tlb.lock);
    replace_tables_locked(space, NULL);
    qemu_mutex_unlock(&space->tlb.lock);
    iotlb_flush(&space->tlb);
}

/*
 * A function was unplugged, or a bridge with the bus behind it. Its address space may still be referenced, so
 * the object stays; a new device in the same place finds it again, a new bus never does.
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

bool viommu_spaces_start(ViommuCore *core, Error **errp)
{
    if (!memory_region_init_ram(&core->void_memory, OBJECT(core->dev), "viommu-void", VOID_SIZE, errp)) {
        return false;
    }
    address_space_init(&core->void_as, &core->void_memory, "viommu-void");
    core->device_listener = (DeviceListener) { .unrealize = device_unrealized };
    device_listener_register(&core->device_listener);
    return true;
}

void viommu_spaces_stop(ViommuCore *core)
{
    if (core->device_listener.unrealize) {
        device_listener_unregister(&core->device_listener);
        core->device_listener.unrealize = NULL;
        address_space_destroy(&core->void_as);
    }
}
