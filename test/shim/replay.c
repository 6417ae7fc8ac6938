/*
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A listener as QEMU's VFIO is one: it registers MAP and UNMAP notifiers for all that a device can
 * address. It keeps nothing but counts, so that what is timed is the IOMMU's part alone: how long
 * it takes until such a listener knows all that is mapped, and what an invalidation costs when
 * nothing has changed.
 */
#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "qemu/timer.h"
#include "exec/memory.h"
#include "hw/pci/pci.h"
#include "hw/pci/pci_device.h"

#include "guest-tables.h"
#include "stats.h"
#include "shim.h"

static IOMMUNotifier listener;
static bool listening;
static bool checking;
static uint64_t maps, unmaps, mapped_pages, outputs;

/* One number for what is mapped, however it is cut and whatever comes first. */
static uint64_t fold(const IOMMUTLBEntry *entry)
{
    uint64_t sum = 0;

    for (uint64_t at = 0; at <= entry->addr_mask; at += 4096) {
        uint64_t mix = (entry->iova + at) * 0x9e3779b97f4a7c15ull ^ (entry->translated_addr + at) ^ entry->perm;

        sum += mix * 0x100000001b3ull;
    }
    return sum;
}

static void notified(IOMMUNotifier *n, IOMMUTLBEntry *entry)
{
    if (entry->perm == IOMMU_NONE) {
        unmaps++;
        return;
    }
    maps++;
    mapped_pages += (entry->addr_mask >> 12) + 1;
    if (checking) {
        outputs += fold(entry);
    }
}

static void forget(void)
{
    maps = unmaps = mapped_pages = outputs = 0;
}

/* With nothing mapped yet. */
static const char *listen_to_all(ShimDevice *shim)
{
    const char *problem = bench_find_region(shim);
    Error *error = NULL;

    if (problem) {
        return problem;
    }
    iommu_notifier_init(&listener, notified, IOMMU_NOTIFIER_IOTLB_EVENTS, 0, HWADDR_MAX, shim->index);
    if (memory_region_register_iommu_notifier(MEMORY_REGION(shim->region), &listener, &error)) {
        error_free(error);
        return "the IOMMU announces no new mappings";
    }
    memory_region_iommu_replay(shim->region, &listener);
    listening = true;
    return NULL;
}

/*
 * ram GIB SCATTERED: so much RAM mapped in pages of 4 KiB, and the invalidation that tells of it.
 * Answers nanoseconds from the register write to its completion, and what the listener heard: maps,
 * unmaps, pages mapped.
 */
static void command_ram(ShimDevice *shim, int64_t gib, int64_t scattered)
{
    Object *object = object_resolve_path(shim->target, NULL);
    uint16_t rid = object ? pci_get_bdf(PCI_DEVICE(object)) : 0;
    const char *problem = NULL;
    int64_t start;

    if (!listening) {
        problem = guest_tables_map_ram(rid, 0, false);
        bql_lock();
        problem = problem ? problem : listen_to_all(shim);
        bql_unlock();
    }
    problem = problem ? problem : guest_tables_map_ram(rid, gib, scattered);
    if (problem) {
        shim_answer(shim, "error %s", problem);
        return;
    }
    forget();
    start = get_clock();
    guest_invalidate_domain();
    start = get_clock() - start;
    shim_answer(shim, "ok %" PRId64 " %" PRIu64 " %" PRIu64 " %" PRIu64, start, maps, unmaps, mapped_pages);
}

/*
 * replay CHECK: all that is mapped, told anew, as to a listener that comes. Answers as `ram`, and
 * one number over it.
 */
static void command_replay(ShimDevice *shim, int64_t check, int64_t unused)
{
    int64_t start;

    forget();
    checking = check;
    bql_lock();
    start = get_clock();
    memory_region_iommu_replay(shim->region, &listener);
    start = get_clock() - start;
    bql_unlock();
    checking = false;
    shim_answer(shim, "ok %" PRId64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu32, start, maps, unmaps,
                mapped_pages, (uint32_t)(outputs ^ outputs >> 32));
}

/*
 * domain ROUNDS: invalidations of the whole domain that change nothing, from the register write to
 * the cleared bit.
 */
static void command_domain(ShimDevice *shim, int64_t rounds, int64_t unused)
{
    g_autofree Stats *stats = g_new0(Stats, 1);

    forget();
    for (int64_t i = 0; i < rounds; i++) {
        int64_t start = get_clock();

        guest_invalidate_domain();
        stats_add(stats, get_clock() - start);
    }
    if (maps || unmaps) {
        shim_answer(shim, "error the listener was told of %" PRIu64 " maps and %" PRIu64 " unmaps", maps, unmaps);
        return;
    }
    stats_answer(stats, shim->stream);
}

/*
 * page ROUNDS: one page unmapped and mapped again, each with its own invalidation; both together.
 */
static void command_page(ShimDevice *shim, int64_t rounds, int64_t unused)
{
    g_autofree Stats *stats = g_new0(Stats, 1);

    for (int64_t i = 0; i < rounds; i++) {
        int64_t start = get_clock();

        guest_change_ram_page(false);
        guest_change_ram_page(true);
        stats_add(stats, get_clock() - start);
    }
    stats_answer(stats, shim->stream);
}

bool replay_command(ShimDevice *shim, const char *name, int64_t a, int64_t b)
{
    if (!strcmp(name, "ram")) {
        command_ram(shim, a, b);
    } else if (!listening) {
        return false;
    } else if (!strcmp(name, "replay")) {
        command_replay(shim, a, b);
    } else if (!strcmp(name, "domain")) {
        command_domain(shim, a, b);
    } else if (!strcmp(name, "page")) {
        command_page(shim, a, b);
    } else {
        return false;
    }
    return true;
}
