/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The ground floor: whether the daemon is there, work for the main loop, counters. */
#include "compat.h"
#include "shared-page.h"
#include "spaces.h"
#include "viommu-core.h"
#include "wire.h"

/* The reference keeps the device until the work queued on the main loop has run. */
void viommu_core_schedule(ViommuCore *core, QEMUBHFunc *work)
{
    object_ref(OBJECT(core->dev));
    aio_bh_schedule_oneshot(qemu_get_aio_context(), work, core);
}

static void gone_bh(void *opaque)
{
    ViommuCore *core = opaque;

    core->loss->on_main_loop(core);
    object_unref(OBJECT(core->dev));
}

void viommu_core_gone(ViommuCore *core, const char *format, ...)
{
    g_autofree char *reason = NULL;
    va_list args;

    if (!qatomic_xchg(&core->alive, false)) {
        return;
    }
    va_start(args, format);
    reason = g_strdup_vprintf(format, args);
    va_end(args);
    viommu_wire_shutdown(&core->front.wire);
    viommu_wire_shutdown(&core->backend.wire);
    core->loss->at_once(core);
    if (!core->connected) {
        core->gone_reason = g_steal_pointer(&reason);
        return;
    }
    viommu_core_schedule(core, gone_bh);
    if (!qatomic_read(&core->exiting)) {
        error_report(
            "viommu: %s; from now on devices behind this IOMMU get no DMA through",
            reason);
    }
}

bool viommu_core_is_ended_by(ViommuCore *core, const WireFrame *frame)
{
    viommu_Error error = viommu_Error_init_zero;

    if (frame->type != viommu_MessageType_ERROR) {
        return false;
    }
    if (viommu_wire_decode(frame, viommu_Error_fields, &error)) {
        viommu_core_gone(core, "the daemon ended the session: %s (code %" PRIu32 ")",
                         error.text, error.code);
    } else {
        viommu_core_gone(
            core, "the daemon ended the session with an error that cannot be read");
    }
    return true;
}

/* Adds what a requester has counted since the last time. counters.lock held. */
static void add_counts(ViommuCore *core, ViommuSpace *space)
{
    ViommuCounts *sum = &core->counters.sum;
    const ViommuCounts now = {
        .hits = qatomic_read(&space->counts.hits),
        .misses = qatomic_read(&space->counts.misses),
        .walks = qatomic_read(&space->counts.walks),
    };

    sum->hits += now.hits - space->counted.hits;
    sum->misses += now.misses - space->counted.misses;
    sum->walks += now.walks - space->counted.walks;
    space->counted = now;
}

/* The requesters take turns: a sum over all of them is too much for every miss. */
static void add_counts_of_next(ViommuCore *core)
{
    ViommuCounters *c = &core->counters;

    if (!c->next) {
        c->next = QLIST_FIRST_RCU(&core->spaces);
    }
    if (c->next) {
        add_counts(core, c->next);
        c->next = QLIST_NEXT_RCU(c->next, next);
    }
}

static void show(const ViommuCore *core)
{
    const ViommuCounts *sum = &core->counters.sum;

    qatomic_set(viommu_control(core, viommu_CONTROL_WORD_HITS_LO), (uint32_t)sum->hits);
    qatomic_set(viommu_control(core, viommu_CONTROL_WORD_HITS_HI), sum->hits >> 32);
    qatomic_set(viommu_control(core, viommu_CONTROL_WORD_MISSES_LO),
                (uint32_t)sum->misses);
    qatomic_set(viommu_control(core, viommu_CONTROL_WORD_MISSES_HI), sum->misses >> 32);
    qatomic_set(viommu_control(core, viommu_CONTROL_WORD_PEER_WALKS_LO),
                (uint32_t)sum->walks);
    qatomic_set(viommu_control(core, viommu_CONTROL_WORD_PEER_WALKS_HI),
                sum->walks >> 32);
    qatomic_set(viommu_control(core, viommu_CONTROL_WORD_STALE_FILLS),
                qatomic_read(&core->stale_fills));
    qatomic_set(viommu_control(core, viommu_CONTROL_WORD_INVALIDATED),
                qatomic_read(&core->invalidated));
    qatomic_set(viommu_control(core, viommu_CONTROL_WORD_REFUSED),
                qatomic_read(&core->refused));
}

void viommu_core_publish(ViommuCore *core, ViommuSpace *space)
{
    qemu_mutex_lock(&core->counters.lock);
    add_counts(core, space);
    add_counts_of_next(core);
    show(core);
    qemu_mutex_unlock(&core->counters.lock);
}

void viommu_core_publish_all(ViommuCore *core)
{
    ViommuSpace *space;

    qemu_mutex_lock(&core->counters.lock);
    QLIST_FOREACH_RCU(space, &core->spaces, next) {
        add_counts(core, space);
    }
    show(core);
    qemu_mutex_unlock(&core->counters.lock);
}
