/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Interrupts of devices: remapped from what is kept, or asked for (REMAP_INTERRUPT). */
#ifndef VIOMMU_INTERRUPTS_H
#define VIOMMU_INTERRUPTS_H

#include "interrupt-cache.h"
#include "wire.h"

typedef struct ViommuCore ViommuCore;
typedef struct ViommuSpace ViommuSpace;

/* What the machine does with messages; the device hands it in. Big lock. */
typedef struct ViommuInterruptOps {
    /* Gives a message to the processors. */
    void (*deliver)(const ViommuMessage *message);
    /*
     * Remapped interrupts have changed: whatever has copied any of this block of entries
     * asks again (viommu_interrupts_look). From INTERRUPT_ALL on that is everything.
     */
    void (*changed)(ViommuCore *core, uint32_t index, uint32_t log2_count);
} ViommuInterruptOps;

typedef struct ViommuInterrupts {
    const ViommuInterruptOps *ops; /* NULL: the unit has no interrupt range */
    bool remapped;                 /* by the daemon; otherwise they pass as they are */
    uint16_t ioapic;               /* source-id of the machine's IOxAPIC */
    InterruptCache cache;
    uint64_t hits;                 /* big lock, as are all counts here */
    uint32_t asked;
    uint32_t blocked;
    MemoryRegion ioapic_root;
    MemoryRegion ioapic_range;
    AddressSpace ioapic_as;
} ViommuInterrupts;

void viommu_interrupts_init(ViommuCore *core);
/**
 * Delivers a message of a requester, or of the IOxAPIC (`space` NULL), as the guest's
 * table says. False: it is blocked, or the daemon is gone. Big lock.
 */
bool viommu_interrupts_send(ViommuCore *core, ViommuSpace *space, ViommuMessage message);
/**
 * What would become of a message: no fault is recorded. False: it would be blocked. Big
 * lock.
 */
bool viommu_interrupts_look(ViommuCore *core, uint16_t source, ViommuMessage *message);
/** Serves an INVALIDATE_INTERRUPTS. Backend thread. */
bool viommu_interrupts_serve(ViommuCore *core, const WireFrame *frame);
/** Drops all that is kept, and lets copies be renewed. Big lock. */
void viommu_interrupts_reset(ViommuCore *core);
/** Copies the counters to the control page. */
void viommu_interrupts_publish(ViommuCore *core);

#endif
