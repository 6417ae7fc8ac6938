/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * viommu-testdev,assigned=on does what QEMU's VFIO does for a device of the host. It
 * registers IOMMU notifiers, keeps what they map and unmap under the rules of a type1
 * container (mappings never overlap, none is cut, their number is limited), and reaches
 * only what is mapped: its DMA never asks the IOMMU.
 */
#include "compat.h"
#include "ioctl-watch.h"
#include "testdev.h"
#include "testdev-assigned.h"

/*
 * Stands for a mapping of the host: to memory that is pinned, also where the guest no
 * longer sees that memory.
 */
typedef struct Mapping {
    uint64_t first;
    uint64_t last;
    uint8_t *memory;
    MemoryRegion *region;
    uint64_t offset;
    uint32_t access;
} Mapping;

typedef struct Listening {
    IOMMUNotifier notifier;
    ViommuTestdev *d;
    IOMMUMemoryRegion *region;
    uint64_t base; /* of the region in the device's address space */
    QLIST_ENTRY(Listening) next;
} Listening;

/* Ranges that overlap are equal: a look-up finds any mapping that overlaps. */
static int compare(gconstpointer a, gconstpointer b, gpointer unused)
{
    const Mapping *x = a, *y = b;

    return x->last < y->first ? -1 : x->first > y->last;
}

static void forget(gpointer data)
{
    Mapping *m = data;

    memory_region_unref(m->region);
    g_free(m);
}

static Mapping *find(ViommuTestdev *d, uint64_t first, uint64_t last)
{
    Mapping range = { .first = first, .last = last };

    return g_tree_lookup(d->assigned.mappings, &range);
}

static int unmap(ViommuTestdev *d, uint64_t first, uint64_t last)
{
    Mapping *m;

    d->assigned.unmaps++;
    while ((m = find(d, first, last))) {
        if (m->first < first || m->last > last) {
            return -EINVAL;
        }
        g_tree_remove(d->assigned.mappings, m);
    }
    return 0;
}

static int map(ViommuTestdev *d, uint64_t first, uint64_t last, uint64_t gpa,
               uint32_t access)
{
    hwaddr offset, length = last - first + 1;
    MemoryRegion *region;
    Mapping *m;

    d->assigned.maps++;
    if (d->assigned.fail_every && d->assigned.maps % d->assigned.fail_every == 0) {
        return -ENOMEM;
    }
    if (find(d, first, last)) {
        return -EEXIST;
    }
    if (g_tree_nnodes(d->assigned.mappings) >= d->assigned.limit) {
        return -ENOSPC;
    }
    RCU_READ_LOCK_GUARD();
    region = address_space_translate(&address_space_memory, gpa, &offset, &length,
                                     access & IOMMU_WO, MEMTXATTRS_UNSPECIFIED);
    if (!memory_region_is_ram(region) || length < last - first + 1) {
        return -EFAULT;
    }
    m = g_new(Mapping, 1);
    *m = (Mapping) {
        .first = first,
        .last = last,
        .memory = (uint8_t *)memory_region_get_ram_ptr(region) + offset,
        .region = region,
        .offset = offset,
        .access = access,
    };
    memory_region_ref(region);
    g_tree_insert(d->assigned.mappings, m, m);
    return 0;
}

static void notified(IOMMUNotifier *n, IOMMUTLBEntry *entry)
{
    Listening *l = container_of(n, Listening, notifier);
    uint64_t first = l->base + entry->iova, last = first + entry->addr_mask;
    int error = entry->perm == IOMMU_NONE ?
                    unmap(l->d, first, last) :
                    map(l->d, first, last, entry->translated_addr, entry->perm);

    if (error) {
        viommu_ioctl_watch_fail(-error);
    }
}

static void listen_to(ViommuTestdev *d, MemoryRegionSection *section)
{
    IOMMUMemoryRegion *region = IOMMU_MEMORY_REGION(section->mr);
    Listening *l = g_new0(Listening, 1);
    uint64_t first = section->offset_within_region;

    l->d = d;
    l->region = region;
    l->base = section->offset_within_address_space - first;
    iommu_notifier_init(&l->notifier, notified, IOMMU_NOTIFIER_IOTLB_EVENTS, first,
                        first + int128_get64(int128_sub(section->size, int128_one())),
                        memory_region_iommu_attrs_to_index(region,
                                                           MEMTXATTRS_UNSPECIFIED));
    if (memory_region_register_iommu_notifier(section->mr, &l->notifier,
                                              d->assigned.error ? NULL :
                                                                  &d->assigned.error)) {
        g_free(l);
        return;
    }
    QLIST_INSERT_HEAD(&d->assigned.listening, l, next);
    memory_region_iommu_replay(region, &l->notifier);
}

static void region_add(MemoryListener *listener, MemoryRegionSection *section)
{
    ViommuTestdev *d = container_of(listener, ViommuTestdev, assigned.listener);
    uint64_t first = section->offset_within_address_space;

    if (memory_region_is_iommu(section->mr)) {
        listen_to(d, section);
    } else if (memory_region_is_ram(section->mr) &&
               !memory_region_is_ram_device(section->mr)) {
        map(d, first, first + int128_get64(section->size) - 1, first,
            section->readonly ? IOMMU_RO : IOMMU_RW);
    }
}

static void region_del(MemoryListener *listener, MemoryRegionSection *section)
{
    ViommuTestdev *d = container_of(listener, ViommuTestdev, assigned.listener);
    uint64_t first = section->offset_within_address_space;
    Listening *l, *next;

    QLIST_FOREACH_SAFE(l, &d->assigned.listening, next, next) {
        if (MEMORY_REGION(l->region) == section->mr &&
            l->notifier.start == section->offset_within_region) {
            memory_region_unregister_iommu_notifier(section->mr, &l->notifier);
            QLIST_REMOVE(l, next);
            g_free(l);
        }
    }
    unmap(d, first, first + int128_get64(int128_sub(section->size, int128_one())));
}

MemTxResult viommu_testdev_assigned_rw(ViommuTestdev *d, uint64_t address, void *data,
                                       uint32_t size, bool write)
{
    Mapping *m = find(d, address, address + size - 1);

    if (!(pci_get_word(d->parent.config + PCI_COMMAND) & PCI_COMMAND_MASTER) || !m ||
        m->first > address || m->last - address < size - 1) {
        return MEMTX_DECODE_ERROR;
    }
    if (!(m->access & (write ? IOMMU_WO : IOMMU_RO))) {
        return MEMTX_ACCESS_ERROR;
    }
    if (write) {
        memcpy(m->memory + (address - m->first), data, size);
        memory_region_set_dirty(m->region, m->offset + (address - m->first), size);
    } else {
        memcpy(data, m->memory + (address - m->first), size);
    }
    return MEMTX_OK;
}

void viommu_testdev_assigned_start(ViommuTestdev *d, Error **errp)
{
    if (!d->assigned.on) {
        return;
    }
    QLIST_INIT(&d->assigned.listening);
    d->assigned.mappings = g_tree_new_full(compare, NULL, NULL, forget);
    d->assigned.listener = (MemoryListener) {
        .name = "viommu-testdev-assigned",
        .region_add = region_add,
        .region_del = region_del,
    };
    memory_listener_register(&d->assigned.listener,
                             pci_device_iommu_address_space(&d->parent));
    if (d->assigned.error) {
        error_propagate(errp, d->assigned.error);
        d->assigned.error = NULL;
        viommu_testdev_assigned_stop(d);
    }
}

void viommu_testdev_assigned_stop(ViommuTestdev *d)
{
    if (d->assigned.mappings) {
        memory_listener_unregister(&d->assigned.listener);
        g_tree_destroy(d->assigned.mappings);
        d->assigned.mappings = NULL;
    }
}
