/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Address spaces of a host: an IOAS with its HWPT, and what a nest parent has besides. */
#include "compat.h"
#include "iommufd.h"
#include "iommufd-objects.h"
#include "iommufd-spaces.h"
#include "iommufd-vdevices.h"

HostSpace *viommu_iommufd_space(const IommufdHost *host, uint32_t number)
{
    HostSpace *space;

    QLIST_FOREACH(space, &host->spaces, next) {
        if (space->number == number) {
            break;
        }
    }
    return space;
}

int viommu_iommufd_make_hwpt(IommufdHost *host, HostSpace *space,
                             const HostDevice *device)
{
    const IommufdHwpt what = {
        .dev_id = device->dev_id,
        .pt_id = space->ioas,
        .flags = host_hwpt_flags(device) |
                 (space->parent ? IOMMU_HWPT_ALLOC_NEST_PARENT : 0),
    };

    return space->hwpt ? 0 : viommu_iommufd_hwpt_alloc(&host->io, &what, &space->hwpt);
}

static int make_parent(IommufdHost *host, HostSpace *space, HostDevice *device)
{
    int result = viommu_iommufd_make_hwpt(host, space, device);

    if (!result && host_can(device, HOST_VIOMMU)) {
        result = viommu_iommufd_viommu_alloc(&host->io, host_viommu_type(device),
                                             device->dev_id, space->hwpt, &space->viommu);
    }
    if (!result && host_can(device, HOST_FAULT_QUEUE)) {
        result = viommu_iommufd_fault_queue_alloc(&host->io, &space->faults);
    }
    if (!result && host_can(device, HOST_VEVENTQ)) {
        result = viommu_iommufd_veventq_alloc(&host->io, space->viommu,
                                              host_veventq_type(device),
                                              HOST_EVENT_QUEUE_DEPTH, &space->events);
    }
    return result ?: viommu_iommufd_identify_all(host, space);
}

/* Each object goes before those that it needs. */
void viommu_iommufd_drop_space(IommufdHost *host, HostSpace *space)
{
    HostDevice *device;

    QLIST_FOREACH(device, &host->devices, next) {
        viommu_iommufd_drop_vdevice(host, space, device);
    }
    viommu_iommufd_queue_free(&host->io, &space->events);
    if (space->viommu) {
        viommu_iommufd_destroy(&host->io, space->viommu);
    }
    viommu_iommufd_queue_free(&host->io, &space->faults);
    if (space->hwpt) {
        viommu_iommufd_destroy(&host->io, space->hwpt);
    }
    viommu_iommufd_destroy(&host->io, space->ioas);
    g_hash_table_destroy(space->vdevices);
    g_free(space);
}

int viommu_iommufd_host_create_space(IommufdHost *host, uint32_t number,
                                     HostDevice *device, bool parent)
{
    HostSpace *space;
    uint32_t ioas;
    int result;

    if (viommu_iommufd_space(host, number)) {
        return -EEXIST;
    }
    if (parent && !host_can(device, HOST_NEST_PARENT)) {
        return -EOPNOTSUPP;
    }
    result = viommu_iommufd_ioas_alloc(&host->io, &ioas);
    if (result) {
        return result;
    }
    space = g_new0(HostSpace, 1);
    *space = (HostSpace) {
        .number = number,
        .ioas = ioas,
        .parent = parent,
        .faults = HOST_NO_QUEUE,
        .events = HOST_NO_QUEUE,
        .vdevices = g_hash_table_new(NULL, NULL),
    };
    result = parent ? make_parent(host, space, device) : 0;
    if (result) {
        viommu_iommufd_drop_space(host, space);
        return result;
    }
    QLIST_INSERT_HEAD(&host->spaces, space, next);
    return 0;
}

int viommu_iommufd_host_destroy_space(IommufdHost *host, uint32_t number)
{
    HostSpace *space = viommu_iommufd_space(host, number);

    if (!space) {
        return -ENOENT;
    }
    if (space->users) {
        return -EBUSY;
    }
    QLIST_REMOVE(space, next);
    viommu_iommufd_drop_space(host, space);
    return 0;
}

int viommu_iommufd_host_map(IommufdHost *host, uint32_t number, uint64_t iova,
                            const void *memory, uint64_t size, uint32_t rights)
{
    HostSpace *space = viommu_iommufd_space(host, number);

    return space ? viommu_iommufd_ioas_map(&host->io, space->ioas, iova, memory, size,
                                           rights) :
                   -ENOENT;
}

int viommu_iommufd_host_unmap(IommufdHost *host, uint32_t number, uint64_t iova,
                              uint64_t size)
{
    HostSpace *space = viommu_iommufd_space(host, number);
    uint64_t unmapped;

    return space ?
               viommu_iommufd_ioas_unmap(&host->io, space->ioas, iova, size, &unmapped) :
               -ENOENT;
}
