/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * For tests: a thread without the big lock that does DMA as the first viommu-testdev
 * again and again, and is slow between learning a translation and keeping it: each lock
 * that it takes in translate.c takes long. It reads a word at VIOMMU_PROBE, an input
 * address, and stores it to guest memory behind a count of such reads. Loaded behind the
 * bridge.
 */
#include "compat.h"
#include "qemu/module.h"
#include "viommu-types.h"

#define REPORT_AT 0x310000
#define LATE_US 100000
#define PAUSE_US 1000

static __thread bool is_late;
static QemuMutexLockFunc lock_at_once;
static QemuThread thread;
static AddressSpace *as;

static void lock_late(QemuMutex *mutex, const char *file, int line)
{
    if (is_late && g_str_has_suffix(file, "translate.c")) {
        g_usleep(LATE_US);
    }
    lock_at_once(mutex, file, line);
}

static void *read_again_and_again(void *opaque)
{
    uint64_t address = 0;
    uint32_t report[2] = { 0 };

    qemu_strtou64(getenv("VIOMMU_PROBE"), NULL, 16, &address);
    rcu_register_thread();
    is_late = true;
    for (;;) {
        address_space_read(as, address, MEMTXATTRS_UNSPECIFIED, &report[1],
                           sizeof(uint32_t));
        report[0]++;
        address_space_write(&address_space_memory, REPORT_AT, MEMTXATTRS_UNSPECIFIED,
                            report, sizeof(report));
        g_usleep(PAUSE_US);
    }
    return NULL;
}

static int find_device(Object *child, void *opaque)
{
    if (object_dynamic_cast(child, TYPE_VIOMMU_TESTDEV)) {
        as = pci_device_iommu_address_space(PCI_DEVICE(child));
    }
    return 0;
}

static void probe(Notifier *unused, void *data)
{
    object_child_foreach_recursive(object_get_root(), find_device, NULL);
    lock_at_once = qemu_mutex_lock_func;
    qatomic_set(&qemu_mutex_lock_func, lock_late);
    qemu_thread_create(&thread, "late-probe", read_again_and_again, NULL,
                       QEMU_THREAD_DETACHED);
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
