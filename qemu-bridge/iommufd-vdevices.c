/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The numbers that the guest knows devices by: one vDEVICE for each device and vIOMMU. */
#include "compat.h"
#include "iommufd.h"
#include "iommufd-objects.h"
#include "iommufd-vdevices.h"

static int make_vdevice(IommufdHost *host, HostSpace *space, HostDevice *device)
{
    uint32_t id;
    int result = viommu_iommufd_vdevice_alloc(&host->io, space->viommu, device->dev_id,
                                              device->virtual_id, &id);

    if (!result) {
        g_hash_table_insert(space->vdevices, device, GUINT_TO_POINTER(id));
    }
    return result;
}

void viommu_iommufd_drop_vdevice(IommufdHost *host, HostSpace *space, HostDevice *device)
{
    uint32_t id = GPOINTER_TO_UINT(g_hash_table_lookup(space->vdevices, device));

    if (id) {
        viommu_iommufd_destroy(&host->io, id);
        g_hash_table_remove(space->vdevices, device);
    }
}

int viommu_iommufd_identify_all(IommufdHost *host, HostSpace *space)
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

void viommu_iommufd_drop_vdevices(IommufdHost *host, HostDevice *device)
{
    HostSpace *space;

    QLIST_FOREACH(space, &host->spaces, next) {
        viommu_iommufd_drop_vdevice(host, space, device);
    }
    device->has_virtual_id = false;
}

int viommu_iommufd_host_identify(IommufdHost *host, HostDevice *device,
                                 uint64_t virtual_id)
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
    /*
     * The kernel allows one vDEVICE per device. So the earlier number is void, also when
     * the new one is refused.
     */
    viommu_iommufd_drop_vdevices(host, device);
    device->virtual_id = virtual_id;
    QLIST_FOREACH(space, &host->spaces, next) {
        if (!result && space->viommu) {
            result = make_vdevice(host, space, device);
        }
    }
    if (result) {
        viommu_iommufd_drop_vdevices(host, device);
    }
    device->has_virtual_id = !result;
    return result;
}
