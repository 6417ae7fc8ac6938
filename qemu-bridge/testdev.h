/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * viommu-testdev (docs/testdev.md): what its parts share. testdev.c has the registers,
 * the parts have headers of their own. All of it runs under the big lock.
 */
#ifndef VIOMMU_TESTDEV_H
#define VIOMMU_TESTDEV_H

#include "qemu/bitmap.h"
#include "endpoint.h"
#include "viommu-types.h"

OBJECT_DECLARE_SIMPLE_TYPE(ViommuTestdev, VIOMMU_TESTDEV)

/*
 * 1234 is what QEMU's own educational devices use; no device of QEMU has this number
 * under it.
 */
#define TESTDEV_VENDOR_ID 0x1234
#define TESTDEV_DEVICE_ID 0x10d0
#define TESTDEV_VERSION 2u

#define TESTDEV_BUFFER_SIZE (64 * KiB)
/*
 * A transfer goes in pieces within one page, so that the first address that fails is
 * known.
 */
#define TESTDEV_PIECE 4096u
/* Pages that the largest transfer touches: requests for them are one group. */
#define TESTDEV_MAX_PAGES (TESTDEV_BUFFER_SIZE / TESTDEV_PIECE + 1)
/* Page requests under way that PCI is told the function has room for. */
#define TESTDEV_PAGE_REQUESTS 32u
/* Page Request Group Indices have 9 bits. */
#define TESTDEV_GROUPS 512u

enum TestdevCommand {
    CMD_READ = 1,
    CMD_WRITE = 2,
    CMD_FILL = 3,
    CMD_CHECKSUM = 4,
    CMD_REQUEST_PAGES = 5,
    CMD_STOP_MARKER = 6,
    CMD_CANCEL = 7,
};
enum TestdevStatus {
    STATUS_IDLE = 0,
    STATUS_BUSY = 1,
    STATUS_DONE = 2,
    STATUS_FAULT = 3,
    STATUS_REJECTED = 4
};

/*
 * RESULT. Bits 2:0 are MEMTX_ERROR, MEMTX_DECODE_ERROR (translation refused too) and
 * MEMTX_ACCESS_ERROR of QEMU.
 */
#define RESULT_REFUSED MEMTX_DECODE_ERROR
#define RESULT_UNSUPPORTED_REQUEST 0x10u
#define RESULT_COMPLETER_ABORT 0x20u
#define RESULT_NOT_MAPPED 0x40u
#define RESULT_PAGE_REFUSED 0x80u
#define RESULT_STALL_ABORTED 0x100u
#define RESULT_ENDED 0x200u
#define RESULT_CANCELLED 0x400u

#define FEATURE_PASID 1u
#define FEATURE_ATS 2u
#define FEATURE_PRI 4u
#define FEATURE_STALLS 8u

#define PASID_VALID 0x80000000u
#define PASID_NUMBER 0xfffffu

#define CONTROL_INTERRUPT 1u
#define CONTROL_ATS 2u
#define CONTROL_PRI 4u
#define CONTROL_STALL 8u

/* INTERRUPT. */
#define INTERRUPT_PENDING 1u

/*
 * BEHAVIOUR: how invalidation requests are answered, whether translated requests are held
 * back, and for how many requests "never" holds (0 = all of them).
 */
#define BEHAVIOUR_DROP 3u
#define BEHAVIOUR_DROP_LATER 1u
#define BEHAVIOUR_DROP_NEVER 2u
#define BEHAVIOUR_HOLD 4u
#define BEHAVIOUR_COUNT_SHIFT 16

/* What a busy command waits for. */
typedef enum TestdevWait {
    WAIT_NOTHING = 0,
    WAIT_RESUME = 1,
    WAIT_PAGE = 2,
    WAIT_RELEASE = 3
} TestdevWait;

#define TESTDEV_ATC_ENTRIES 16

typedef struct TestdevAtcEntry {
    bool valid;
    uint32_t pasid_plus_1;
    ViommuTranslation translation;
} TestdevAtcEntry;

/* The device TLB. */
typedef struct TestdevAtc {
    TestdevAtcEntry entry[TESTDEV_ATC_ENTRIES];
    uint32_t victim;
} TestdevAtc;

typedef struct TestdevCounters {
    uint32_t completed;
    uint32_t translation_requests;
    uint32_t atc_hits;
    uint32_t invalidations;
    uint32_t page_requests;
    uint32_t page_responses;
    uint32_t stalls;
} TestdevCounters;

/* The command that is under way, between its pieces. */
typedef struct TestdevTransfer {
    TestdevWait wait;
    uint32_t stall;         /* WAIT_RESUME */
    bool read_zero;         /* the stalled piece ends as if done */
    uint32_t group;         /* WAIT_PAGE */
    uint32_t tries;         /* page requests for this piece */
    ViommuTranslation held; /* WAIT_RELEASE, and from then on until it was used */
    bool released;
} TestdevTransfer;

/*
 * What makes it a device that is assigned from the host (testdev-assigned.c). Big lock.
 */
typedef struct TestdevAssigned {
    bool on;             /* properties */
    uint32_t limit;
    uint32_t fail_every;

    MemoryListener listener;
    QLIST_HEAD(, Listening) listening;
    GTree *mappings;
    uint32_t maps;       /* asked for by notifiers, like unmaps */
    uint32_t unmaps;
    Error *error;        /* of the first notifier that was refused */
} TestdevAssigned;

struct ViommuTestdev {
    PCIDevice parent;
    TestdevAssigned assigned;
    ViommuEndpoint endpoint;
    MemoryRegion registers;
    MemoryRegion buffer;
    QEMUBH *bh;

    /* Properties. */
    bool offer_pasid;
    bool offer_ats;
    bool offer_pri;

    /* Configuration space: 0 = the function has no such capability. */
    uint16_t pri_cap;
    uint16_t pasid_cap;

    /* Registers. */
    uint64_t address;
    uint32_t length;
    uint32_t offset;
    uint32_t pasid;
    uint32_t control;
    uint32_t command;
    uint32_t status;
    uint32_t result;
    uint32_t bytes_done;
    uint64_t fault_address;
    uint32_t seed;
    uint32_t checksum;
    uint32_t interrupt;
    uint32_t behaviour;
    uint32_t page_code;
    uint32_t next_group;
    TestdevCounters counters;

    TestdevTransfer transfer;
    /*
     * Of commands: a DMA can reach this function's own configuration, and end its
     * command.
     */
    uint32_t generation;
    TestdevAtc atc;
    /* Page Request Group Indices that are not answered. */
    DECLARE_BITMAP(groups, TESTDEV_GROUPS);
};

static inline uint32_t viommu_testdev_pasid_plus_1(const ViommuTestdev *d)
{
    return d->pasid & PASID_VALID ? (d->pasid & PASID_NUMBER) + 1 : 0;
}

extern const TypeInfo viommu_testdev_type;

#endif
