/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The address spaces of requesters (spaces.c), and translation and interrupts in one of them (translate.c, interrupts.c). */
#ifndef VIOMMU_SPACES_H
#define VIOMMU_SPACES_H

#include "endpoint.h"
#include "iotlb.h"
#include "walk.h"
#include "wire.h"

typedef struct ViommuCore ViommuCore;

#define TYPE_VIOMMU_IOMMU_MEMORY_REGION "viommu-iommu-memory-region"

/* The void: a page that nobody writes, and a page that nobody reads. */
#define VOID_ZEROS 0
#define VOID_SINK VIOMMU_PAGE_SIZE
#define VOID_SIZE (2 * VIOMMU_PAGE_SIZE)

/* The address space of one requester: PCI bus and devfn (the bus's number may change), or a PASID of it. */
struct ViommuSpace {
    IOMMUMemoryRegion iommu;
    MemoryRegion root;
    MemoryRegion interrupts;
    AddressSpace as;
    ViommuCore *core;

    Iotlb tlb;
    WalkTables *tables;    /* NULL = every translation is asked for; RCU, tlb.lock to change */
    /* Where the bus keeps its number, so that a hit notices a change with one load. NULL = fixed. */
    const uint8_t *bus_number;
    uint16_t rid;          /* as last told to the daemon; front.lock to change */
    uint32_t pasid_plus_1; /* 0 = requests without PASID */
    uint32_t handle;       /* 0 = the daemon has not been told; front.lock */

    PCIBus *bus;           /* NULL once the bus is gone */
    uint8_t devfn;
    IOMMUNotifierFlag notifier_flags; /* big lock */
    struct HostDevice *host_device;   /* of VFIO by iommufd, or NULL; big lock */

    /* Written by whichever thread, read for reports: a lost increment is not worth a locked one. */
    uint64_t hits;
    uint64_t misses;
    uint64_t walks;
    QLIST_ENTRY(ViommuSpace) next;
};

/* A translation request's answer, on the stack of the thread that asked. */
typedef struct ViommuAnswer {
    viommu_TranslateReply reply;
    uint32_t own; /* newest of ViommuCore.own when it was asked for */
    WireSpans spans;
} ViommuAnswer;

/* The bus's number as QEMU's PCI code reads it for buses behind a bridge. */
static inline bool viommu_space_rid_is_current(const ViommuSpace *space)
{
    const uint8_t *number = qatomic_read(&space->bus_number);

    return !number || *number == space->rid >> 8;
}

/* spaces.c */

/** The requester id of now. */
uint16_t viommu_space_rid(const ViommuSpace *space);
/** The address space of a requester, made at the first call. Big lock. */
ViommuSpace *viommu_space_get(ViommuCore *core, PCIBus *bus, int devfn);
/** Tells the daemon of the requester, or that its id changed. front.lock held. */
bool viommu_space_announce_locked(ViommuSpace *space);
/** Looks for changed requester ids among those with notifiers, before a register write. front.lock held. */
void viommu_spaces_refresh_locked(ViommuCore *core);
/** Takes tables that the requester's misses may walk. False: impossible values. Backend thread. */
bool viommu_spaces_take_tables(ViommuCore *core, const viommu_Tables *msg);
/** From now on every translation is asked for, until tables are told again. */
void viommu_spaces_drop_tables(ViommuCore *core);
/** Drops what the scope matches in one requester's (rid not IOTLB_ANY) or everyone's cache. */
void viommu_spaces_invalidate(ViommuCore *core, const IotlbScope *scope, uint32_t rid, uint32_t pasid_plus_1);
void viommu_spaces_flush(ViommuCore *core);
ViommuSpace *viommu_space_by_handle(ViommuCore *core, uint32_t handle);
bool viommu_spaces_start(ViommuCore *core, Error **errp);
void viommu_spaces_stop(ViommuCore *core);

/* translate.c */

/** Asks the daemon for a translation. False: it is gone. `rid` is what the request was asked with. */
bool viommu_space_ask(ViommuSpace *space, const ViommuRequest *request, ViommuAnswer *answer, uint16_t *rid);
/** Whether an answer is about this address, and lets all of `access` through. */
bool viommu_answer_allows(const ViommuAnswer *answer, uint64_t address, uint32_t access);

/* interrupts.c */

/** Lays over a requester's address space what its unit takes for interrupts (msi_size 0: nothing). Big lock. */
void viommu_interrupts_cover(ViommuSpace *space, const char *name);

#endif
