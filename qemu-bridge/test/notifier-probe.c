/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * For tests: an IOMMU notifier inside QEMU, as VFIO and vhost have them. Loaded behind
 * the bridge. When the machine is complete it registers one notifier for the first
 * viommu-testdev, replays if it is for MAP events, and writes every event to standard
 * error, a line each. VIOMMU_PROBE says what to register for: map, unmap, device-iotlb.
 */
#include "compat.h"
#include "qemu/module.h"
#include "viommu-types.h"

static IOMMUNotifier notifier;

static void heard(IOMMUNotifier *n, IOMMUTLBEntry *entry)
{
    fprintf(stderr, "probe: %s %" PRIx64 "+%" PRIx64 " -> %" PRIx64 " perm %d\n",
            entry->perm == IOMMU_NONE ? "unmap" : "map", (uint64_t)entry->iova,
            (uint64_t)entry->addr_mask, (uint64_t)entry->translated_addr, entry->perm);
}

static IOMMUNotifierFlag wanted(void)
{
    const char *what = getenv("VIOMMU_PROBE");

    if (!g_strcmp0(what, "map")) {
        return IOMMU_NOTIFIER_IOTLB_EVENTS;
    }
    return g_strcmp0(what, "unmap") ? IOMMU_NOTIFIER_DEVIOTLB_UNMAP :
                                      IOMMU_NOTIFIER_UNMAP;
}

static int find_device(Object *child, void *opaque)
{
    Object **found = opaque;

    if (object_dynamic_cast(child, TYPE_VIOMMU_TESTDEV)) {
        *found = child;
    }
    return 0;
}

static void probe(Notifier *unused, void *data)
{
    Object *device = NULL;
    MemoryRegionSection section;
    Error *error = NULL;

    object_child_foreach_recursive(object_get_root(), find_device, &device);
    section = memory_region_find(pci_device_iommu_address_space(PCI_DEVICE(device))->root,
                                 0, 1);
    iommu_notifier_init(&notifier, heard, wanted(), 0, UINT64_MAX, 0);
    if (memory_region_register_iommu_notifier(section.mr, &notifier, &error) < 0) {
        fprintf(stderr, "probe: refused: %s\n", error_get_pretty(error));
        error_free(error);
        return;
    }
    fprintf(stderr, "probe: registered\n");
    if (notifier.notifier_flags & IOMMU_NOTIFIER_MAP) {
        memory_region_iommu_replay(IOMMU_MEMORY_REGION(section.mr), &notifier);
        fprintf(stderr, "probe: replayed\n");
    }
}

static Notifier machine_done = { .notify = probe };

static void add_notifier(void)
{
    qemu_add_machine_init_done_notifier(&machine_done);
}

static void __attribute__((constructor)) load_probe(void)
{
    if (getenv("VIOMMU_PROBE")) {
        register_module_init(add_notifier, MODULE_INIT_QOM);
    }
}
