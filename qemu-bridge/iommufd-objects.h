/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * For iommufd-*.c: what spaces, attachments and groups of page requests of a host are
 * made of.
 */
#ifndef VIOMMU_IOMMUFD_OBJECTS_H
#define VIOMMU_IOMMUFD_OBJECTS_H

#include "iommufd-host.h"

struct HostSpace {
    uint32_t number;
    uint32_t ioas;
    uint32_t hwpt;          /* made when it is first needed; 0: not yet */
    bool parent;
    uint32_t viommu;        /* 0: this host has none */
    IommufdQueue faults;
    IommufdQueue events;
    GHashTable *vdevices;   /* HostDevice → object */
    uint32_t users;         /* attachments */
    QLIST_ENTRY(HostSpace) next;
};

struct HostAttachment {
    HostDevice *device;
    int32_t pasid;
    HostSpace *space;
    uint32_t nested;        /* HWPT of guest tables; 0: the space itself */
    QLIST_ENTRY(HostAttachment) next;
};

/* A group of page requests that waits for its answer. */
struct HostGroup {
    const HostDevice *device;
    int32_t pasid;
    uint32_t group;
    uint32_t cookie;        /* the kernel's name of it */
    const HostAttachment *through;
    QLIST_ENTRY(HostGroup) next;
};

#define HOST_NO_QUEUE ((IommufdQueue) { .fd = -1 })
/* Events that a vEVENTQ holds. */
#define HOST_EVENT_QUEUE_DEPTH 256

static inline bool host_can(const HostDevice *device, HostAbility ability)
{
    return device->abilities & ability;
}

/* An IOMMU's kind of virtual IOMMU, and of its event queue; 0: it has none. */
static inline uint32_t host_viommu_type(const HostDevice *device)
{
    return device->info.type == IOMMU_HW_INFO_TYPE_ARM_SMMUV3 ?
               IOMMU_VIOMMU_TYPE_ARM_SMMUV3 :
               0;
}

static inline uint32_t host_veventq_type(const HostDevice *device)
{
    return device->info.type == IOMMU_HW_INFO_TYPE_ARM_SMMUV3 ?
               IOMMU_VEVENTQ_TYPE_ARM_SMMUV3 :
               0;
}

/*
 * A device with PASIDs needs every HWPT made for them, also that of requests without
 * PASID.
 */
static inline uint32_t host_hwpt_flags(const HostDevice *device)
{
    return host_can(device, HOST_PASIDS) ? IOMMU_HWPT_ALLOC_PASID : 0;
}

#endif
