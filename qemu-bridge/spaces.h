/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The address space of a requester, and what the daemon knows of it. */
#ifndef VIOMMU_SPACES_H
#define VIOMMU_SPACES_H

#include "counts.h"
#include "iotlb.h"
#include "walk.h"
#include "wire.h"

typedef struct ViommuCore ViommuCore;

#define TYPE_VIOMMU_IOMMU_MEMORY_REGION "viommu-iommu-memory-region"

/* The void: a page that is never written, and a page that is never read. */
#define VOID_ZEROS 0
#define VOID_SINK VIOMMU_PAGE_SIZE
#define VOID_SIZE (2 * VIOMMU_PAGE_SIZE)

/* One requester: PCI bus and devfn (the bus's number may change), or a PASID of it. */
typedef struct ViommuSpace {
    IOMMUMemoryRegion iommu;
    MemoryRegion root;
    MemoryRegion interrupts;
    AddressSpace as;
    ViommuCore *core;

    Iotlb tlb;
    /* For peer walks. NULL: every miss is asked for. RCU, tlb.lock to change. */
    WalkTables *tables;
    /*
     * Where the bus keeps its number: a hit notices a change with one load. NULL: fixed.
     */
    const uint8_t *bus_number;
    uint16_t rid;          /* as last told to the daemon; front.lock to change */
    uint32_t pasid_plus_1; /* 0 = requests without PASID */
    uint32_t handle;       /* 0 = the daemon has not been told; front.lock */

    PCIBus *bus;           /* NULL once the bus is gone */
    uint8_t devfn;
    IOMMUNotifierFlag notifier_flags; /* big lock */
    struct HostDevice *host_device;   /* of VFIO by iommufd, or NULL; big lock */

    /*
     * Any thread counts, without a lock: for reports, where a lost increment does not
     * matter.
     */
    ViommuCounts counts;
    ViommuCounts counted; /* what of it is in core->counters; counters.lock */
    QLIST_ENTRY(ViommuSpace) next;
} ViommuSpace;

/* The bus's number as QEMU's PCI code reads it for buses behind a bridge. */
static inline bool viommu_space_rid_is_current(const ViommuSpace *space)
{
    const uint8_t *number = qatomic_read(&space->bus_number);

    return !number || *number == space->rid >> 8;
}

/** The requester id of now. */
uint16_t viommu_space_rid(const ViommuSpace *space);
/** Tells the daemon of the requester, or that its id changed. front.lock held. */
bool viommu_space_announce_locked(ViommuSpace *space);
/** What peer walks use from now on; NULL: none. tlb.lock held. */
void viommu_space_replace_tables_locked(ViommuSpace *space, WalkTables *tables);
ViommuSpace *viommu_space_by_handle(ViommuCore *core, uint32_t handle);

/** Announces changed requester ids of those with notifiers. front.lock held. */
void viommu_spaces_refresh_locked(ViommuCore *core);
/** Serves a PEER_WALK. Backend thread. */
bool viommu_spaces_serve_tables(ViommuCore *core, const WireFrame *frame);
/** No peer walks until tables are told again. */
void viommu_spaces_drop_tables(ViommuCore *core);
/** Drops what the scope matches in one requester's cache, or everyone's (IOTLB_ANY). */
void viommu_spaces_invalidate(ViommuCore *core, const IotlbScope *scope, uint32_t rid,
                              uint32_t pasid_plus_1);
void viommu_spaces_flush(ViommuCore *core);

#endif
