/*
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A stop watch inside QEMU. Loaded the way the bridge is (LD_PRELOAD), it adds `-device viommu-bench`, which
 * times IOMMUMemoryRegionClass::translate of whatever IOMMU stands before a PCI device: stock intel-iommu or
 * viommu-vtd, the same calls for both. It runs under -S: the page tables are written into guest RAM and the
 * unit is programmed through its registers, as a guest driver would, without a guest.
 *
 * It takes one command per line on an AF_UNIX socket and answers with one line; see commands[] below.
 */
#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "qemu/module.h"
#include "qemu/rcu.h"
#include "qemu/thread.h"
#include "qemu/timer.h"
#include "qapi/error.h"
#include "exec/address-spaces.h"
#include "exec/memory.h"
#include "hw/pci/pci.h"
#include "hw/pci/pci_device.h"
#include "hw/qdev-properties.h"
#include "system/runstate.h"
#include "system/system.h"

#include <sys/socket.h>
#include <sys/un.h>

#include "guest-tables.h"
#include "stats.h"
#include "echo.h"

#define TYPE_VIOMMU_BENCH "viommu-bench"
OBJECT_DECLARE_SIMPLE_TYPE(BenchDevice, VIOMMU_BENCH)

struct BenchDevice {
    DeviceState parent_obj;
    char *control;
    char *target;
    Notifier machine_done;
    QemuThread thread;
    FILE *stream;
    AddressSpace *dma;
    IOMMUMemoryRegion *region;
    IOMMUMemoryRegionClass *region_class;
    int index;
};

static G_GNUC_PRINTF(2, 3) void answer(BenchDevice *bench, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vfprintf(bench->stream, format, args);
    va_end(args);
    fputc('\n', bench->stream);
    fflush(bench->stream);
}

/* Finds the IOMMU region of the target device once translation is on. Called with the BQL. */
static const char *find_region(BenchDevice *bench)
{
    Object *object = object_resolve_path(bench->target, NULL);
    MemoryRegionSection section;

    if (!object || !object_dynamic_cast(object, TYPE_PCI_DEVICE)) {
        return "no PCI device at the path given as target";
    }
    bench->dma = pci_device_iommu_address_space(PCI_DEVICE(object));
    section = memory_region_find(bench->dma->root, DENSE_IOVA, 1);
    if (!section.mr || !memory_region_is_iommu(section.mr)) {
        return "the device's address space has no IOMMU in it";
    }
    bench->region = memory_region_get_iommu(section.mr);
    bench->region_class = IOMMU_MEMORY_REGION_GET_CLASS(bench->region);
    bench->index = memory_region_iommu_attrs_to_index(bench->region,
                                                      MEMTXATTRS_UNSPECIFIED);
    memory_region_unref(section.mr);
    return NULL;
}

/* read OFFSET SIZE: a register of the unit, for looking around. */
static void command_read(BenchDevice *bench, int64_t offset, int64_t size)
{
    answer(bench, "ok 0x%" PRIx64, guest_read_register((int)offset, (int)size));
}

static void command_setup(BenchDevice *bench, int64_t levels, int64_t unused)
{
    const char *problem;
    uint16_t rid;
    Object *object;

    bql_lock();
    object = object_resolve_path(bench->target, NULL);
    rid = object ? pci_get_bdf(PCI_DEVICE(object)) : 0;
    bql_unlock();
    problem = guest_tables_build(rid, (int)levels);
    if (!problem) {
        bql_lock();
        problem = find_region(bench);
        bql_unlock();
    }
    if (problem) {
        answer(bench, "error %s", problem);
    } else {
        answer(bench, "ok");
    }
}

/* What is timed: the callback as QEMU's own DMA path calls it. */
static inline bool translate(BenchDevice *bench, hwaddr iova)
{
    IOMMUTLBEntry entry = bench->region_class->translate(bench->region, iova, IOMMU_RO,
                                                         bench->index);

    return entry.perm & IOMMU_RO;
}

static uint64_t fold(BenchDevice *bench, uint64_t sum, hwaddr iova)
{
    IOMMUTLBEntry entry = bench->region_class->translate(bench->region, iova, IOMMU_RO, bench->index);
    hwaddr output = (entry.translated_addr & ~entry.addr_mask) | (iova & entry.addr_mask);

    return (sum ^ output ^ entry.perm) * 0x100000001b3ull;
}

/* check: one number over the outputs of every page, the same for every IOMMU that translates correctly. */
static void command_check(BenchDevice *bench, int64_t unused_a, int64_t unused_b)
{
    uint64_t sum = 0;

    bql_lock();
    for (int64_t page = 0; page < DENSE_PAGES; page++) {
        sum = fold(bench, sum, DENSE_IOVA + page * 4096 + page);
    }
    for (int64_t page = 0; page < SPARSE_PAGES; page++) {
        sum = fold(bench, sum, SPARSE_IOVA + page * SPARSE_STRIDE + page);
    }
    bql_unlock();
    answer(bench, "ok %" PRIu32, (uint32_t)(sum ^ sum >> 32));
}

/* hit CALLS PAGES: translations of PAGES pages in turn, all of them cached. */
static void command_hit(BenchDevice *bench, int64_t calls, int64_t pages)
{
    const int64_t chunk = 20000;
    Stats stats = { 0 };
    int64_t good = 0, done = 0;

    if (pages < 1 || pages > DENSE_PAGES) {
        answer(bench, "error pages out of range");
        return;
    }
    bql_lock();
    for (int64_t page = 0; page < pages; page++) {
        translate(bench, DENSE_IOVA + page * 4096);
    }
    bql_unlock();
    for (int64_t page = 0; done < calls; done += chunk) {
        bql_lock();
        int64_t start = get_clock();
        for (int64_t i = 0; i < chunk; i++) {
            good += translate(bench, DENSE_IOVA + page * 4096);
            page = page + 1 == pages ? 0 : page + 1;
        }
        stats_add(&stats, (double)(get_clock() - start) / chunk);
        bql_unlock();
    }
    if (good != done) {
        answer(bench, "error %" PRId64 " of %" PRId64 " translations refused", done - good, done);
        return;
    }
    stats_answer(&stats, bench->stream);
}

/* miss BATCH: translations of pages whose neighbours are not mapped, after a global invalidation. */
static void command_miss(BenchDevice *bench, int64_t batch, int64_t unused)
{
    Stats stats = { 0 };
    int64_t good = 0;

    if (batch < 1 || SPARSE_PAGES % batch) {
        answer(bench, "error batch must divide %d", SPARSE_PAGES);
        return;
    }
    guest_invalidate_all();
    for (int64_t page = 0; page < SPARSE_PAGES; page += batch) {
        bql_lock();
        int64_t start = get_clock();
        for (int64_t i = 0; i < batch; i++) {
            good += translate(bench, SPARSE_IOVA + (page + i) * SPARSE_STRIDE);
        }
        stats_add(&stats, (double)(get_clock() - start) / batch);
        bql_unlock();
    }
    if (good != SPARSE_PAGES) {
        answer(bench, "error %" PRId64 " translations refused", SPARSE_PAGES - good);
        return;
    }
    stats_answer(&stats, bench->stream);
}

/* dense PAGES: consecutive pages in order after a global invalidation, as a long DMA touches them. */
static void command_dense(BenchDevice *bench, int64_t pages, int64_t unused)
{
    Stats stats = { 0 };

    if (pages < 1 || pages > DENSE_PAGES) {
        answer(bench, "error pages out of range");
        return;
    }
    guest_invalidate_all();
    bql_lock();
    int64_t start = get_clock();
    for (int64_t page = 0; page < pages; page++) {
        translate(bench, DENSE_IOVA + page * 4096);
    }
    stats_add(&stats, (double)(get_clock() - start) / pages);
    bql_unlock();
    stats_answer(&stats, bench->stream);
}

/* invalidate ROUNDS: from the register write to the cleared IVT bit, one page cached before each. */
static void command_invalidate(BenchDevice *bench, int64_t rounds, int64_t unused)
{
    Stats stats = { 0 };

    for (int64_t i = 0; i < rounds; i++) {
        bql_lock();
        translate(bench, DENSE_IOVA);
        bql_unlock();
        int64_t start = get_clock();
        guest_invalidate_all();
        stats_add(&stats, get_clock() - start);
    }
    stats_answer(&stats, bench->stream);
}

static const struct {
    const char *name;
    bool needs_region;
    void (*run)(BenchDevice *bench, int64_t a, int64_t b);
} commands[] = {
    { "setup", false, command_setup },
    { "read", false, command_read },
    { "check", true, command_check },
    { "hit", true, command_hit },
    { "miss", true, command_miss },
    { "dense", true, command_dense },
    { "invalidate", true, command_invalidate },
};

static void run_line(BenchDevice *bench, char *line)
{
    char name[32];
    int64_t a = 0, b = 0;

    if (sscanf(line, "%31s %" SCNd64 " %" SCNd64, name, &a, &b) < 1) {
        answer(bench, "error empty command");
        return;
    }
    if (!strcmp(name, "echo")) {
        echo_command(line, bench->stream);
        return;
    }
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
        if (!strcmp(name, commands[i].name)) {
            if (commands[i].needs_region && !bench->region) {
                answer(bench, "error setup comes first");
                return;
            }
            commands[i].run(bench, a, b);
            return;
        }
    }
    answer(bench, "error unknown command");
}

/* Works like a vCPU thread: takes the BQL for what needs it and lets the main loop run in between. */
static void *bench_thread(void *opaque)
{
    BenchDevice *bench = opaque;
    char line[512];

    rcu_register_thread();
    answer(bench, "ready");
    while (fgets(line, sizeof(line), bench->stream)) {
        run_line(bench, line);
    }
    /* Whoever asked has gone: so does this machine. */
    qemu_system_shutdown_request(SHUTDOWN_CAUSE_HOST_QMP_QUIT);
    rcu_unregister_thread();
    return NULL;
}

/* Called by the main loop, so after the first reset: one in the middle of the set-up would undo it. */
static gboolean start_thread(gpointer opaque)
{
    BenchDevice *bench = opaque;

    qemu_thread_create(&bench->thread, "viommu-bench", bench_thread, bench, QEMU_THREAD_DETACHED);
    return G_SOURCE_REMOVE;
}

static void bench_machine_done(Notifier *notifier, void *data)
{
    g_timeout_add(1, start_thread, container_of(notifier, BenchDevice, machine_done));
}

static void bench_realize(DeviceState *dev, Error **errp)
{
    BenchDevice *bench = VIOMMU_BENCH(dev);
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd;

    if (!bench->control || strlen(bench->control) >= sizeof(address.sun_path)) {
        error_setg(errp, "viommu-bench: control=PATH of a listening socket is needed");
        return;
    }
    strcpy(address.sun_path, bench->control);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address))) {
        error_setg_errno(errp, errno, "viommu-bench: cannot connect to %s", bench->control);
        if (fd >= 0) {
            close(fd);
        }
        return;
    }
    bench->stream = fdopen(fd, "r+");
    bench->machine_done.notify = bench_machine_done;
    qemu_add_machine_init_done_notifier(&bench->machine_done);
}

static const Property bench_properties[] = {
    DEFINE_PROP_STRING("control", BenchDevice, control),
    DEFINE_PROP_STRING("target", BenchDevice, target),
};

static void bench_class_init(ObjectClass *klass, void *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);

    dc->realize = bench_realize;
    dc->user_creatable = true;
    dc->desc = "times the translate callback of the IOMMU before a PCI device";
    device_class_set_props(dc, bench_properties);
}

static const TypeInfo bench_info = {
    .name = TYPE_VIOMMU_BENCH,
    .parent = TYPE_DEVICE,
    .instance_size = sizeof(BenchDevice),
    .class_init = bench_class_init,
};

static void bench_register(void)
{
    type_register_static(&bench_info);
}
type_init(bench_register)
