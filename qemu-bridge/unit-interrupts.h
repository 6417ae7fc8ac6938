/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Interrupts of the unit itself (INTERRUPT): queued by the backend thread, raised by the
 * main loop.
 */
#ifndef VIOMMU_UNIT_INTERRUPTS_H
#define VIOMMU_UNIT_INTERRUPTS_H

#include "wire.h"

typedef struct ViommuCore ViommuCore;

#define VIOMMU_INTERRUPT_RING 64

/* A message, or with `wire` (output + 1) an edge on an output of the unit. */
typedef struct ViommuInterrupt {
    uint64_t address;
    uint32_t data;
    uint32_t wire;
} ViommuInterrupt;

typedef struct ViommuUnitInterrupts {
    QemuMutex lock; /* the fields below */
    ViommuInterrupt pending[VIOMMU_INTERRUPT_RING];
    uint32_t count;
    bool scheduled;
} ViommuUnitInterrupts;

void viommu_unit_interrupts_init(ViommuCore *core);
/** Serves an INTERRUPT. Backend thread. */
bool viommu_unit_interrupts_serve(ViommuCore *core, const WireFrame *frame);

#endif
