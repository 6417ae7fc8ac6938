/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Host mappings of assigned devices (HOST_BATCH): the daemon says what is to be mapped and unmapped, here it becomes
 * events of IOMMU notifiers, and the answer says which of them failed. Everything but `ioctl` runs under the big lock.
 *
 * A notifier returns nothing. What QEMU's VFIO makes of an event is an ioctl of this very thread, and this object is
 * loaded before the C library: its `ioctl` takes a look at the results while an operation is under way, and otherwise
 * only passes calls on. A notifier of our own says what went wrong itself.
 */
#include "compat.h"
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include "backend.h"
#include "front.h"
#include "host.h"
#include "notify.h"
#include "spaces.h"
#include "track.h"
#include "viommu-core.h"
#include "wire.h"

/* Requests that map and unmap, of VFIO containers and of iommufd (uAPI: linux/vfio.h, linux/iommufd.h). */
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

void viommu_host_failed(int error)
{
    if (watch.on && !watch.error) {
        watch.error = error;
    }
}

#ifdef VIOMMU_PRELOAD
static void look(unsigned long request, long result)
{
    if (request == VFIO_MAP || request == IOMMUFD_MAP) {
        /* Who finds a range in use unmaps and tries again: the last result counts. */
        if (!watch.unmap) {
            watch.error = result < 0 ? errno : 0;
        }
    } else if ((request == VFIO_UNMAP || request == IOMMUFD_UNMAP) && watch.unmap && result < 0) {
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

void viommu_host_run(ViommuCore *core, uint32_t device, const WireOperations *operations,
                     viommu_HostBatchReply *reply)
{
    ViommuSpace *space = viommu_space_by_handle(core, device);
    uint32_t i, count = operations->count / HOST_OPERATION_WORDS;
    const uint32_t *words = operations->words;

    reply->failures_count = 0;
    /* A daemon that is gone takes nothing back: what it asked for last may come after everything was unmapped. */
    if (!space || !viommu_core_alive(core)) {
        return;
    }
    for (i = 0; i < count; i++, words += HOST_OPERATION_WORDS) {
        watch = (Watch) { .on = true, .unmap = !words[0] };
        viommu_notify_operation(space, words);
        watch.on = false;
        if (watch.error && reply->failures_count + 2 <= ARRAY_SIZE(reply->failures)) {
            reply->failures[reply->failures_count++] = i;
            reply->failures[reply->failures_count++] = watch.error;
        }
    }
}

bool viommu_host_settle(ViommuCore *core)
{
    viommu_HostSettle msg = viommu_HostSettle_init_zero;
    viommu_HostSettleReply reply = viommu_HostSettleReply_init_zero;

    if (!core->assigned) {
        return true;
    }
    /* Nothing else runs the main loop's part of the work while the big lock is held here. */
    while (viommu_front_request(core, viommu_MessageType_HOST_SETTLE, viommu_HostSettle_fields, &msg, -1,
                                viommu_HostSettleReply_fields, &reply) && !reply.settled) {
        viommu_backend_run_until(core, reply.sent);
        if (!viommu_track_answer(core) && reply.tracking) {
            return false;
        }
    }
    return true;
}

void viommu_host_listen(ViommuSpace *space, uint64_t first, uint64_t last)
{
    ViommuCore *core = space->core;
    viommu_HostListen msg = {
        .first_lo = first,
        .first_hi = first >> 32,
        .last_lo = last,
        .last_hi = last >> 32,
    };

    /* What is under way was meant for others. */
    viommu_host_settle(core);
    qemu_mutex_lock(&core->front.lock);
    if (viommu_space_announce_locked(space)) {
        msg.device = space->handle;
        viommu_front_post_locked(core, viommu_MessageType_HOST_LISTEN, viommu_HostListen_fields, &msg);
    }
    qemu_mutex_unlock(&core->front.lock);
    viommu_host_settle(core);
}
