/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Requesters are known by bus and devfn. The guest numbers buses when it likes, so the
 * requester id is computed at use.
 */
#include "compat.h"
#include "front.h"
#include "iotlb.h"
#include "shared-page.h"
#include "spaces.h"
#include "text.h"
#include "viommu-core.h"
#include "walk.h"
#include "wire.h"

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
void viommu_space_replace_tables_locked(ViommuSpace *space, WalkTables *tables)
{
    WalkTables *old = space->tables;

    qatomic_rcu_set(&space->tables, tables);
    if (old) {
        g_free_rcu(old, rcu);
    }
}

/* False: impossible values. */
static bool take_tables(ViommuCore *core, const viommu_PeerWalk *msg)
{
    ViommuSpace *space;

    QLIST_FOREACH_RCU(space, &core->spaces, next) {
        WalkTables *tables;

        if (space->rid != msg->rid || space->pasid_plus_1 != msg->pasid) {
            continue;
        }
        tables = viommu_walk_tables_new(msg);
        if (!tables) {
            return false;
        }
        qemu_mutex_lock(&space->tlb.lock);
        if (space->handle && space->rid == msg->rid) {
            viommu_space_replace_tables_locked(space, tables);
            tables = NULL;
        }
        qemu_mutex_unlock(&space->tlb.lock);
        g_free(tables);
    }
    return true;
}

bool viommu_spaces_serve_tables(ViommuCore *core, const WireFrame *frame)
{
    g_autofree viommu_PeerWalk *msg = g_new0(viommu_PeerWalk, 1);

    return viommu_wire_decode(frame, viommu_PeerWalk_fields, msg) &&
           take_tables(core, msg);
}

void viommu_spaces_drop_tables(ViommuCore *core)
{
    ViommuSpace *space;

    QLIST_FOREACH_RCU(space, &core->spaces, next) {
        qemu_mutex_lock(&space->tlb.lock);
        viommu_space_replace_tables_locked(space, NULL);
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
    viommu_space_replace_tables_locked(space, NULL);
    qemu_mutex_unlock(&space->tlb.lock);
    viommu_iotlb_flush(&space->tlb);
    msg.device = space->handle;
    msg.rid = rid;
    name_of(space, msg.name, sizeof(msg.name));
    return viommu_front_post_locked(core, viommu_MessageType_DEVICE_ADDED,
                                    viommu_DeviceAdded_fields, &msg);
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

void viommu_spaces_invalidate(ViommuCore *core, const IotlbScope *scope, uint32_t rid,
                              uint32_t pasid_plus_1)
{
    ViommuSpace *space;
    uint32_t dropped = 0;

    QLIST_FOREACH_RCU(space, &core->spaces, next) {
        if ((rid == IOTLB_ANY || rid == space->rid) &&
            (pasid_plus_1 == IOTLB_ANY || pasid_plus_1 == space->pasid_plus_1)) {
            dropped += viommu_iotlb_invalidate(&space->tlb, scope);
        }
    }
    dropped += qatomic_read(&core->invalidated);
    qatomic_set(&core->invalidated, dropped);
    qatomic_set(viommu_control(core, viommu_CONTROL_WORD_INVALIDATED), dropped);
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
