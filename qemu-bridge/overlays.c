/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Over every tracked page lies an alias of a ROM device that shares the RAM block: reads
 * stay direct, and a store comes here, is written through, and told (stores.c). Only
 * vCPUs see overlays: listeners that map guest RAM do not (views.c).
 *
 * Everything here runs under the big lock, unless it says otherwise.
 */
#include "compat.h"
#include "memory-table.h"
#include "overlays.h"
#include "stores.h"
#include "track.h"
#include "viommu-core.h"
#include "views.h"

/*
 * QEMU's dispatch tables hold fewer than 4096 sections, and an overlay takes two. Where
 * more would be needed, pages in between are overlaid too. vCPUs' stores to these are
 * only slower, and devices' stores do not meet the overlay (translate.c).
 */
#define MOST_OVERLAYS 1024

/* The RAM alone: stores through it mark pages dirty and drop translated code. */
typedef struct RamSpace {
    struct rcu_head rcu;
    AddressSpace as;
    MemoryRegion *ram;
} RamSpace;

/*
 * A region of RAM with tracked pages. It stays when none are left: a device that has
 * mapped a page for writing holds on to `device` until its transfer ends, long after any
 * grace period.
 */
typedef struct TrackedRam {
    MemoryRegion device;
    RamSpace *space; /* NULL: no overlay is left */
    MemoryRegion *ram;
    RAMBlock *block;
    ViommuCore *core;
    uint64_t gpa;    /* of the RAM's first byte */
    uint32_t overlays;
    QLIST_ENTRY(TrackedRam) next;
} TrackedRam;

typedef struct Overlay {
    MemoryRegion alias;
    TrackedRam *ram;
    uint64_t first; /* pages, both included */
    uint64_t last;
} Overlay;

/*
 * Addresses of an address space start where the container of its root would: RAM that is
 * mapped by itself has an address there.
 */
static hwaddr in_ram(const TrackedRam *ram, hwaddr offset)
{
    return ram->ram->addr + offset;
}

static uint64_t overlay_read(void *opaque, hwaddr offset, unsigned size)
{
    TrackedRam *ram = opaque;
    uint64_t value = 0;

    if (ram->space) {
        address_space_read(&ram->space->as, in_ram(ram, offset), MEMTXATTRS_UNSPECIFIED,
                           &value, size);
    }
    return le64_to_cpu(value);
}

/*
 * One store for each size: a concurrent reader of an aligned value sees all of it or
 * nothing.
 */
static void overlay_write(void *opaque, hwaddr offset, uint64_t value, unsigned size)
{
    TrackedRam *ram = opaque;
    AddressSpace *as;
    hwaddr at;

    if (!ram->space) {
        return;
    }
    as = &ram->space->as;
    at = in_ram(ram, offset);
    switch (size) {
    case 1:
        address_space_stb(as, at, value, MEMTXATTRS_UNSPECIFIED, NULL);
        break;
    case 2:
        address_space_stw_le(as, at, value, MEMTXATTRS_UNSPECIFIED, NULL);
        break;
    case 4:
        address_space_stl_le(as, at, value, MEMTXATTRS_UNSPECIFIED, NULL);
        break;
    default:
        address_space_stq_le(as, at, value, MEMTXATTRS_UNSPECIFIED, NULL);
    }
    viommu_stores_tell(ram->core, ram->gpa + offset, size);
}

static const MemoryRegionOps overlay_ops = {
    .read = overlay_read,
    .write = overlay_write,
    .endianness = DEVICE_LITTLE_ENDIAN,
    .valid = { .min_access_size = 1, .max_access_size = 8, .unaligned = true },
    .impl = { .min_access_size = 1, .max_access_size = 8, .unaligned = true },
};

static TrackedRam *ram_new(ViommuCore *core, const ViommuRegion *region)
{
    TrackedRam *ram = g_new0(TrackedRam, 1);

    ram->core = core;
    ram->ram = region->mr;
    ram->block = region->mr->ram_block;
    ram->gpa = region->gpa - region->offset;
    memory_region_init_io(&ram->device, OBJECT(core->dev), &overlay_ops, ram,
                          "viommu-tracked-ram", memory_region_size(ram->ram));
    ram->device.rom_device = true;
    ram->device.romd_mode = true;
    ram->device.ram_block = ram->block;
    QLIST_INSERT_HEAD(&core->tracking.rams, ram, next);
    return ram;
}

/* One that had no overlays any more is taken again if it is of the very same RAM. */
static TrackedRam *ram_get(ViommuCore *core, const ViommuRegion *region)
{
    TrackedRam *ram;

    QLIST_FOREACH(ram, &core->tracking.rams, next) {
        if (ram->ram == region->mr && ram->gpa == region->gpa - region->offset &&
            ram->block == region->mr->ram_block &&
            memory_region_size(&ram->device) == memory_region_size(region->mr)) {
            break;
        }
    }
    if (!ram) {
        ram = ram_new(core, region);
    }
    if (!ram->space) {
        ram->space = g_new0(RamSpace, 1);
        ram->space->ram = ram->ram;
        memory_region_ref(ram->ram);
        address_space_init(&ram->space->as, ram->ram, "viommu-tracked-ram");
    }
    return ram;
}

static void free_space(RamSpace *space)
{
    memory_region_unref(space->ram);
    g_free(space);
}

static void leave_unused_rams(ViommuTracking *t)
{
    TrackedRam *ram;

    QLIST_FOREACH(ram, &t->rams, next) {
        RamSpace *space = ram->space;

        if (!ram->overlays && space) {
            ram->space = NULL;
            address_space_destroy(&space->as);
            call_rcu(space, free_space, rcu);
        }
    }
}

/* The writable RAM that a page lies in as a whole, or NULL. */
static const ViommuRegion *region_at(ViommuCore *core, uint64_t page)
{
    uint64_t gpa = page << VIOMMU_PAGE_BITS;
    ViommuRegion *region;

    QTAILQ_FOREACH(region, &core->regions, next) {
        if (gpa >= region->gpa && gpa - region->gpa < region->size) {
            return !region->readonly &&
                           region->size - (gpa - region->gpa) >= VIOMMU_PAGE_SIZE ?
                       region :
                       NULL;
        }
    }
    return NULL;
}

typedef struct Run {
    uint64_t first;
    uint64_t last;
    const ViommuRegion *region;
} Run;

typedef struct RunMaker {
    ViommuCore *core;
    GArray *runs;
    uint64_t gap; /* pages that two runs may lie apart and still be one */
} RunMaker;

static gboolean add_page(gpointer key, gpointer value, gpointer data)
{
    RunMaker *maker = data;
    uint64_t page = *(uint64_t *)key;
    Run run = { page, page, region_at(maker->core, page) };

    if (!run.region) {
        return FALSE;
    }
    if (maker->runs->len) {
        Run *before = &g_array_index(maker->runs, Run, maker->runs->len - 1);

        if (before->region == run.region && page - before->last - 1 <= maker->gap) {
            before->last = page;
            return FALSE;
        }
    }
    g_array_append_val(maker->runs, run);
    return FALSE;
}

static GArray *make_runs(ViommuCore *core)
{
    RunMaker maker = { .core = core, .runs = g_array_new(FALSE, FALSE, sizeof(Run)) };

    g_tree_foreach(core->tracking.pages, add_page, &maker);
    while (maker.runs->len > MOST_OVERLAYS && maker.gap < UINT64_MAX / 4) {
        maker.gap = MAX(maker.gap * 4, 4);
        g_array_set_size(maker.runs, 0);
        g_tree_foreach(core->tracking.pages, add_page, &maker);
    }
    return maker.runs;
}

static Overlay *overlay_new(ViommuCore *core, const Run *run)
{
    uint64_t gpa = run->first << VIOMMU_PAGE_BITS, size = (run->last - run->first + 1)
                                                          << VIOMMU_PAGE_BITS;
    g_autofree char *name = g_strdup_printf("viommu-tracked-%" PRIx64, gpa);
    Overlay *overlay = g_new0(Overlay, 1);

    overlay->ram = ram_get(core, run->region);
    overlay->ram->overlays++;
    overlay->first = run->first;
    overlay->last = run->last;
    memory_region_init_alias(&overlay->alias, OBJECT(core->dev), name,
                             &overlay->ram->device, gpa - overlay->ram->gpa, size);
    viommu_views_add(&overlay->alias, gpa);
    return overlay;
}

static void overlay_free(Overlay *overlay)
{
    viommu_views_remove(&overlay->alias);
    object_unparent(OBJECT(&overlay->alias));
    overlay->ram->overlays--;
    g_free(overlay);
}

static bool overlay_is(const Overlay *overlay, const Run *run)
{
    return overlay->first == run->first && overlay->last == run->last &&
           overlay->ram->ram == run->region->mr &&
           overlay->ram->gpa == run->region->gpa - run->region->offset;
}

void viommu_overlays_apply(ViommuCore *core)
{
    ViommuTracking *t = &core->tracking;
    g_autoptr(GArray) runs = make_runs(core);
    GPtrArray *old = t->overlays, *overlays = g_ptr_array_new();
    guint i, at = 0;

    memory_region_transaction_begin();
    for (i = 0; i < runs->len; i++) {
        const Run *run = &g_array_index(runs, Run, i);

        while (at < old->len && ((Overlay *)old->pdata[at])->first < run->first) {
            overlay_free(old->pdata[at++]);
        }
        if (at < old->len && overlay_is(old->pdata[at], run)) {
            g_ptr_array_add(overlays, old->pdata[at++]);
        } else {
            g_ptr_array_add(overlays, overlay_new(core, run));
        }
    }
    while (at < old->len) {
        overlay_free(old->pdata[at++]);
    }
    g_ptr_array_free(old, TRUE);
    t->overlays = overlays;
    viommu_views_update();
    memory_region_transaction_commit();
    leave_unused_rams(t);
}
