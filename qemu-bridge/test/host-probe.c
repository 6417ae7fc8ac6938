/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * For tests: plays VFIO with a device that is here by iommufd, inside a QEMU. It is
 * loaded before the bridge, so that system calls on the stand-in's descriptors reach the
 * stand-in for the kernel (iommufd-kernel.c). When the machine is complete, the first
 * viommu-testdev is told to the IOMMU as such a device. What the kernel is asked for is
 * written to standard error, a line each. VIOMMU_PROBE=fault has a page request come up
 * once guest tables are attached; =cut a piece of one.
 */
#include "compat.h"
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include "qemu/module.h"
#include "system/host_iommu_device.h"
#include "iommufd-kernel.h"
#include "viommu-types.h"

/* CAP_REG: 48-bit addresses; ECAP_REG: SMTS, FSTS, SSTS, NEST, PRS. */
#define CAP (47ull << 16 | 4ull << 8)
#define ECAP (1ull << 43 | 1ull << 47 | 1ull << 46 | 1ull << 26 | 1ull << 29)

static const FakeRelease today = {
    .name = "today",
    .hw_info = true,
    .nesting = true,
    .invalidate = true,
    .faults = true,
    .viommu = true,
    .events = true,
};

static const char *const names[] = { "nothing", "ioas",    "parent", "hwpt",  "tables",
                                     "viommu",  "vdevice", "faults", "events" };

static IOMMUFDBackend backend = { .fd = FAKE_IOMMUFD };
static VFIOContainerBase container;
static VFIODevice vfio = { .name = (char *)"fake",
                           .devid = FAKE_DEV_ID,
                           .fd = FAKE_DEVICE,
                           .iommufd = &backend };

static bool asks_for_page, cuts_short;
static int fault_fd;

static bool is_fake(int fd)
{
    return fake.release &&
           (fd == FAKE_IOMMUFD || (fd >= FAKE_DEVICE && fd < FAKE_DEVICE + FAKE_DEVICES));
}

static bool is_queue(int fd)
{
    return fake.release && fd >= FAKE_QUEUE;
}

/* A real descriptor behind a queue's, for poll. */
static void open_queue(int fd)
{
    int made = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

    dup2(made, fd);
    syscall(SYS_close, made);
}

/* One page, of a group of its own, that the device has found missing. */
static void page_request(void)
{
    const struct iommu_hwpt_pgfault fault = {
        .flags = IOMMU_PGFAULT_FLAGS_LAST_PAGE,
        .dev_id = FAKE_DEV_ID,
        .grpid = 5,
        .perm = IOMMU_PGFAULT_PERM_READ,
        .addr = 0x40000000,
        .cookie = 77,
    };
    const uint64_t one = 1;

    memcpy(fake.pending, &fault, sizeof(fault));
    fake.pending_size = sizeof(fault);
    fake.cut = cuts_short;
    syscall(SYS_write, fault_fd, &one, sizeof(one));
}

static void say(const char *what, int result)
{
    fprintf(stderr, "kernel: %s%s%s; device through %s, %u pages mapped\n", what,
            result ? " failed: " : "", result ? strerror(errno) : "",
            names[fake_attached(0, -1)], fake.mapped);
}

static void tell(unsigned long request, const void *argument, int result)
{
    const struct iommu_hwpt_invalidate *invalidation = argument;
    g_autofree char *text = NULL;

    switch (request) {
    case VFIO_DEVICE_ATTACH_IOMMUFD_PT:
        say("attach", result);
        break;
    case VFIO_DEVICE_DETACH_IOMMUFD_PT:
        say("detach", result);
        break;
    case IOMMU_IOAS_MAP:
        say("map", result);
        break;
    case IOMMU_IOAS_UNMAP:
        say("unmap", result);
        break;
    case IOMMU_HWPT_INVALIDATE:
        text = g_strdup_printf("invalidate %u", invalidation->entry_num);
        say(text, result);
        break;
    }
}

static int kernel(int fd, unsigned long request, void *argument)
{
    struct iommu_hw_info *info = argument;
    int error, result = fake_calls.ioctl(fd, request, argument);

    error = errno;
    if (request == IOMMU_GET_HW_INFO && !result) {
        struct iommu_hw_info_vtd vtd = { .cap_reg = CAP, .ecap_reg = ECAP };

        memcpy((void *)(uintptr_t)info->data_uptr, &vtd, sizeof(vtd));
    } else if (request == IOMMU_FAULT_QUEUE_ALLOC && !result) {
        open_queue(((struct iommu_fault_alloc *)argument)->out_fault_fd);
        fault_fd = ((struct iommu_fault_alloc *)argument)->out_fault_fd;
    } else if (request == VFIO_DEVICE_ATTACH_IOMMUFD_PT && !result &&
               fake_attached(0, -1) == FAKE_NESTED && asks_for_page) {
        asks_for_page = false;
        page_request();
    }
    errno = error;
    tell(request, argument, result);
    errno = error;
    return result;
}

__attribute__((visibility("default"))) int ioctl(int fd, unsigned long request, ...)
{
    va_list args;
    void *argument;

    va_start(args, request);
    argument = va_arg(args, void *);
    va_end(args);
    return is_fake(fd) ? kernel(fd, request, argument) :
                         syscall(SYS_ioctl, fd, request, argument);
}

__attribute__((visibility("default"))) ssize_t read(int fd, void *data, size_t size)
{
    uint64_t count;

    if (!is_queue(fd)) {
        return syscall(SYS_read, fd, data, size);
    }
    syscall(SYS_read, fd, &count, sizeof(count));
    return fake_calls.read(fd, data, size);
}

__attribute__((visibility("default"))) ssize_t write(int fd, const void *data,
                                                     size_t size)
{
    ssize_t result;

    if (!is_queue(fd)) {
        return syscall(SYS_write, fd, data, size);
    }
    result = fake_calls.write(fd, data, size);
    fprintf(stderr, "kernel: page response %u for %u\n", fake.last_code,
            fake.last_cookie);
    return result;
}

__attribute__((visibility("default"))) int close(int fd)
{
    if (is_queue(fd)) {
        fake_calls.close(fd);
    }
    return syscall(SYS_close, fd);
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
    HostIOMMUDevice *hiod = HOST_IOMMU_DEVICE(
        object_new(TYPE_HOST_IOMMU_DEVICE_IOMMUFD "-vfio"));
    Object *device = NULL;
    Error *error = NULL;

    object_child_foreach_recursive(object_get_root(), find_device, &device);
    fake_reset(&today, IOMMU_HW_INFO_TYPE_INTEL_VTD);
    fake.max_pasid_log2 = 0;
    vfio.bcontainer = &container;
    hiod->agent = &vfio;
    if (!pci_device_set_iommu_device(PCI_DEVICE(device), hiod, &error)) {
        fprintf(stderr, "kernel: refused: %s\n", error_get_pretty(error));
        error_free(error);
    }
}

static void gone(Notifier *unused, void *data)
{
    fprintf(stderr, "kernel: end, %u attachments, %u objects, %u queues\n",
            fake_attachments(), fake_objects(), fake_open_queues());
}

static Notifier machine_done = { .notify = probe };
static Notifier exiting = { .notify = gone };

static void add_notifiers(void)
{
    qemu_add_machine_init_done_notifier(&machine_done);
    qemu_add_exit_notifier(&exiting);
}

static void __attribute__((constructor)) load_probe(void)
{
    const struct rlimit many = { .rlim_cur = 2 * FAKE_QUEUE, .rlim_max = 2 * FAKE_QUEUE };

    if (getenv("VIOMMU_PROBE")) {
        cuts_short = !g_strcmp0(getenv("VIOMMU_PROBE"), "cut");
        asks_for_page = cuts_short || !g_strcmp0(getenv("VIOMMU_PROBE"), "fault");
        setrlimit(RLIMIT_NOFILE, &many);
        register_module_init(add_notifiers, MODULE_INIT_QOM);
    }
}
