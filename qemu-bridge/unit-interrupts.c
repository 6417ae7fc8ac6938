/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "compat.h"
#include "interrupts.h"
#include "unit-interrupts.h"
#include "viommu-core.h"
#include "wire.h"

void viommu_unit_interrupts_init(ViommuCore *core)
{
    qemu_mutex_init(&core->unit_interrupts.lock);
}

/*
 * Of a unit with an interrupt range these are for the processors, with 32 bits of
 * destination: they are never remapped.
 */
static void raise_message(ViommuCore *core, const ViommuInterrupt *interrupt)
{
    if (core->msi_size &&
        (uint32_t)interrupt->address - core->msi_base < core->msi_size) {
        const ViommuMessage message = { interrupt->address, interrupt->data };

        core->interrupts.ops->deliver(&message);
    } else {
        address_space_stl_le(&address_space_memory, interrupt->address, interrupt->data,
                             MEMTXATTRS_UNSPECIFIED, NULL);
    }
}

static void interrupts_bh(void *opaque)
{
    ViommuCore *core = opaque;
    ViommuUnitInterrupts *u = &core->unit_interrupts;
    ViommuInterrupt pending[VIOMMU_INTERRUPT_RING];
    uint32_t count, i;

    qemu_mutex_lock(&u->lock);
    count = u->count;
    memcpy(pending, u->pending, count * sizeof(ViommuInterrupt));
    u->count = 0;
    u->scheduled = false;
    qemu_mutex_unlock(&u->lock);

    for (i = 0; i < count; i++) {
        if (pending[i].wire) {
            qemu_irq_pulse(core->wires[pending[i].wire - 1]);
        } else {
            raise_message(core, &pending[i]);
        }
    }
    object_unref(OBJECT(core->dev));
}

/* Messages and wires are edges: the same one twice before it was raised is one. */
static bool is_pending(const ViommuUnitInterrupts *u, const ViommuInterrupt *interrupt)
{
    uint32_t i;

    for (i = 0; i < u->count; i++) {
        if (u->pending[i].address == interrupt->address &&
            u->pending[i].data == interrupt->data &&
            u->pending[i].wire == interrupt->wire) {
            return true;
        }
    }
    return false;
}

/* Whether the main loop has to be told. */
static bool add(ViommuUnitInterrupts *u, const ViommuInterrupt *interrupt)
{
    bool wake = false;

    qemu_mutex_lock(&u->lock);
    if (!is_pending(u, interrupt)) {
        if (u->count < VIOMMU_INTERRUPT_RING) {
            u->pending[u->count++] = *interrupt;
            wake = !u->scheduled;
            u->scheduled = true;
        } else {
            warn_report_once(
                "viommu: too many different interrupts at once, one is lost");
        }
    }
    qemu_mutex_unlock(&u->lock);
    return wake;
}

bool viommu_unit_interrupts_serve(ViommuCore *core, const WireFrame *frame)
{
    viommu_Interrupt msg = viommu_Interrupt_init_zero;
    ViommuInterrupt interrupt;

    if (!viommu_wire_decode(frame, viommu_Interrupt_fields, &msg)) {
        return false;
    }
    if (msg.wire > core->wire_count) {
        viommu_core_gone(core,
                         "backend channel: an interrupt on output %" PRIu32
                         ", of which this unit has %" PRIu32,
                         msg.wire - 1, core->wire_count);
        return true;
    }
    interrupt = (ViommuInterrupt) {
        .address = msg.wire ? 0 : viommu_u64(msg.address_lo, msg.address_hi),
        .data = msg.wire ? 0 : msg.data,
        .wire = msg.wire,
    };
    if (add(&core->unit_interrupts, &interrupt)) {
        viommu_core_schedule(core, interrupts_bh);
    }
    return true;
}
