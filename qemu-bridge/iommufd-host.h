/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the daemon asks of a host's IOMMU (src/host/port.ts), as objects of one iommufd:
 * address spaces (an IOAS with its HWPT), nest parents with vIOMMU and queues, HWPTs of
 * guest tables, vDEVICEs. Each object is destroyed after those that need it. The
 * functions are in iommufd-spaces.h, -attach.h, -devices.h, -vdevices.h and -queues.h.
 *
 * They return 0 or a negative errno; one that fails has changed nothing, unless it says
 * otherwise. One thread at a time. The descriptors of /dev/iommu and of the devices
 * belong to the caller.
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
    void (*page_request)(void *opaque, const HostDevice *device,
                         const struct iommu_hwpt_pgfault *fault);
    /*
     * An event record of the IOMMU's own form; `lost`: others were lost before the next
     * one.
     */
    void (*event)(void *opaque, uint32_t space, const void *record, uint32_t size,
                  bool lost);
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

#endif
