/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the daemon asks that needs the big lock, on its way from the backend thread to the main loop: messages for
 * notifiers and tracked pages (notices), done in their order, and interrupts. Who holds the big lock and has to wait
 * for notices runs them himself.
 */
#include "compat.h"
#include "hw/irq.h"
#include "backend.h"
#include "host.h"
#include "iotlb.h"
#include "notify.h"
#include "spaces.h"
#include "track.h"
#include "viommu-core.h"
#include "wire.h"

/* A message that needs the big lock, on its way to the main loop. */
typedef struct ViommuNotice {
    uint32_t type; /* viommu_MessageType: INVALIDATE (notifiers must hear of it), HOST_BATCH or TRACK */
    WireOperations *operations; /* of a HOST_BATCH, pages of a TRACK */
    uint32_t id;
    IotlbScope scope;
    uint32_t count;
    uint32_t *devices;
    QSIMPLEQ_ENTRY(ViommuNotice) next;
} ViommuNotice;

static void run_host_batch(ViommuCore *core, ViommuNotice *notice)
{
    g_autofree viommu_HostBatchReply *reply = g_new(viommu_HostBatchReply, 1);

    viommu_host_run(core, notice->devices[0], notice->operations, reply);
    viommu_backend_reply(core, viommu_MessageType_HOST_BATCH, notice->id, viommu_HostBatchReply_fields, reply);
}

/* A daemon that is gone takes nothing back: what it asked for last may come after no store is trapped any more. */
static void run_track(ViommuCore *core, ViommuNotice *notice)
{
    if (!viommu_core_alive(core)) {
        return;
    }
    viommu_track_run(core, notice->id, notice->operations->words, notice->operations->count);
}

static void run_invalidation(ViommuCore *core, ViommuNotice *notice)
{
    uint32_t i;

    for (i = 0; i < notice->count; i++) {
        ViommuSpace *space = viommu_space_by_handle(core, notice->devices[i]);

        if (space && !qatomic_read(&core->resetting)) {
            viommu_notify_invalidate(space, &notice->scope);
        }
    }
    viommu_backend_reply(core, viommu_MessageType_INVALIDATE, notice->id, NULL, NULL);
}

static void run_notice(ViommuCore *core, ViommuNotice *notice)
{
    switch (notice->type) {
    case viommu_MessageType_HOST_BATCH:
        run_host_batch(core, notice);
        break;
    case viommu_MessageType_TRACK:
        run_track(core, notice);
        break;
    default:
        run_invalidation(core, notice);
    }
    qatomic_inc(&core->backend.notices_done);
    g_free(notice->operations);
    g_free(notice->devices);
    g_free(notice);
}

static ViommuNotice *take_notice(ViommuBackend *b)
{
    ViommuNotice *notice;

    qemu_mutex_lock(&b->queue_lock);
    notice = QSIMPLEQ_FIRST(&b->notices);
    if (notice) {
        QSIMPLEQ_REMOVE_HEAD(&b->notices, next);
    } else {
        b->notices_scheduled = false;
    }
    qemu_mutex_unlock(&b->queue_lock);
    return notice;
}

void viommu_backend_run_notices(ViommuCore *core)
{
    ViommuNotice *notice;

    while ((notice = take_notice(&core->backend))) {
        run_notice(core, notice);
    }
}

void viommu_backend_run_until(ViommuCore *core, uint32_t count)
{
    ViommuBackend *b = &core->backend;

    while (viommu_core_alive(core) && (int32_t)(count - qatomic_read(&b->notices_done)) > 0) {
        ViommuNotice *notice = take_notice(b);

        if (notice) {
            run_notice(core, notice);
            continue;
        }
        qemu_mutex_lock(&b->queue_lock);
        if (QSIMPLEQ_EMPTY(&b->notices)) {
            qemu_cond_timedwait(&b->queue_cond, &b->queue_lock, 100);
        }
        qemu_mutex_unlock(&b->queue_lock);
    }
}

static void notices_bh(void *opaque)
{
    ViommuCore *core = opaque;

    viommu_backend_run_notices(core);
    object_unref(OBJECT(core->dev));
}

static void queue_notice(ViommuCore *core, ViommuNotice *notice)
{
    ViommuBackend *b = &core->backend;
    bool wake;

    qemu_mutex_lock(&b->queue_lock);
    QSIMPLEQ_INSERT_TAIL(&b->notices, notice, next);
    wake = !b->notices_scheduled;
    b->notices_scheduled = true;
    qemu_cond_signal(&b->queue_cond);
    qemu_mutex_unlock(&b->queue_lock);
    if (wake) {
        viommu_core_schedule(core, notices_bh);
    }
}

void viommu_backend_queue_invalidation(ViommuCore *core, uint32_t id, const IotlbScope *scope,
                                       const viommu_Invalidate *msg)
{
    ViommuNotice *notice = g_new0(ViommuNotice, 1);

    notice->type = viommu_MessageType_INVALIDATE;
    notice->id = id;
    notice->scope = *scope;
    notice->count = msg->devices_count;
    notice->devices = g_memdup2(msg->devices, msg->devices_count * sizeof(uint32_t));
    queue_notice(core, notice);
}

bool viommu_backend_queue_host_batch(ViommuCore *core, const WireFrame *frame)
{
    viommu_HostBatch msg = viommu_HostBatch_init_zero;
    g_autofree WireOperations *operations = g_new(WireOperations, 1);
    ViommuNotice *notice;

    wire_operations_init(&msg.ops, operations);
    if (!wire_decode(frame, viommu_HostBatch_fields, &msg) || operations->count % HOST_OPERATION_WORDS) {
        return false;
    }
    notice = g_new0(ViommuNotice, 1);
    notice->type = viommu_MessageType_HOST_BATCH;
    notice->id = frame->id;
    notice->count = 1;
    notice->devices = g_memdup2(&msg.device, sizeof(uint32_t));
    notice->operations = g_steal_pointer(&operations);
    queue_notice(core, notice);
    return true;
}

bool viommu_backend_queue_track(ViommuCore *core, const WireFrame *frame)
{
    viommu_Track msg = viommu_Track_init_zero;
    g_autofree WireOperations *pages = g_new(WireOperations, 1);
    ViommuNotice *notice;

    wire_operations_init(&msg.pages, pages);
    if (!wire_decode(frame, viommu_Track_fields, &msg) || pages->count % TRACK_WORDS) {
        return false;
    }
    notice = g_new0(ViommuNotice, 1);
    notice->type = viommu_MessageType_TRACK;
    notice->id = frame->id;
    notice->operations = g_steal_pointer(&pages);
    queue_notice(core, notice);
    return true;
}

static void interrupts_bh(void *opaque)
{
    ViommuCore *core = opaque;
    ViommuBackend *b = &core->backend;
    ViommuInterrupt pending[VIOMMU_INTERRUPT_RING];
    uint32_t count, i;

    qemu_mutex_lock(&b->queue_lock);
    count = b->interrupt_count;
    memcpy(pending, b->interrupts, count * sizeof(ViommuInterrupt));
    b->interrupt_count = 0;
    b->interrupts_scheduled = false;
    qemu_mutex_unlock(&b->queue_lock);

    for (i = 0; i < count; i++) {
        if (pending[i].wire) {
            qemu_irq_pulse(core->wires[pending[i].wire - 1]);
        } else {
            address_space_stl_le(&address_space_memory, pending[i].address, pending[i].data,
                                 MEMTXATTRS_UNSPECIFIED, NULL);
        }
    }
    object_unref(OBJECT(core->dev));
}

/* Messages and wires are edges: the same one twice before it was delivered is one. */
static bool interrupt_is_pending(const ViommuBackend *b, const ViommuInterrupt *interrupt)
{
    uint32_t i;

    for (i = 0; i < b->interrupt_count; i++) {
        if (b->interrupts[i].address == interrupt->address && b->interrupts[i].data == interrupt->data &&
            b->interrupts[i].wire == interrupt->wire) {
            return true;
        }
    }
    return false;
}

bool viommu_backend_queue_interrupt(ViommuCore *core, const WireFrame *frame)
{
    viommu_Interrupt msg = viommu_Interrupt_init_zero;
    ViommuBackend *b = &core->backend;
    ViommuInterrupt interrupt;
    bool wake = false;

    if (!wire_decode(frame, viommu_Interrupt_fields, &msg)) {
        return false;
    }
    if (msg.wire > core->wire_count) {
        viommu_core_gone(core, "backend channel: an interrupt on output %" PRIu32 ", of which this unit has %" PRIu32,
                         msg.wire - 1, core->wire_count);
        return true;
    }
    interrupt = (ViommuInterrupt) {
        .address = msg.wire ? 0 : viommu_u64(msg.address_lo, msg.address_hi),
        .data = msg.wire ? 0 : msg.data,
        .wire = msg.wire,
    };
    qemu_mutex_lock(&b->queue_lock);
    if (!interrupt_is_pending(b, &interrupt)) {
        if (b->interrupt_count < VIOMMU_INTERRUPT_RING) {
            b->interrupts[b->interrupt_count++] = interrupt;
            wake = !b->interrupts_scheduled;
            b->interrupts_scheduled = true;
        } else {
            warn_report_once("viommu: too many different interrupts at once, one is lost");
        }
    }
    qemu_mutex_unlock(&b->queue_lock);
    if (wake) {
        viommu_core_schedule(core, interrupts_bh);
    }
    return true;
}
