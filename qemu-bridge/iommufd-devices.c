/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The devices of a host: what can be done with them, and the numbers that the guest knows them by. */
#include "compat.h"
#include "iommufd-objects.h"

static int make_vdevice(IommufdHost *host, HostSpace *space, HostDevice *device)
{
    uint32_t id;
    int result = iommufd_vdevice_alloc(&host->io, space->viommu, device->dev_id, device->virtual_id, &id);

    if (!result) {
        g_hash_table_insert(space->vdevices, device, GUINT_TO_POINTER(id));
    }
    return result;
}

void host_drop_vdevice(IommufdHost *host, HostSpace *space, HostDevice *device)
{
    uint32_t id = GPOINTER_TO_UINT(g_hash_table_lookup(space->vdevices, device));

    if (id) {
        iommufd_destroy(&host->io, id);
        g_hash_table_remove(space->vdevices, device);
    }
}

int host_identify_all(IommufdHost *host, HostSpace *space)
{
    HostDevice *device;
    int result = 0;

    QLIST_FOREACH(device, &host->devices, next) {
        if (!result && space->viommu && device->has_virtual_id) {
            result = make_vdevice(host, space, device);
        }
    }
    return result;
}

static void drop_vdevices(IommufdHost *host, HostDevice *device)
{
    HostSpace *space;

    QLIST_FOREACH(space, &host->spaces, next) {
        host_drop_vdevice(host, space, device);
    }
    device->has_virtual_id = false;
}

int iommufd_host_identify(IommufdHost *host, HostDevice *device, uint64_t virtual_id)
{
    HostDevice *other;
    HostSpace *space;
    int result = 0;

    if (device->has_virtual_id && device->virtual_id == virtual_id) {
        return 0;
    }
    QLIST_FOREACH(other, &host->devices, next) {
        if (other != device && other->has_virtual_id && other->virtual_id == virtual_id) {
            return -EEXIST;
        }
    }
    /* The kernel allows one vDEVICE per device: the earlier number is void, and stays so when the new one is refused. */
    drop_vdevices(host, device);
    device->virtual_id = virtual_id;
    QLIST_FOREACH(space, &host->spaces, next) {
        if (!result && space->viommu) {
            result = make_vdevice(host, space, device);
        }
    }
    if (result) {
        drop_vdevices(host, device);
    }
    device->has_virtual_id = !result;
    return result;
}

void iommufd_host_init(IommufdHost *host, const IommufdCalls *calls, int fd, const HostSink *sink)
{
    *host = (IommufdHost) { .io = { .calls = calls, .fd = fd }, .sink = *sink };
}

/* Makes what nesting needs, on an IOAS of its own, and takes it away again. */
static int try_out(IommufdHost *host, HostDevice *device)
{
    IommufdHwpt parent = { .dev_id = device->dev_id, .flags = IOMMU_HWPT_ALLOC_NEST_PARENT };
    IommufdQueue faults = HOST_NO_QUEUE, events = HOST_NO_QUEUE;
    uint32_t hwpt = 0, viommu = 0;
    int result = iommufd_ioas_alloc(&host->io, &parent.pt_id);

    if (result) {
        return result;
    }
    if (iommufd_hwpt_alloc(&host->io, &parent, &hwpt) == 0) {
        device->abilities |= HOST_NEST_PARENT;
    }
    if (hwpt && host_viommu_type(device) &&
        iommufd_viommu_alloc(&host->io, host_viommu_type(device), device->dev_id, hwpt, &viommu) == 0) {
        device->abilities |= HOST_VIOMMU;
    }
    if (hwpt && iommufd_fault_queue_alloc(&host->io, &faults) == 0) {
        device->abilities |= HOST_FAULT_QUEUE;
    }
    if (viommu && iommufd_veventq_alloc(&host->io, viommu, host_veventq_type(device), HOST_EVENT_QUEUE_DEPTH, &events) == 0) {
        device->abilities |= HOST_VEVENTQ;
    }
    if (device->info.max_pasid_log2 && iommufd_attaches_pasids(&host->io, device->fd)) {
        device->abilities |= HOST_PASIDS;
    }
    iommufd_queue_free(&host->io, &events);
    iommufd_queue_free(&host->io, &faults);
    if (viommu) {
        iommufd_destroy(&host->io, viommu);
    }
    if (hwpt) {
        iommufd_destroy(&host->io, hwpt);
    }
    return iommufd_destroy(&host->io, parent.pt_id);
}

int iommufd_host_add_device(IommufdHost *host, uint32_t number, uint32_t dev_id, int fd, HostDevice **device)
{
    HostDevice *made;
    int result;

    if (iommufd_host_device(host, number)) {
        return -EEXIST;
    }
    made = g_new0(HostDevice, 1);
    made->number = number;
    made->dev_id = dev_id;
    made->fd = fd;
    /* A kernel before 6.6 has no such call: nothing is known of its IOMMU, and nothing but mapping is asked of it. */
    result = iommufd_get_hw_info(&host->io, dev_id, &made->info);
    result = result && result != -EOPNOTSUPP ? result : try_out(host, made);
    if (result) {
        g_free(made);
        return result;
    }
    QLIST_INSERT_HEAD(&host->devices, made, next);
    *device = made;
    return 0;
}

HostDevice *iommufd_host_device(const IommufdHost *host, uint32_t number)
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
            iommufd_detach(&host->io, device->fd, a->pasid);
            host_leave(host, a);
            QLIST_REMOVE(a, next);
            g_free(a);
        }
    }
    drop_vdevices(host, device);
}

void iommufd_host_remove_device(IommufdHost *host, HostDevice *device)
{
    detach_all(host, device);
    QLIST_REMOVE(device, next);
    g_free(device);
}

void iommufd_host_clear(IommufdHost *host)
{
    HostDevice *device;
    HostSpace *space, *following;

    QLIST_FOREACH(device, &host->devices, next) {
        detach_all(host, device);
    }
    QLIST_FOREACH_SAFE(space, &host->spaces, next, following) {
        QLIST_REMOVE(space, next);
        host_drop_space(host, space);
    }
}

void iommufd_host_close(IommufdHost *host)
{
    HostDevice *device, *after;

    iommufd_host_clear(host);
    QLIST_FOREACH_SAFE(device, &host->devices, next, after) {
        iommufd_host_remove_device(host, device);
    }
}
