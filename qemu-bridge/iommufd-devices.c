/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The devices of a host, and what can be done with them. */
#include "compat.h"
#include "iommufd.h"
#include "iommufd-attach.h"
#include "iommufd-devices.h"
#include "iommufd-objects.h"
#include "iommufd-spaces.h"
#include "iommufd-vdevices.h"

void viommu_iommufd_host_init(IommufdHost *host, const IommufdCalls *calls, int fd,
                              const HostSink *sink)
{
    *host = (IommufdHost) { .io = { .calls = calls, .fd = fd }, .sink = *sink };
}

/* Makes what nesting needs, on an IOAS of its own, and takes it away again. */
static int try_out(IommufdHost *host, HostDevice *device)
{
    IommufdHwpt parent = { .dev_id = device->dev_id,
                           .flags = IOMMU_HWPT_ALLOC_NEST_PARENT };
    IommufdQueue faults = HOST_NO_QUEUE, events = HOST_NO_QUEUE;
    uint32_t hwpt = 0, viommu = 0;
    int result = viommu_iommufd_ioas_alloc(&host->io, &parent.pt_id);

    if (result) {
        return result;
    }
    if (viommu_iommufd_hwpt_alloc(&host->io, &parent, &hwpt) == 0) {
        device->abilities |= HOST_NEST_PARENT;
    }
    if (hwpt && host_viommu_type(device) &&
        viommu_iommufd_viommu_alloc(&host->io, host_viommu_type(device), device->dev_id,
                                    hwpt, &viommu) == 0) {
        device->abilities |= HOST_VIOMMU;
    }
    if (hwpt && viommu_iommufd_fault_queue_alloc(&host->io, &faults) == 0) {
        device->abilities |= HOST_FAULT_QUEUE;
    }
    if (viommu &&
        viommu_iommufd_veventq_alloc(&host->io, viommu, host_veventq_type(device),
                                     HOST_EVENT_QUEUE_DEPTH, &events) == 0) {
        device->abilities |= HOST_VEVENTQ;
    }
    if (device->info.max_pasid_log2 &&
        viommu_iommufd_attaches_pasids(&host->io, device->fd)) {
        device->abilities |= HOST_PASIDS;
    }
    viommu_iommufd_queue_free(&host->io, &events);
    viommu_iommufd_queue_free(&host->io, &faults);
    if (viommu) {
        viommu_iommufd_destroy(&host->io, viommu);
    }
    if (hwpt) {
        viommu_iommufd_destroy(&host->io, hwpt);
    }
    return viommu_iommufd_destroy(&host->io, parent.pt_id);
}

int viommu_iommufd_host_add_device(IommufdHost *host, uint32_t number, uint32_t dev_id,
                                   int fd, HostDevice **device)
{
    HostDevice *made;
    int result;

    if (viommu_iommufd_host_device(host, number)) {
        return -EEXIST;
    }
    made = g_new0(HostDevice, 1);
    made->number = number;
    made->dev_id = dev_id;
    made->fd = fd;
    /*
     * A kernel before 6.6 has no such call: nothing is known of its IOMMU, and only
     * mapping is asked of it.
     */
    result = viommu_iommufd_get_hw_info(&host->io, dev_id, &made->info);
    result = result && result != -EOPNOTSUPP ? result : try_out(host, made);
    if (result) {
        g_free(made);
        return result;
    }
    QLIST_INSERT_HEAD(&host->devices, made, next);
    *device = made;
    return 0;
}

HostDevice *viommu_iommufd_host_device(const IommufdHost *host, uint32_t number)
{
    HostDevice *device;

    QLIST_FOREACH(device, &host->devices, next) {
        if (device->number == number) {
            break;
        }
    }
    return device;
}

static void detach_all(IommufdHost *host, HostDevice *device)
{
    HostAttachment *a, *after;

    QLIST_FOREACH_SAFE(a, &host->attachments, next, after) {
        if (a->device == device) {
            viommu_iommufd_detach(&host->io, device->fd, a->pasid);
            viommu_iommufd_leave(host, a);
            QLIST_REMOVE(a, next);
            g_free(a);
        }
    }
    viommu_iommufd_drop_vdevices(host, device);
}

void viommu_iommufd_host_remove_device(IommufdHost *host, HostDevice *device)
{
    detach_all(host, device);
    QLIST_REMOVE(device, next);
    g_free(device);
}

void viommu_iommufd_host_clear(IommufdHost *host)
{
    HostDevice *device;
    HostSpace *space, *following;

    QLIST_FOREACH(device, &host->devices, next) {
        detach_all(host, device);
    }
    QLIST_FOREACH_SAFE(space, &host->spaces, next, following) {
        QLIST_REMOVE(space, next);
        viommu_iommufd_drop_space(host, space);
    }
}

void viommu_iommufd_host_close(IommufdHost *host)
{
    HostDevice *device, *after;

    viommu_iommufd_host_clear(host);
    QLIST_FOREACH_SAFE(device, &host->devices, next, after) {
        viommu_iommufd_host_remove_device(host, device);
    }
}
