/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Guest tables on a real kernel's nest parent. This program plays the bridge and its
 * guest for a viommu-testdev that is bound to vfio-pci behind a VT-d unit that nests: it
 * makes first-stage tables in memory of its own, has them attached through iommufd-*.c,
 * and lets the device move bytes by addresses that only these tables know.
 *
 *   iommufd-nest PCI-ADDRESS
 *
 * Prints one line for each check, "VIOMMU-L1: nest check=NAME ok=yes|no ..."; exits 0
 * when all were right.
 */
#include "compat.h"
#include <sys/ioctl.h>
#include <sys/mman.h>
#include "iommufd-attach.h"
#include "iommufd-devices.h"
#include "iommufd-queues.h"
#include "iommufd-spaces.h"
#include "iommufd-vdevices.h"

/* The guest: its RAM, and where in it things are. */
#define RAM_BASE 0x40000000ull
#define RAM_SIZE 0x200000ull
#define TABLES 0x0           /* three levels below each root take four pages */
#define TABLES_PASID 0x10000
#define PAGE_A 0x100000
#define PAGE_B 0x101000
#define INPUT 0x123456789000ull
#define MISSING (INPUT + 0x1000)

/*
 * First-stage entries: Present, Read/Write, User/Supervisor, Accessed, Dirty. VT-d
 * specification, 9.9.
 */
#define ENTRY 0x67ull

/* viommu-testdev (docs/testdev.md). */
enum {
    ADDRESS_LO = 0x10,
    ADDRESS_HI = 0x14,
    LENGTH = 0x18,
    OFFSET = 0x1c,
    PASID = 0x20,
    CONTROL = 0x24,
    COMMAND = 0x28,
    STATUS = 0x2c,
    RESULT = 0x30,
    SEED = 0x40,
    ENABLED = 0x58
};
enum { WRITE = 2, FILL = 3 };
enum { BUSY = 1, DONE = 2, FAULT = 3 };
enum { TRANSLATE_AHEAD = 2, ASK_FOR_PAGES = 4 };
#define BYTES 512
#define PASID_USED 5

static int vfio, iommu;
static off_t registers;
static uint8_t *ram;
static bool failed;
static IommufdHost host;
static HostDevice *device;
static struct iommu_hwpt_pgfault last_fault;
static unsigned faults;

static void check(const char *name, bool ok, const char *format, ...)
{
    va_list args;

    printf("VIOMMU-L1: nest check=%s ok=%s ", name, ok ? "yes" : "no");
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    printf("\n");
    fflush(stdout);
    failed |= !ok;
}

static void must(bool ok, const char *what)
{
    if (!ok) {
        check("setup", false, "reason=\"%s: %s\"", what, strerror(errno));
        exit(1);
    }
}

static uint32_t get(uint32_t offset)
{
    uint32_t value = 0;

    must(pread(vfio, &value, 4, registers + offset) == 4, "read of a register");
    return value;
}

static void set(uint32_t offset, uint32_t value)
{
    must(pwrite(vfio, &value, 4, registers + offset) == 4, "write of a register");
}

static void start(uint32_t command, uint64_t address, int32_t pasid, uint32_t control)
{
    set(ADDRESS_LO, address);
    set(ADDRESS_HI, address >> 32);
    set(LENGTH, BYTES);
    set(OFFSET, 0);
    set(PASID, pasid < 0 ? 0 : 0x80000000u | pasid);
    set(CONTROL, control);
    set(COMMAND, command);
}

static uint32_t wait_for_end(void)
{
    unsigned tries;

    for (tries = 0; tries < 30000 && get(STATUS) == BUSY; tries++) {
        viommu_iommufd_host_poll(&host);
        g_usleep(1000);
    }
    return get(STATUS);
}

static uint32_t run(uint32_t command, uint64_t address, int32_t pasid)
{
    start(command, address, pasid, 0);
    return wait_for_end();
}

/*
 * Lets the device write a pattern. True: these bytes are at `offset` of RAM, and were not
 * before.
 */
static bool arrives(uint64_t address, int32_t pasid, uint32_t offset, uint32_t seed)
{
    uint32_t x = seed, i;

    memset(ram + offset, 0, BYTES);
    set(SEED, seed);
    run(FILL, 0, -1);
    if (run(WRITE, address, pasid) != DONE) {
        return false;
    }
    for (i = 0; i < BYTES; i++) {
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        if (ram[offset + i] != (uint8_t)x) {
            return false;
        }
    }
    return true;
}

/* Four levels that lead from INPUT to a page; returns the leaf entries. */
static uint64_t *make_tables(uint32_t root, uint32_t page)
{
    uint64_t *table = NULL;
    unsigned level;

    memset(ram + root, 0, 4 * 0x1000);
    for (level = 0; level < 4; level++) {
        uint64_t next = level < 3 ? RAM_BASE + root + (level + 1) * 0x1000 :
                                    RAM_BASE + page;

        table = (uint64_t *)(ram + root + level * 0x1000);
        table[INPUT >> (39 - 9 * level) & 511] = next | ENTRY;
    }
    return table;
}

static int attach_tables(int32_t pasid, uint32_t root)
{
    struct iommu_hwpt_vtd_s1 tables = { .pgtbl_addr = RAM_BASE + root, .addr_width = 48 };

    return viommu_iommufd_host_attach_nested(&host, device, pasid, 1,
                                             IOMMU_HWPT_DATA_VTD_S1, &tables,
                                             sizeof(tables));
}

static int invalidate(int32_t pasid, uint64_t address, uint32_t *count)
{
    struct iommu_hwpt_vtd_s1_invalidate entry = { .addr = address, .npages = 1 };

    *count = 1;
    return viommu_iommufd_host_invalidate_tables(&host, device, pasid,
                                                 IOMMU_HWPT_INVALIDATE_DATA_VTD_S1,
                                                 &entry, sizeof(entry), count);
}

static void see_request(void *opaque, const HostDevice *from,
                        const struct iommu_hwpt_pgfault *fault)
{
    last_fault = *fault;
    faults++;
}

static void see_event(void *opaque, uint32_t space, const void *record, uint32_t size,
                      bool lost)
{
}

static const HostSink sink = { .page_request = see_request, .event = see_event };

static void open_device(const char *address)
{
    g_autofree char *path = g_strdup_printf("/sys/bus/pci/devices/%s/vfio-dev", address);
    struct vfio_device_bind_iommufd bind = { .argsz = sizeof(bind) };
    struct vfio_region_info region = { .argsz = sizeof(region),
                                       .index = VFIO_PCI_CONFIG_REGION_INDEX };
    uint16_t command = 6; /* memory space, bus master */
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    const char *name = dir ? g_dir_read_name(dir) : NULL;
    g_autofree char *cdev = g_strdup_printf("/dev/vfio/devices/%s", name ?: "none");

    iommu = open("/dev/iommu", O_RDWR);
    must(iommu >= 0, "/dev/iommu");
    vfio = open(cdev, O_RDWR);
    must(vfio >= 0, cdev);
    bind.iommufd = iommu;
    must(ioctl(vfio, VFIO_DEVICE_BIND_IOMMUFD, &bind) == 0, "VFIO_DEVICE_BIND_IOMMUFD");
    must(ioctl(vfio, VFIO_DEVICE_GET_REGION_INFO, &region) == 0, "configuration space");
    must(pwrite(vfio, &command, 2, region.offset + 4) == 2, "command register");
    region.index = VFIO_PCI_BAR0_REGION_INDEX;
    must(ioctl(vfio, VFIO_DEVICE_GET_REGION_INFO, &region) == 0, "BAR 0");
    registers = region.offset;
    viommu_iommufd_host_init(&host, &viommu_iommufd_kernel, iommu, &sink);
    errno = -viommu_iommufd_host_add_device(&host, 1, bind.out_devid, vfio, &device);
    must(!errno, "IOMMU_GET_HW_INFO and what follows");
}

/* Requests without PASID: the parent alone, tables on top of it, their invalidation. */
static void check_tables(void)
{
    uint64_t *leaf = make_tables(TABLES, PAGE_A);
    uint32_t count, status;
    int result;

    result = viommu_iommufd_host_attach(&host, device, IOMMUFD_NO_PASID, 1);
    check("parent", !result && arrives(RAM_BASE + PAGE_A, -1, PAGE_A, 11), "errno=%d",
          -result);
    result = attach_tables(IOMMUFD_NO_PASID, TABLES);
    check("tables", !result && arrives(INPUT, -1, PAGE_A, 12), "errno=%d", -result);
    status = run(WRITE, MISSING, -1);
    check("missing", status == FAULT, "result=0x%x", get(RESULT));
    status = run(WRITE, RAM_BASE + PAGE_A, -1);
    check("no-longer", status == FAULT, "result=0x%x", get(RESULT));
    leaf[INPUT >> 12 & 511] = (RAM_BASE + PAGE_B) | ENTRY;
    check("cached", arrives(INPUT, -1, PAGE_A, 15), "status=%u", get(STATUS));
    result = invalidate(IOMMUFD_NO_PASID, INPUT, &count);
    check("remapped", !result && count == 1 && arrives(INPUT, -1, PAGE_B, 13),
          "errno=%d count=%u", -result, count);
    leaf[INPUT >> 12 & 511] = 0;
    result = invalidate(IOMMUFD_NO_PASID, INPUT, &count);
    check("unmapped", !result && run(WRITE, INPUT, -1) == FAULT, "errno=%d", -result);
    result = attach_tables(IOMMUFD_NO_PASID, 0x7);
    check("bad-table", result == -EINVAL || run(WRITE, INPUT, -1) == FAULT, "errno=%d",
          -result);
    leaf[INPUT >> 12 & 511] = (RAM_BASE + PAGE_A) | ENTRY;
    result = attach_tables(IOMMUFD_NO_PASID, TABLES);
    check("replaced", !result && arrives(INPUT, -1, PAGE_A, 14), "errno=%d", -result);
}

/* A PASID with tables of its own beside them. */
static void check_pasid(void)
{
    uint64_t *leaf = make_tables(TABLES_PASID, PAGE_B);
    uint32_t count, status;
    int result = attach_tables(PASID_USED, TABLES_PASID);

    check("pasid", !result && arrives(INPUT, PASID_USED, PAGE_B, 21),
          "errno=%d enabled=0x%x", -result, get(ENABLED));
    check("beside", arrives(INPUT, -1, PAGE_A, 22), "status=%u", get(STATUS));
    status = run(WRITE, INPUT, PASID_USED + 1);
    check("other-pasid", status == FAULT, "result=0x%x", get(RESULT));
    leaf[INPUT >> 12 & 511] = 0;
    result = invalidate(PASID_USED, INPUT, &count);
    check("pasid-unmapped", !result && run(WRITE, INPUT, PASID_USED) == FAULT, "errno=%d",
          -result);
}

/* A page that is missing is asked for, comes, and the request goes on. */
static void check_page_requests(void)
{
    uint64_t *leaf = (uint64_t *)(ram + TABLES_PASID + 3 * 0x1000);
    uint32_t status;
    unsigned tries;
    int result;

    faults = 0;
    start(WRITE, INPUT, PASID_USED, TRANSLATE_AHEAD | ASK_FOR_PAGES);
    for (tries = 0; tries < 5000 && !faults; tries++) {
        viommu_iommufd_host_poll(&host);
        g_usleep(1000);
    }
    check("page-request",
          faults == 1 && last_fault.addr == INPUT && last_fault.pasid == PASID_USED,
          "faults=%u address=0x%" PRIx64 " pasid=%u perm=%u", faults,
          (uint64_t)last_fault.addr, last_fault.pasid, last_fault.perm);
    leaf[INPUT >> 12 & 511] = (RAM_BASE + PAGE_B) | ENTRY;
    memset(ram + PAGE_B, 0, BYTES);
    result = viommu_iommufd_host_respond(&host, device, PASID_USED, last_fault.grpid, 0);
    status = wait_for_end();
    check("page-response", !result && status == DONE && ram[PAGE_B],
          "errno=%d status=%u result=0x%x", -result, status, get(RESULT));
}

int main(int argc, char **argv)
{
    int result;

    must(argc == 2, "iommufd-nest PCI-ADDRESS");
    open_device(argv[1]);
    check("device", device->abilities & HOST_NEST_PARENT,
          "type=%u abilities=0x%x pasid_bits=%u", device->info.type, device->abilities,
          device->info.max_pasid_log2);
    ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    must(ram != MAP_FAILED, "memory");
    errno = -viommu_iommufd_host_create_space(&host, 1, device, true);
    must(!errno, "a nest parent");
    errno = -viommu_iommufd_host_map(&host, 1, RAM_BASE, ram, RAM_SIZE, 3);
    must(!errno, "IOMMU_IOAS_MAP");
    check_tables();
    if (device->abilities & HOST_PASIDS) {
        check_pasid();
    }
    if (device->abilities & HOST_PASIDS && device->abilities & HOST_FAULT_QUEUE) {
        check_page_requests();
    }
    result = viommu_iommufd_host_detach(&host, device, IOMMUFD_NO_PASID);
    check("detached", !result && run(WRITE, INPUT, -1) == FAULT, "errno=%d", -result);
    viommu_iommufd_host_close(&host);
    close(vfio);
    close(iommu);
    printf("VIOMMU-L1: nest end=%s\n", failed ? "failed" : "well");
    return failed;
}
