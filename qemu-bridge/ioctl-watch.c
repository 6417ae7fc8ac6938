/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * An IOMMU notifier returns nothing. What QEMU's VFIO does with an event is an ioctl of
 * the same thread. This object is loaded before the C library, and its `ioctl` looks at
 * the results while an operation is watched; otherwise it only passes calls on. A QEMU
 * tree has no such `ioctl`: there only notifiers of our own report failures.
 */
#include "compat.h"
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include "ioctl-watch.h"

/*
 * Requests that map and unmap, of VFIO containers and of iommufd (linux/vfio.h,
 * linux/iommufd.h).
 */
#define REQUEST(number) ((unsigned long)_IO(';', number))
#define VFIO_MAP REQUEST(100 + 13)
#define VFIO_UNMAP REQUEST(100 + 14)
#define IOMMUFD_MAP REQUEST(0x85)
#define IOMMUFD_UNMAP REQUEST(0x86)

/* What happens in this thread while an operation is under way. */
typedef struct Watch {
    bool on;
    bool unmap;
    int error;
} Watch;

#ifdef VIOMMU_PRELOAD
/* There from the start, so that looking costs one load. */
static __thread Watch watch __attribute__((tls_model("initial-exec")));
#else
static __thread Watch watch;
#endif

void viommu_ioctl_watch_begin(bool unmap)
{
    watch = (Watch) { .on = true, .unmap = unmap };
}

int viommu_ioctl_watch_end(void)
{
    watch.on = false;
    return watch.error;
}

void viommu_ioctl_watch_fail(int error)
{
    if (watch.on && !watch.error) {
        watch.error = error;
    }
}

#ifdef VIOMMU_PRELOAD
static void look(unsigned long request, long result)
{
    if (request == VFIO_MAP || request == IOMMUFD_MAP) {
        /* VFIO unmaps a range that is in use, and tries again: the last result counts. */
        if (!watch.unmap) {
            watch.error = result < 0 ? errno : 0;
        }
    } else if ((request == VFIO_UNMAP || request == IOMMUFD_UNMAP) && watch.unmap &&
               result < 0) {
        watch.error = errno;
    }
}

__attribute__((visibility("default"))) int ioctl(int fd, unsigned long request, ...)
{
    va_list args;
    void *argument;
    long result;

    va_start(args, request);
    argument = va_arg(args, void *);
    va_end(args);
    result = syscall(SYS_ioctl, fd, request, argument);
    if (unlikely(watch.on)) {
        look(request, result);
    }
    return result;
}
#endif
