/*
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A stop watch: times IOMMUMemoryRegionClass::translate of whatever IOMMU stands before a PCI
 * device: stock intel-iommu or smmuv3, or ours, the same calls for all. The page tables are written
 * into guest RAM and the unit is programmed through its registers, as a guest driver would, without
 * a guest.
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

const char *bench_find_region(ShimDevice *shim)
{
    Object *object = object_resolve_path(shim->target, NULL);
    MemoryRegionSection section;

    if (!object || !object_dynamic_cast(object, TYPE_PCI_DEVICE)) {
        return "no PCI device at the path given as target";
    }
    shim->dma = pci_device_iommu_address_space(PCI_DEVICE(object));
    section = memory_region_find(shim->dma->root, DENSE_IOVA, 1);
    if (!section.mr || !memory_region_is_iommu(section.mr)) {
        return "the device's address space has no IOMMU in it";
    }
    shim->region = memory_region_get_iommu(section.mr);
    shim->region_class = IOMMU_MEMORY_REGION_GET_CLASS(shim->region);
    shim->index = memory_region_iommu_attrs_to_index(shim->region,
                                                      MEMTXATTRS_UNSPECIFIED);
    memory_region_unref(section.mr);
    return NULL;
}

/* read OFFSET SIZE: a register of the unit, for looking around. */
static void command_read(ShimDevice *shim, int64_t offset, int64_t size)
{
    shim_answer(shim, "ok 0x%" PRIx64, guest_read_register((int)offset, (int)size));
}

static void command_setup(ShimDevice *shim, int64_t levels, int64_t unused)
{
    const char *problem;
    uint16_t rid;
    Object *object;

    bql_lock();
    object = object_resolve_path(shim->target, NULL);
    rid = object ? pci_get_bdf(PCI_DEVICE(object)) : 0;
    bql_unlock();
    problem = guest_tables_build(rid, (int)levels);
    if (!problem) {
        bql_lock();
        problem = bench_find_region(shim);
        bql_unlock();
    }
    if (problem) {
        shim_answer(shim, "error %s", problem);
    } else {
        shim_answer(shim, "ok");
    }
}

/* What is timed: the callback as QEMU's own DMA path calls it. */
static inline bool translate(ShimDevice *shim, hwaddr iova)
{
    IOMMUTLBEntry entry = shim->region_class->translate(shim->region, iova, IOMMU_RO,
                                                         shim->index);

    return entry.perm & IOMMU_RO;
}

static uint64_t fold(ShimDevice *shim, uint64_t sum, hwaddr iova)
{
    IOMMUTLBEntry entry = shim->region_class->translate(shim->region, iova, IOMMU_RO, shim->index);
    hwaddr output = (entry.translated_addr & ~entry.addr_mask) | (iova & entry.addr_mask);

    return (sum ^ output ^ entry.perm) * 0x100000001b3ull;
}

/*
 * check: one number over the outputs of every page, the same for every IOMMU that translates
 * correctly.
 */
static void command_check(ShimDevice *shim, int64_t unused_a, int64_t unused_b)
{
    uint64_t sum = 0;

    bql_lock();
    for (int64_t page = 0; page < DENSE_PAGES; page++) {
        sum = fold(shim, sum, DENSE_IOVA + page * 4096 + page);
    }
    for (int64_t page = 0; page < SPARSE_PAGES; page++) {
        sum = fold(shim, sum, SPARSE_IOVA + page * SPARSE_STRIDE + page);
    }
    bql_unlock();
    shim_answer(shim, "ok %" PRIu32, (uint32_t)(sum ^ sum >> 32));
}

/* hit CALLS PAGES: translations of PAGES pages in turn, all of them cached. */
static void command_hit(ShimDevice *shim, int64_t calls, int64_t pages)
{
    const int64_t chunk = 20000;
    Stats stats = { 0 };
    int64_t good = 0, done = 0;

    if (pages < 1 || pages > DENSE_PAGES) {
        shim_answer(shim, "error pages out of range");
        return;
    }
    bql_lock();
    for (int64_t page = 0; page < pages; page++) {
        translate(shim, DENSE_IOVA + page * 4096);
    }
    bql_unlock();
    for (int64_t page = 0; done < calls; done += chunk) {
        bql_lock();
        int64_t start = get_clock();
        for (int64_t i = 0; i < chunk; i++) {
            good += translate(shim, DENSE_IOVA + page * 4096);
            page = page + 1 == pages ? 0 : page + 1;
        }
        stats_add(&stats, (double)(get_clock() - start) / chunk);
        bql_unlock();
    }
    if (good != done) {
        shim_answer(shim, "error %" PRId64 " of %" PRId64 " translations refused", done - good, done);
        return;
    }
    stats_answer(&stats, shim->stream);
}

/*
 * miss BATCH: translations of pages whose neighbours are not mapped, after a global invalidation.
 */
static void command_miss(ShimDevice *shim, int64_t batch, int64_t unused)
{
    Stats stats = { 0 };
    int64_t good = 0;

    if (batch < 1 || SPARSE_PAGES % batch) {
        shim_answer(shim, "error batch must divide %d", SPARSE_PAGES);
        return;
    }
    guest_invalidate_all();
    for (int64_t page = 0; page < SPARSE_PAGES; page += batch) {
        bql_lock();
        int64_t start = get_clock();
        for (int64_t i = 0; i < batch; i++) {
            good += translate(shim, SPARSE_IOVA + (page + i) * SPARSE_STRIDE);
        }
        stats_add(&stats, (double)(get_clock() - start) / batch);
        bql_unlock();
    }
    if (good != SPARSE_PAGES) {
        shim_answer(shim, "error %" PRId64 " translations refused", SPARSE_PAGES - good);
        return;
    }
    stats_answer(&stats, shim->stream);
}

/*
 * dense PAGES: consecutive pages in order after a global invalidation, as a long DMA touches them.
 */
static void command_dense(ShimDevice *shim, int64_t pages, int64_t unused)
{
    Stats stats = { 0 };

    if (pages < 1 || pages > DENSE_PAGES) {
        shim_answer(shim, "error pages out of range");
        return;
    }
    guest_invalidate_all();
    bql_lock();
    int64_t start = get_clock();
    for (int64_t page = 0; page < pages; page++) {
        translate(shim, DENSE_IOVA + page * 4096);
    }
    stats_add(&stats, (double)(get_clock() - start) / pages);
    bql_unlock();
    stats_answer(&stats, shim->stream);
}

/*
 * invalidate ROUNDS: from the register write to what says that it is done, one page cached before
 * each.
 */
static void command_invalidate(ShimDevice *shim, int64_t rounds, int64_t unused)
{
    Stats stats = { 0 };

    for (int64_t i = 0; i < rounds; i++) {
        bql_lock();
        translate(shim, DENSE_IOVA);
        bql_unlock();
        int64_t start = get_clock();
        guest_invalidate_all();
        stats_add(&stats, get_clock() - start);
    }
    stats_answer(&stats, shim->stream);
}

/* invalidate-page ROUNDS: from the doorbell to the completion of one page, cached before each. */
static void command_invalidate_page(ShimDevice *shim, int64_t rounds, int64_t unused)
{
    const char *problem = guest_use_queue(true);
    Stats stats = { 0 };

    for (int64_t i = 0; !problem && i < rounds; i++) {
        bql_lock();
        translate(shim, DENSE_IOVA);
        bql_unlock();
        int64_t start = get_clock();
        if (!guest_invalidate_page(DENSE_IOVA)) {
            problem = "an invalidation was not completed";
        }
        stats_add(&stats, get_clock() - start);
    }
    if (!problem) {
        problem = guest_use_queue(false);
    }
    if (problem) {
        shim_answer(shim, "error %s", problem);
        return;
    }
    stats_answer(&stats, shim->stream);
}

static const struct {
    const char *name;
    bool needs_region;
    void (*run)(ShimDevice *shim, int64_t a, int64_t b);
} commands[] = {
    { "setup", false, command_setup },
    { "read", false, command_read },
    { "check", true, command_check },
    { "hit", true, command_hit },
    { "miss", true, command_miss },
    { "dense", true, command_dense },
    { "invalidate", true, command_invalidate },
    { "invalidate-page", true, command_invalidate_page },
};

bool bench_command(ShimDevice *shim, const char *name, int64_t a, int64_t b)
{
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
        if (!strcmp(name, commands[i].name)) {
            if (commands[i].needs_region && !shim->region) {
                shim_answer(shim, "error setup comes first");
            } else {
                commands[i].run(shim, a, b);
            }
            return true;
        }
    }
    return false;
}
