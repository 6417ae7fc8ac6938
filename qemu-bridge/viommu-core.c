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
        error_report("viommu: %s; from now on devices behind this IOMMU get no DMA through",
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
        viommu_core_gone(core, "the daemon ended the session: %s (code %" PRIu32 ")", error.text,
                         error.code);
    } else {
        viommu_core_gone(core, "the daemon ended the session with an error that cannot be read");
    }
    return true;
}

void viommu_core_publish(ViommuCore *core)
{
    uint64_t hits = 0, misses = 0, walks = 0;
    ViommuSpace *space;

    QLIST_FOREACH_RCU(space, &core->spaces, next) {
        hits += qatomic_read(&space->hits);
        misses += qatomic_read(&space->misses);
        walks += qatomic_read(&space->walks);
    }
    qatomic_set(viommu_control(core, viommu_CONTROL_WORD_HITS_LO), (uint32_t)hits);
    qatomic_set(viommu_control(core, viommu_CONTROL_WORD_HITS_HI), hits >> 32);
    qatomic_set(viommu_control(core, viommu_CONTROL_WORD_MISSES_LO), (uint32_t)misses);
    qatomic_set(viommu_control(core, viommu_CONTROL_WORD_MISSES_HI), misses >> 32);
    qatomic_set(viommu_control(core, viommu_CONTROL_WORD_PEER_WALKS_LO), (uint32_t)walks);
    qatomic_set(viommu_control(core, viommu_CONTROL_WORD_PEER_WALKS_HI), walks >> 32);
    qatomic_set(viommu_control(core, viommu_CONTROL_WORD_STALE_FILLS), qatomic_read(&core->stale_fills));
    qatomic_set(viommu_control(core, viommu_CONTROL_WORD_INVALIDATED), qatomic_read(&core->invalidated));
    qatomic_set(viommu_control(core, viommu_CONTROL_WORD_REFUSED), qatomic_read(&core->refused));
}
