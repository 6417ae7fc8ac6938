/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Devices that QEMU's VFIO has by iommufd become an IommufdHost on the descriptors that
 * QEMU holds. The log says what can be done with them. The daemon is told too
 * (HOST_DEVICE), and decides what their requests go through. What comes up from the
 * host's queues goes to the daemon.
 */
#include "compat.h"
#include <poll.h>
#include "qemu/range.h"
#include "system/host_iommu_device.h"
#include "front.h"
#include "host-devices.h"
#include "iommufd.h"
#include "iommufd-devices.h"
#include "iommufd-queues.h"
#include "notify.h"
#include "settle.h"
#include "spaces.h"
#include "viommu-core.h"
#include "wire.h"

/* HostDevice.abilities are the bits of HostAbility. */
QEMU_BUILD_BUG_ON(HOST_NEST_PARENT != 1 || HOST_VIOMMU != 2 || HOST_FAULT_QUEUE != 4 ||
                  HOST_VEVENTQ != 8 || HOST_PASIDS != 16);

#define MAX_PASID_BITS 20
/* Words of a range of input addresses: first lo, hi, last lo, hi. */
#define RANGE_WORDS 4
/* Most that waits for the main loop: more is refused, or told as lost. */
#define MOST_TOLD 4096
/* Queues that the backend thread listens to. */
#define MOST_QUEUES 32

/* PCI Express, Page Request Group Response Message. */
#define PCIE_RESPONSE_FAILURE 15

/* Values of HostDeviceReply.choice. */
static const char *const choices[] = { "cannot be used", "reaches guest memory as it is",
                                       "is shadowed", "is nested" };
#define CHOICE_SHADOW 2

/*
 * What came up from the host, on its way to the main loop and from there to the daemon.
 */
typedef struct HostTold {
    uint32_t type; /* viommu_MessageType: HOST_PAGE_REQUEST or HOST_EVENT */
    union {
        viommu_HostPageRequest page_request;
        viommu_HostEvent event;
    };
} HostTold;

/* NULL: too much waits already. host_lock held. */
static HostTold *new_told(ViommuCore *core, uint32_t type)
{
    const HostTold told = { .type = type };

    if (core->host_told->len == MOST_TOLD) {
        return NULL;
    }
    g_array_append_val(core->host_told, told);
    return &g_array_index(core->host_told, HostTold, core->host_told->len - 1);
}

static void page_request(void *opaque, const HostDevice *device,
                         const struct iommu_hwpt_pgfault *fault)
{
    ViommuCore *core = opaque;
    bool has_pasid = fault->flags & IOMMU_PGFAULT_FLAGS_PASID_VALID;
    HostTold *told = new_told(core, viommu_MessageType_HOST_PAGE_REQUEST);

    if (told) {
        told->page_request = (viommu_HostPageRequest) {
            .device = device->number,
            .pasid = has_pasid ? fault->pasid + 1 : 0,
            .access = fault->perm,
            .lo = fault->addr,
            .hi = fault->addr >> 32,
            .group = fault->grpid,
            .last = fault->flags & IOMMU_PGFAULT_FLAGS_LAST_PAGE,
        };
    } else if (fault->flags & IOMMU_PGFAULT_FLAGS_LAST_PAGE) {
        viommu_iommufd_host_respond(core->host, device,
                                    has_pasid ? (int32_t)fault->pasid : IOMMUFD_NO_PASID,
                                    fault->grpid, PCIE_RESPONSE_FAILURE);
    }
}

static void event(void *opaque, uint32_t space, const void *record, uint32_t size,
                  bool lost)
{
    ViommuCore *core = opaque;
    HostTold *told = new_told(core, viommu_MessageType_HOST_EVENT);

    if (!told) {
        g_array_index(core->host_told, HostTold, MOST_TOLD - 1).event.lost |=
            g_array_index(core->host_told, HostTold, MOST_TOLD - 1).type ==
            viommu_MessageType_HOST_EVENT;
        return;
    }
    told->event = (viommu_HostEvent){ .space = space,
                                      .type = IOMMU_VEVENTQ_TYPE_ARM_SMMUV3,
                                      .lost = lost };
    told->event.record.size = MIN(size, sizeof(told->event.record.bytes));
    memcpy(told->event.record.bytes, record, told->event.record.size);
}

/*
 * On the main loop, because the backend thread must not take the lock of the front
 * channel.
 */
static void tell_bh(void *opaque)
{
    ViommuCore *core = opaque;
    g_autoptr(GArray) told = NULL;
    guint i;

    qemu_mutex_lock(&core->host_lock);
    told = core->host_told;
    core->host_told = g_array_new(false, false, sizeof(HostTold));
    qemu_mutex_unlock(&core->host_lock);
    for (i = 0; i < told->len; i++) {
        const HostTold *one = &g_array_index(told, HostTold, i);

        if (one->type == viommu_MessageType_HOST_EVENT) {
            viommu_front_post(core, one->type, viommu_HostEvent_fields, &one->event);
        } else {
            viommu_front_post(core, one->type, viommu_HostPageRequest_fields,
                              &one->page_request);
        }
    }
    object_unref(OBJECT(core->dev));
}

void viommu_hosts_wait(ViommuCore *core)
{
    struct pollfd fds[MOST_QUEUES + 1];
    int queues[MOST_QUEUES];
    uint32_t i, count = 0;
    bool first = false;
    int result = 0;

    if (viommu_wire_has_more(&core->backend.wire)) {
        return;
    }
    qemu_mutex_lock(&core->host_lock);
    if (core->host && !core->host_deaf) {
        count = viommu_iommufd_host_descriptors(core->host, queues, MOST_QUEUES);
    }
    qemu_mutex_unlock(&core->host_lock);
    if (!count) {
        return;
    }
    fds[0] = (struct pollfd) { .fd = core->backend.wire.fd, .events = POLLIN };
    for (i = 0; i < count; i++) {
        fds[i + 1] = (struct pollfd) { .fd = queues[i], .events = POLLIN };
    }
    if (poll(fds, count + 1, -1) <= 0 || fds[0].revents) {
        return;
    }
    qemu_mutex_lock(&core->host_lock);
    if (core->host) {
        first = core->host_told->len == 0;
        result = viommu_iommufd_host_poll(core->host);
        /* A queue that cannot be read stays readable: this thread would spin. */
        core->host_deaf = result < 0;
        first = first && core->host_told->len > 0;
    }
    qemu_mutex_unlock(&core->host_lock);
    if (first) {
        viommu_core_schedule(core, tell_bh);
    }
    if (result < 0) {
        warn_report(
            "viommu: the host's queues of faults and page requests cannot be read any "
            "more: %s",
            strerror(-result));
    }
}

static const char *kind_of(uint32_t type)
{
    switch (type) {
    case IOMMU_HW_INFO_TYPE_INTEL_VTD:
        return "VT-d";
    case IOMMU_HW_INFO_TYPE_ARM_SMMUV3:
        return "SMMUv3";
    default:
        return "an IOMMU of which the kernel says nothing";
    }
}

/* In the planner's terms (docs/assignment.md). */
static void describe(const char *name, const HostDevice *device)
{
    g_autofree char *pasids = device->abilities & HOST_PASIDS ?
                                  g_strdup_printf(", PASIDs of %" PRIu32 " bits",
                                                  device->info.max_pasid_log2) :
                                  g_strdup("");

    info_report("viommu: %s by iommufd, behind %s: %s%s%s", name,
                kind_of(device->info.type),
                device->abilities & HOST_NEST_PARENT ? "can nest" : "cannot nest", pasids,
                device->abilities & HOST_FAULT_QUEUE ? ", page requests" : "");
}

static void add_ranges(viommu_HostDevice *msg, HostIOMMUDevice *hiod)
{
    HostIOMMUDeviceClass *class = HOST_IOMMU_DEVICE_GET_CLASS(hiod);
    GList *list = class->get_iova_ranges ? class->get_iova_ranges(hiod) : NULL, *at;

    for (at = list; at && msg->ranges_count + RANGE_WORDS <= ARRAY_SIZE(msg->ranges);
         at = at->next) {
        Range *range = at->data;
        uint64_t first = ROUND_UP(range_lob(range), VIOMMU_PAGE_SIZE);
        uint64_t last = ROUND_DOWN(range_upb(range) + 1, VIOMMU_PAGE_SIZE) - 1;
        uint32_t *words = msg->ranges + msg->ranges_count;

        if (first > last) {
            continue;
        }
        words[0] = first;
        words[1] = first >> 32;
        words[2] = last;
        words[3] = last >> 32;
        msg->ranges_count += RANGE_WORDS;
    }
    g_list_free_full(list, g_free);
}

/*
 * Tells the daemon of the device, and logs its choice. False with errp set: there is no
 * way to assign the device.
 */
static bool announce(ViommuSpace *space, HostIOMMUDevice *hiod, const char *name,
                     Error **errp)
{
    ViommuCore *core = space->core;
    const HostDevice *device = space->host_device;
    g_autofree viommu_HostDevice *msg = g_new0(viommu_HostDevice, 1);
    g_autofree viommu_HostDeviceReply *reply = g_new0(viommu_HostDeviceReply, 1);

    msg->device = device->number;
    msg->abilities = device->abilities;
    msg->info_type = device->info.type;
    msg->info.size = MIN(device->info.size, sizeof(msg->info.bytes));
    memcpy(msg->info.bytes, device->info.data, msg->info.size);
    msg->pasid_bits = MIN(device->info.max_pasid_log2, MAX_PASID_BITS);
    msg->batches = space->notifier_flags & IOMMU_NOTIFIER_MAP;
    add_ranges(msg, hiod);
    if (!viommu_front_request(core, viommu_MessageType_HOST_DEVICE,
                              viommu_HostDevice_fields, msg, -1,
                              viommu_HostDeviceReply_fields, reply)) {
        error_setg(errp, "viommu: %s: the daemon is gone", name);
        return false;
    }
    if (reply->code) {
        error_setg(errp, "viommu: %s: %s", name, reply->text);
        return false;
    }
    if (reply->choice < ARRAY_SIZE(choices)) {
        info_report("viommu: %s %s: %s", name, choices[reply->choice], reply->text);
    }
    if (reply->choice != CHOICE_SHADOW || !msg->batches) {
        /*
         * Its requests no longer go through what QEMU has attached: nothing stays mapped
         * there.
         */
        viommu_settle(core);
        viommu_notify_unmap(space);
    }
    return true;
}

static IommufdHost *host_of(ViommuCore *core, int fd)
{
    const HostSink sink = { .page_request = page_request,
                            .event = event,
                            .opaque = core };

    if (!core->host) {
        core->host = g_new(IommufdHost, 1);
        viommu_iommufd_host_init(core->host, &viommu_iommufd_kernel, fd, &sink);
    }
    return core->host->io.fd == fd ? core->host : NULL;
}

/* Errors are negative errnos; -EXDEV: by another iommufd than the first device. */
static int add_device(ViommuSpace *space, const VFIODevice *vfio)
{
    ViommuCore *core = space->core;
    IommufdHost *host;
    int result;

    qemu_mutex_lock(&core->host_lock);
    host = host_of(core, vfio->iommufd->fd);
    result = host ? viommu_iommufd_host_add_device(host, space->handle, vfio->devid,
                                                   vfio->fd, &space->host_device) :
                    -EXDEV;
    qemu_mutex_unlock(&core->host_lock);
    return result;
}

bool viommu_hosts_add(ViommuSpace *space, HostIOMMUDevice *hiod, Error **errp)
{
    ViommuCore *core = space->core;
    const VFIODevice *vfio = hiod->agent;
    bool told;
    int result;

    /* A container offers nothing but mapping. */
    if (!object_dynamic_cast(OBJECT(hiod), TYPE_HOST_IOMMU_DEVICE_IOMMUFD)) {
        return true;
    }
    qemu_mutex_lock(&core->front.lock);
    told = viommu_space_announce_locked(space);
    qemu_mutex_unlock(&core->front.lock);
    if (!told) {
        error_setg(errp, "viommu: %s: the daemon is gone", vfio->name);
        return false;
    }
    result = add_device(space, vfio);
    if (result == -EXDEV) {
        warn_report(
            "viommu: %s is by another iommufd than the first device: it can only be "
            "mapped for",
            vfio->name);
        return true;
    }
    if (result) {
        error_setg_errno(errp, -result, "viommu: %s: iommufd says nothing of it",
                         vfio->name);
        return false;
    }
    describe(vfio->name, space->host_device);
    if (!viommu_core_has(core, viommu_Feature_FEATURE_NESTING) ||
        space->host_device->info.type == IOMMU_HW_INFO_TYPE_NONE) {
        return true;
    }
    if (!announce(space, hiod, vfio->name, errp)) {
        viommu_hosts_remove(space);
        return false;
    }
    return true;
}

void viommu_hosts_remove(ViommuSpace *space)
{
    ViommuCore *core = space->core;

    if (space->host_device) {
        qemu_mutex_lock(&core->host_lock);
        viommu_iommufd_host_remove_device(core->host, space->host_device);
        qemu_mutex_unlock(&core->host_lock);
        space->host_device = NULL;
    }
}

void viommu_hosts_end(ViommuCore *core)
{
    qemu_mutex_lock(&core->host_lock);
    if (core->host) {
        viommu_iommufd_host_clear(core->host);
    }
    qemu_mutex_unlock(&core->host_lock);
}

void viommu_hosts_init(ViommuCore *core)
{
    qemu_mutex_init(&core->host_lock);
    core->host_told = g_array_new(false, false, sizeof(HostTold));
}

void viommu_hosts_close(ViommuCore *core)
{
    qemu_mutex_lock(&core->host_lock);
    if (core->host) {
        viommu_iommufd_host_close(core->host);
    }
    g_clear_pointer(&core->host, g_free);
    g_array_set_size(core->host_told, 0);
    qemu_mutex_unlock(&core->host_lock);
}
