/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the daemon asks of a host's IOMMU (src/host/port.ts), as objects of one iommufd: address spaces (an IOAS with its
 * HWPT), nest parents with vIOMMU and queues, HWPTs of guest tables, vDEVICEs. Each object is destroyed after those that
 * need it. Functions return 0 or a negative errno; one that fails has changed nothing, unless it says otherwise.
 *
 * One thread at a time. Descriptors are their owner's: of /dev/iommu and of the devices.
 */
#ifndef VIOMMU_IOMMUFD_HOST_H
#define VIOMMU_IOMMUFD_HOST_H

#include "qemu/queue.h"
#include "iommufd.h"

/* What a device's IOMMU and this kernel can do together, found out by trying. */
typedef enum HostAbility {
    HOST_NEST_PARENT = 1 << 0, /* HWPTs that guest tables stand on (Linux 6.7) */
    HOST_VIOMMU = 1 << 1,      /* vIOMMU and vDEVICE (6.13) */
    HOST_FAULT_QUEUE = 1 << 2, /* page requests come up (6.11) */
    HOST_VEVENTQ = 1 << 3,     /* events come up (6.15) */
    HOST_PASIDS = 1 << 4,      /* PASIDs are attached one by one (6.15) */
} HostAbility;

typedef struct HostSpace HostSpace;
typedef struct HostAttachment HostAttachment;
typedef struct HostGroup HostGroup;

typedef struct HostDevice {
    uint32_t number;   /* the caller's */
    uint32_t dev_id;   /* iommufd's */
    int fd;            /* VFIO's */
    uint32_t abilities;
    IommufdHwInfo info;
    bool has_virtual_id;
    uint64_t virtual_id;
    QLIST_ENTRY(HostDevice) next;
} HostDevice;

/* What comes up. */
typedef struct HostSink {
    void (*page_request)(void *opaque, const HostDevice *device, const struct iommu_hwpt_pgfault *fault);
    /* An event record of the IOMMU's own form; `lost`: others were lost before the next one. */
    void (*event)(void *opaque, uint32_t space, const void *record, uint32_t size, bool lost);
    void *opaque;
} HostSink;

typedef struct IommufdHost {
    Iommufd io;
    HostSink sink;
    QLIST_HEAD(, HostDevice) devices;
    QLIST_HEAD(, HostSpace) spaces;
    QLIST_HEAD(, HostAttachment) attachments;
    QLIST_HEAD(, HostGroup) groups;
} IommufdHost;

void iommufd_host_init(IommufdHost *host, const IommufdCalls *calls, int fd, const HostSink *sink);
/** Detaches everything and destroys every object; devices stay. */
void iommufd_host_clear(IommufdHost *host);
/** The same, and lets go of the devices. */
void iommufd_host_close(IommufdHost *host);

/** A device that is bound to this iommufd; tries out what can be done with it. */
int iommufd_host_add_device(IommufdHost *host, uint32_t number, uint32_t dev_id, int fd, HostDevice **device);
/** Before its descriptor is closed. */
void iommufd_host_remove_device(IommufdHost *host, HostDevice *device);
HostDevice *iommufd_host_device(const IommufdHost *host, uint32_t number);

/** `parent`: guest tables will be on top of it. -EEXIST: there is one of this number. */
int iommufd_host_create_space(IommufdHost *host, uint32_t space, HostDevice *device, bool parent);
/** -EBUSY: something is attached to it. */
int iommufd_host_destroy_space(IommufdHost *host, uint32_t space);
int iommufd_host_map(IommufdHost *host, uint32_t space, uint64_t iova, const void *memory, uint64_t size,
                     uint32_t rights);
int iommufd_host_unmap(IommufdHost *host, uint32_t space, uint64_t iova, uint64_t size);

/** `pasid`: IOMMUFD_NO_PASID for requests without. Replaces what was attached there. */
int iommufd_host_attach(IommufdHost *host, HostDevice *device, int32_t pasid, uint32_t space);
/** Guest tables, described as IOMMU_HWPT_ALLOC takes them. */
int iommufd_host_attach_nested(IommufdHost *host, HostDevice *device, int32_t pasid, uint32_t parent, uint32_t type,
                               const void *data, uint32_t size);
int iommufd_host_detach(IommufdHost *host, HostDevice *device, int32_t pasid);
/** The number that the guest knows a device by; every vIOMMU is told, those to come as well. */
int iommufd_host_identify(IommufdHost *host, HostDevice *device, uint64_t virtual_id);

/** Invalidations of a vIOMMU, `size` bytes each; `count` becomes how many were carried out. */
int iommufd_host_invalidate_viommu(IommufdHost *host, uint32_t parent, uint32_t type, const void *entries,
                                   uint32_t size, uint32_t *count);
/** Invalidations of the guest tables that a device or PASID goes through. */
int iommufd_host_invalidate_tables(IommufdHost *host, const HostDevice *device, int32_t pasid, uint32_t type,
                                   const void *entries, uint32_t size, uint32_t *count);

/** Descriptors that become readable when something comes up; returns how many were filled in. */
uint32_t iommufd_host_descriptors(const IommufdHost *host, int *fds, uint32_t most);
/** Hands everything that waits to the sink. */
int iommufd_host_poll(IommufdHost *host);
/** Answers a group of page requests; `code` as PCI Express numbers it. -ENOENT: no such group waits. */
int iommufd_host_respond(IommufdHost *host, const HostDevice *device, int32_t pasid, uint32_t group, uint32_t code);

#endif
