/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Each vCPU has an address space of its own, whose root is system memory as with every
 * other address space. The root becomes a view: a container with all that was there, and
 * the overlays above it. So vhost, VFIO, dumps and our own memory table find RAM in one
 * piece, however many overlays there are.
 *
 * Views are made with the first overlay and stay. One without overlays is an alias of all
 * that was there, for which QEMU makes no memory map of its own.
 *
 * Everything here runs under the big lock, unless it says otherwise.
 */
#include "compat.h"
#include "hw/core/cpu.h"
#include "views.h"

#define OVERLAY_PRIORITY 1

/*
 * In the place of one root: with TrustZone there are two, system memory and secure
 * memory.
 */
typedef struct View {
    MemoryRegion root;
    MemoryRegion memory;      /* alias of all of `original` */
    MemoryRegion overlays;    /* alias of all overlays; enabled while there are some */
    MemoryRegion *original;
    AddressSpace original_as; /* memory_region_find, inside `original`, looks for one */
    QLIST_ENTRY(View) next;
} View;

static QLIST_HEAD(, View) views = QLIST_HEAD_INITIALIZER(views);
static MemoryRegion all_overlays; /* their container */
static uint32_t overlay_count;
static AddressSpace store_as;     /* the view of system memory */
static DeviceListener cpu_listener;

static MemoryRegion *no_owner_container(MemoryRegion *container, const char *name)
{
    memory_region_init(container, NULL, name, UINT64_MAX);
    return container;
}

static View *view_new(MemoryRegion *original)
{
    View *view = g_new0(View, 1);

    view->original = original;
    no_owner_container(&view->root, "viommu-view");
    memory_region_init_alias(&view->memory, NULL, "viommu-view-memory", original, 0,
                             UINT64_MAX);
    memory_region_init_alias(&view->overlays, NULL, "viommu-view-overlays", &all_overlays,
                             0, UINT64_MAX);
    memory_region_set_enabled(&view->overlays, overlay_count > 0);
    memory_region_add_subregion(&view->root, 0, &view->memory);
    memory_region_add_subregion_overlap(&view->root, 0, &view->overlays,
                                        OVERLAY_PRIORITY);
    if (original != get_system_memory()) {
        address_space_init(&view->original_as, original, "viommu-view-memory");
    }
    QLIST_INSERT_HEAD(&views, view, next);
    return view;
}

/*
 * System memory, or what has all of it inside (secure memory). Anything else has other
 * things at these addresses (MTE's tags).
 */
static bool shows_system_memory(const MemoryRegion *root)
{
    const MemoryRegion *system = get_system_memory(), *child;

    if (root == system) {
        return true;
    }
    QTAILQ_FOREACH(child, &root->subregions, subregions_link) {
        if (!child->addr &&
            (child == system || (child->alias == system && !child->alias_offset))) {
            return true;
        }
    }
    return false;
}

/* The view for an address space with this root; NULL: it needs none, or has one. */
static View *view_for(MemoryRegion *root)
{
    View *view;

    QLIST_FOREACH(view, &views, next) {
        if (root == &view->root) {
            return NULL;
        }
        if (root == view->original) {
            return view;
        }
    }
    return shows_system_memory(root) ? view_new(root) : NULL;
}

/*
 * In a memory transaction: its end brings the new memory map, and has the vCPU drop its
 * TLB.
 */
static void give_view(AddressSpace *as)
{
    View *view = view_for(as->root);

    if (!view) {
        return;
    }
    memory_region_ref(&view->root);
    memory_region_unref(as->root);
    as->root = &view->root;
    /* A new root alone is no change that the transaction would notice. */
    memory_region_set_enabled(&view->root, false);
    memory_region_set_enabled(&view->root, true);
}

static void give_views(CPUState *cpu)
{
    int i;

    for (i = 0; cpu->as && i < VIOMMU_CPU_SPACES(cpu); i++) {
        AddressSpace *as = cpu_get_address_space(cpu, i);

        if (as) {
            give_view(as);
        }
    }
}

/* A vCPU that is plugged in. It does not run before the big lock is free. */
static void device_realized(DeviceListener *listener, DeviceState *dev)
{
    if (object_dynamic_cast(OBJECT(dev), TYPE_CPU)) {
        memory_region_transaction_begin();
        viommu_views_update();
        memory_region_transaction_commit();
    }
}

static void start(void)
{
    no_owner_container(&all_overlays, "viommu-overlays");
    address_space_init(&store_as, &view_new(get_system_memory())->root, "viommu-stores");
    cpu_listener = (DeviceListener) { .realize = device_realized };
    device_listener_register(&cpu_listener);
}

void viommu_views_add(MemoryRegion *overlay, hwaddr gpa)
{
    if (!cpu_listener.realize) {
        start();
    }
    memory_region_add_subregion(&all_overlays, gpa, overlay);
    qatomic_set(&overlay_count, overlay_count + 1);
}

void viommu_views_remove(MemoryRegion *overlay)
{
    memory_region_del_subregion(&all_overlays, overlay);
    qatomic_set(&overlay_count, overlay_count - 1);
}

void viommu_views_update(void)
{
    CPUState *cpu;
    View *view;

    if (overlay_count) {
        CPU_FOREACH(cpu) {
            give_views(cpu);
        }
    }
    QLIST_FOREACH(view, &views, next) {
        memory_region_set_enabled(&view->overlays, overlay_count > 0);
    }
}

/*
 * A store to an overlay takes the big lock, and an iothread must not: the main thread,
 * which holds the lock, may be waiting for it to stop its device. So stores of an
 * iothread are not seen.
 */
AddressSpace *viommu_views_store_space(void)
{
    return qatomic_read(&overlay_count) && bql_locked() ? &store_as :
                                                          &address_space_memory;
}
