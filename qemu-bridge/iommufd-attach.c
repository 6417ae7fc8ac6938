/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What devices go through: spaces, guest tables on top of them; invalidations of those.
 */
#include "compat.h"
#include "iommufd.h"
#include "iommufd-attach.h"
#include "iommufd-objects.h"
#include "iommufd-spaces.h"

HostAttachment *viommu_iommufd_attachment(const IommufdHost *host,
                                          const HostDevice *device, int32_t pasid)
{
    HostAttachment *a;

    QLIST_FOREACH(a, &host->attachments, next) {
        if (a->device == device && a->pasid == pasid) {
            break;
        }
    }
    return a;
}

/* The kernel answers what came through this attachment. */
static void forget_groups(IommufdHost *host, const HostAttachment *a)
{
    HostGroup *group, *after;

    QLIST_FOREACH_SAFE(group, &host->groups, next, after) {
        if (group->through == a) {
            QLIST_REMOVE(group, next);
            g_free(group);
        }
    }
}

void viommu_iommufd_leave(IommufdHost *host, HostAttachment *a)
{
    if (a->nested) {
        viommu_iommufd_destroy(&host->io, a->nested);
    }
    forget_groups(host, a);
    a->nested = 0;
    a->space->users--;
}

static int move(IommufdHost *host, HostDevice *device, int32_t pasid, HostSpace *space,
                uint32_t nested)
{
    HostAttachment *a = viommu_iommufd_attachment(host, device, pasid);
    int result = viommu_iommufd_attach(&host->io, device->fd, pasid,
                                       nested ?: space->hwpt);

    if (result) {
        return result;
    }
    if (a) {
        viommu_iommufd_leave(host, a);
    } else {
        a = g_new0(HostAttachment, 1);
        a->device = device;
        a->pasid = pasid;
        QLIST_INSERT_HEAD(&host->attachments, a, next);
    }
    a->space = space;
    a->nested = nested;
    space->users++;
    return 0;
}

static bool may_attach(const HostDevice *device, int32_t pasid)
{
    return pasid == IOMMUFD_NO_PASID || host_can(device, HOST_PASIDS);
}

int viommu_iommufd_host_attach(IommufdHost *host, HostDevice *device, int32_t pasid,
                               uint32_t number)
{
    HostSpace *space = viommu_iommufd_space(host, number);
    int result;

    if (!space) {
        return -ENOENT;
    }
    if (!may_attach(device, pasid)) {
        return -EOPNOTSUPP;
    }
    result = viommu_iommufd_make_hwpt(host, space, device);
    return result ?: move(host, device, pasid, space, 0);
}

static int attach_tables(IommufdHost *host, HostDevice *device, int32_t pasid,
                         HostSpace *space, IommufdHwpt *what)
{
    uint32_t nested;
    int result = viommu_iommufd_hwpt_alloc(&host->io, what, &nested);

    if (result) {
        return result;
    }
    result = move(host, device, pasid, space, nested);
    if (result) {
        viommu_iommufd_destroy(&host->io, nested);
    }
    return result;
}

int viommu_iommufd_host_attach_nested(IommufdHost *host, HostDevice *device,
                                      int32_t pasid, uint32_t parent, uint32_t type,
                                      const void *data, uint32_t size)
{
    HostSpace *space = viommu_iommufd_space(host, parent);
    IommufdHwpt what = { .dev_id = device->dev_id,
                         .data_type = type,
                         .data = data,
                         .size = size };
    int result;

    if (!space) {
        return -ENOENT;
    }
    if (!space->parent || !may_attach(device, pasid)) {
        return -EOPNOTSUPP;
    }
    what.flags = host_hwpt_flags(device);
    what.pt_id = space->viommu ?: space->hwpt;
    what.fault_id = host_can(device, HOST_FAULT_QUEUE) ? space->faults.id : 0;
    result = attach_tables(host, device, pasid, space, &what);
    if (result && what.fault_id) {
        /*
         * The kernel accepts a fault queue with any tables. Then it refuses to attach a
         * device that cannot ask for pages to them.
         */
        what.fault_id = 0;
        result = attach_tables(host, device, pasid, space, &what);
        if (!result) {
            device->abilities &= ~HOST_FAULT_QUEUE;
        }
    }
    return result;
}

int viommu_iommufd_host_detach(IommufdHost *host, HostDevice *device, int32_t pasid)
{
    HostAttachment *a = viommu_iommufd_attachment(host, device, pasid);
    int result;

    if (!a) {
        return -ENOENT;
    }
    result = viommu_iommufd_detach(&host->io, device->fd, pasid);
    if (result) {
        return result;
    }
    viommu_iommufd_leave(host, a);
    QLIST_REMOVE(a, next);
    g_free(a);
    return 0;
}

int viommu_iommufd_host_invalidate_viommu(IommufdHost *host, uint32_t parent,
                                          uint32_t type, const void *entries,
                                          uint32_t size, uint32_t *count)
{
    HostSpace *space = viommu_iommufd_space(host, parent);

    if (!space || !space->viommu) {
        *count = 0;
        return space ? -EOPNOTSUPP : -ENOENT;
    }
    return viommu_iommufd_hwpt_invalidate(&host->io, space->viommu, type, size, entries,
                                          count);
}

int viommu_iommufd_host_invalidate_tables(IommufdHost *host, const HostDevice *device,
                                          int32_t pasid, uint32_t type,
                                          const void *entries, uint32_t size,
                                          uint32_t *count)
{
    HostAttachment *a = viommu_iommufd_attachment(host, device, pasid);

    if (!a || !a->nested) {
        *count = 0;
        return -ENOENT;
    }
    return viommu_iommufd_hwpt_invalidate(&host->io, a->nested, type, size, entries,
                                          count);
}
