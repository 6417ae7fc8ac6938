/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A message is remapped here if an answer for it is kept. Otherwise the daemon is asked,
 * and its answer is kept if it may be and no invalidation came since.
 *
 * All messages are remapped and delivered under the big lock. So an INVALIDATE_INTERRUPTS
 * is answered from the main loop: then none that was remapped before is on its way any
 * more, and those who have copied an interrupt (KVM's routes, the split IOAPIC) can be
 * called, which takes that lock. A thread that holds the lock while it waits for the
 * answer to a REMAP_INTERRUPT delays that, and nothing else: the daemon goes on answering
 * (ordering rule 5).
 */
#include "compat.h"
#include "backend.h"
#include "front.h"
#include "interrupts.h"
#include "notices.h"
#include "shared-page.h"
#include "spaces.h"
#include "viommu-core.h"
#include "wire.h"

typedef struct InterruptsNotice {
    ViommuNotice notice;
    uint32_t id;
    uint32_t index;
    uint32_t log2_count;
} InterruptsNotice;

void viommu_interrupts_init(ViommuCore *core)
{
    viommu_interrupt_cache_init(&core->interrupts.cache);
}

void viommu_interrupts_publish(ViommuCore *core)
{
    const ViommuInterrupts *in = &core->interrupts;

    qatomic_set(viommu_control(core, viommu_CONTROL_WORD_INTERRUPT_HITS_LO),
                (uint32_t)qatomic_read(&in->hits));
    qatomic_set(viommu_control(core, viommu_CONTROL_WORD_INTERRUPT_HITS_HI),
                qatomic_read(&in->hits) >> 32);
    qatomic_set(viommu_control(core, viommu_CONTROL_WORD_INTERRUPTS_ASKED),
                qatomic_read(&in->asked));
    qatomic_set(viommu_control(core, viommu_CONTROL_WORD_INTERRUPTS_BLOCKED),
                qatomic_read(&in->blocked));
}

/* False: the daemon is gone. */
static bool ask(ViommuCore *core, ViommuSpace *space, const viommu_RemapInterrupt *msg,
                viommu_RemapInterruptReply *reply)
{
    bool ok;

    qemu_mutex_lock(&core->front.lock);
    ok = (!space || viommu_space_announce_locked(space)) &&
         viommu_front_request_locked(core, viommu_MessageType_REMAP_INTERRUPT,
                                     viommu_RemapInterrupt_fields, msg, -1,
                                     viommu_RemapInterruptReply_fields, reply);
    qemu_mutex_unlock(&core->front.lock);
    if (!ok) {
        warn_report_once("viommu: without the daemon, interrupts that were not remapped "
                         "before are lost");
    }
    return ok;
}

/* What is not kept. False: blocked. */
static bool remap_miss(ViommuCore *core, ViommuSpace *space, uint16_t source, bool look,
                       ViommuMessage *message)
{
    const viommu_RemapInterrupt msg = {
        .rid = source,
        .address_lo = message->address,
        .address_hi = message->address >> 32,
        .data = message->data,
        .look = look,
    };
    viommu_RemapInterruptReply reply = viommu_RemapInterruptReply_init_zero;
    ViommuMessage answer;

    if (!ask(core, space, &msg, &reply) || reply.status) {
        return false;
    }
    answer = (ViommuMessage) {
        .address = viommu_u64(reply.address_lo, reply.address_hi),
        .data = reply.data,
    };
    if (!reply.once &&
        !viommu_interrupt_cache_keep(&core->interrupts.cache, source, message, &answer,
                                     reply.index, reply.epoch, reply.pass_all)) {
        qatomic_inc(&core->stale_fills);
    }
    *message = answer;
    return true;
}

bool viommu_interrupts_look(ViommuCore *core, uint16_t source, ViommuMessage *message)
{
    return viommu_interrupt_cache_lookup(&core->interrupts.cache, source, message) ||
           remap_miss(core, NULL, source, true, message);
}

bool viommu_interrupts_send(ViommuCore *core, ViommuSpace *space, ViommuMessage message)
{
    ViommuInterrupts *in = &core->interrupts;
    uint16_t source = space ? viommu_space_rid(space) : in->ioapic;

    if (!in->remapped) {
        in->ops->deliver(&message);
        return true;
    }
    if (likely(viommu_interrupt_cache_lookup(&in->cache, source, &message))) {
        qatomic_set(&in->hits, in->hits + 1);
    } else {
        bool passes = remap_miss(core, space, source, false, &message);

        qatomic_set(&in->asked, in->asked + 1);
        qatomic_set(&in->blocked, in->blocked + !passes);
        viommu_interrupts_publish(core);
        if (!passes) {
            return false;
        }
    }
    in->ops->deliver(&message);
    return true;
}

static void run(ViommuCore *core, ViommuNotice *notice)
{
    g_autofree InterruptsNotice *n = container_of(notice, InterruptsNotice, notice);

    if (!qatomic_read(&core->resetting)) {
        core->interrupts.ops->changed(core, n->index, n->log2_count);
    }
    viommu_interrupts_publish(core);
    viommu_backend_reply(core, viommu_MessageType_INVALIDATE_INTERRUPTS, n->id, NULL,
                         NULL);
}

bool viommu_interrupts_serve(ViommuCore *core, const WireFrame *frame)
{
    viommu_InvalidateInterrupts msg = viommu_InvalidateInterrupts_init_zero;
    InterruptsNotice *n;

    if (!core->interrupts.remapped ||
        !viommu_wire_decode(frame, viommu_InvalidateInterrupts_fields, &msg)) {
        return false;
    }
    viommu_interrupt_cache_invalidate(&core->interrupts.cache, msg.index, msg.log2_count,
                                      msg.epoch);
    if (qatomic_read(&core->resetting)) {
        /* The reset holds the big lock; it lets all copies be renewed at its end. */
        qatomic_inc(&core->notices.done);
        viommu_backend_reply(core, viommu_MessageType_INVALIDATE_INTERRUPTS, frame->id,
                             NULL, NULL);
        return true;
    }
    n = g_new0(InterruptsNotice, 1);
    n->notice.run = run;
    n->id = frame->id;
    n->index = msg.index;
    n->log2_count = msg.log2_count;
    viommu_notices_add(core, &n->notice);
    return true;
}

void viommu_interrupts_reset(ViommuCore *core)
{
    ViommuInterrupts *in = &core->interrupts;

    viommu_interrupt_cache_flush(&in->cache);
    if (in->remapped) {
        in->ops->changed(core, 0, INTERRUPT_ALL);
        viommu_interrupts_publish(core);
    }
}
