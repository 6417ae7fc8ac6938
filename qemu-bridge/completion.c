/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "compat.h"
#include "completion.h"
#include "front.h"
#include "guest-memory.h"
#include "iotlb.h"
#include "queue.h"
#include "shared-page.h"
#include "spaces.h"
#include "viommu-core.h"
#include "wire.h"

/*
 * Entries that one store announces at most. Linux batches 64, and one to wait for them.
 * The daemon carries out longer runs.
 */
#define MOST_ENTRIES 128

/* What is to be done. All of it is known to be possible before any of it begins. */
typedef struct Run {
    const QueueShape *queue;
    uint32_t count;
    uint32_t index; /* in both registers, when it is done */
    uint32_t used;  /* slots of the ring, before */
    uint32_t entries[MOST_ENTRIES * QUEUE_ENTRY_WORDS];
    QueueStep steps[MOST_ENTRIES];
} Run;

bool viommu_completion_serve_queue(ViommuCore *core, const WireFrame *frame)
{
    g_autofree viommu_Queue *msg = g_new0(viommu_Queue, 1);
    QueueShape *queue, *old = core->queue;

    if (!viommu_core_has(core, viommu_Feature_FEATURE_QUEUES)) {
        viommu_core_gone(core, "backend channel: QUEUE, which was not agreed on");
        return true;
    }
    if (!viommu_wire_decode(frame, viommu_Queue_fields, msg)) {
        return false;
    }
    queue = viommu_queue_shape_new(msg, core->register_bytes);
    if (!queue) {
        viommu_core_gone(core,
                         "backend channel: QUEUE %" PRIu32
                         " describes no queue that can be",
                         msg->number);
        return true;
    }
    qatomic_rcu_set(&core->queue, queue);
    if (old) {
        g_free_rcu(old, rcu);
    }
    return true;
}

void viommu_completion_stop(ViommuCore *core)
{
    g_clear_pointer(&core->queue, g_free);
}

/*
 * Whether only the caches here hold translations, and no request in flight uses one that
 * was asked for.
 */
static bool is_alone(const ViommuCore *core)
{
    return !core->listening && !core->assigned && !qatomic_read(&core->host) &&
           !qatomic_read(&core->endpoints.under_way);
}

static uint32_t *register_word(const ViommuCore *core, uint32_t offset)
{
    return (uint32_t *)(core->page + PAGE_REGISTERS_OFFSET + offset);
}

static uint32_t register_value(const ViommuCore *core, uint32_t offset)
{
    return le32_to_cpu(qatomic_read(register_word(core, offset)));
}

/* A reader of the new index sees what was stored before. */
static void set_index(const ViommuCore *core, uint32_t offset, const QueueShape *q,
                      uint32_t index)
{
    uint32_t value = (register_value(core, offset) & ~q->index_mask) | index;

    qatomic_store_release(register_word(core, offset), cpu_to_le32(value));
}

/* Copies the entries; the queue may wrap around. */
static bool fetch(Run *run, uint32_t head)
{
    const QueueShape *q = run->queue;
    uint32_t place = viommu_queue_place(q, head);
    uint32_t upto = MIN(run->count, (1u << q->entries_log2) - place);
    uint32_t words = run->count << (q->entry_log2 - 2), i;

    if (viommu_guest_read(q->base + ((uint64_t)place << q->entry_log2), run->entries,
                          upto << q->entry_log2) ||
        viommu_guest_read(q->base, run->entries + (upto << (q->entry_log2 - 2)),
                          (run->count - upto) << q->entry_log2)) {
        return false;
    }
    for (i = 0; i < words; i++) {
        run->entries[i] = le32_to_cpu(run->entries[i]);
    }
    return true;
}

static bool match(Run *run)
{
    uint32_t i;

    for (i = 0; i < run->count; i++) {
        QueueStep *step = &run->steps[i];

        if (!viommu_queue_match(run->queue,
                                run->entries + (i << (run->queue->entry_log2 - 2)),
                                step) ||
            (step->kind == QUEUE_STORE && !viommu_guest_can_store(step->address))) {
            return false;
        }
    }
    return true;
}

static inline uint32_t *slot(const ViommuCore *core, uint32_t position)
{
    uint8_t *ring = core->page + core->page_bytes - RING_BYTES;

    return (uint32_t *)(ring + position % RING_SLOTS * RING_SLOT_BYTES);
}

static void put_slot(const ViommuCore *core, uint32_t position, const uint32_t *words)
{
    uint32_t *to = slot(core, position);
    unsigned i;

    for (i = 0; i < RING_SLOT_BYTES / sizeof(uint32_t); i++) {
        to[i] = cpu_to_le32(words[i]);
    }
}

/*
 * Slots that the daemon has not taken. Larger than the ring if the daemon claims to have
 * taken slots that were never filled.
 */
static uint32_t ring_used(const ViommuCore *core)
{
    return core->ring_filled -
           qatomic_load_acquire(viommu_control(core, viommu_CONTROL_WORD_RING_TAKEN));
}

static uint32_t slots_of(const Run *run)
{
    return 1 + (run->count << (run->queue->entry_log2 - 4));
}

/*
 * Puts a copy of the run into the ring. The daemon finds it before anything that it is
 * asked later.
 */
static void tell(ViommuCore *core, const Run *run)
{
    const uint32_t head[] = { run->count, run->queue->number, run->index, 0 };
    uint32_t used = run->used, slots = slots_of(run), i;

    put_slot(core, core->ring_filled, head);
    for (i = 1; i < slots; i++) {
        put_slot(core, core->ring_filled + i, run->entries + (i - 1) * ARRAY_SIZE(head));
    }
    core->ring_filled += slots;
    qatomic_store_release(viommu_control(core, viommu_CONTROL_WORD_RING_FILLED),
                          core->ring_filled);
    if (used < RING_SLOTS / 2 && used + slots >= RING_SLOTS / 2) {
        viommu_front_post_locked(core, viommu_MessageType_QUEUE_RAN, NULL, NULL);
    }
}

static void drop(void *opaque, const IotlbScope *scope)
{
    viommu_spaces_invalidate(opaque, scope, IOTLB_ANY, IOTLB_ANY);
}

static void drop_step(ViommuCore *core, const QueueStep *step)
{
    /* A fill that was read before now and is kept after the drop would be stale. */
    viommu_iotlb_epochs_note(&core->own, step->space,
                             viommu_iotlb_epochs_newest(&core->own) + 1);
    viommu_queue_scopes(step, drop, core);
}

/*
 * The ring gets only what has been dropped: for that the daemon may leave out
 * invalidations of its own.
 *
 * A store may write an entry of a table that a later drop is about. So drops behind a
 * store are carried out again after it.
 */
static void carry_out(ViommuCore *core, const Run *run)
{
    bool stored = false;
    uint32_t i;

    for (i = 0; i < run->count; i++) {
        if (run->steps[i].kind == QUEUE_DROP) {
            drop_step(core, &run->steps[i]);
        }
    }
    tell(core, run);
    for (i = 0; i < run->count; i++) {
        const QueueStep *step = &run->steps[i];

        if (step->kind == QUEUE_STORE) {
            viommu_guest_store(step->address, step->data);
            stored = true;
        } else if (step->kind == QUEUE_DROP && stored) {
            drop_step(core, step);
        }
    }
    set_index(core, run->queue->head, run->queue, run->index);
    set_index(core, run->queue->tail, run->queue, run->index);
}

/* Whether the daemon has handled all writes, and says that this queue may be run. */
static bool in_force(const ViommuCore *core, const QueueShape *q)
{
    uint32_t handled = qatomic_load_acquire(
        viommu_control(core, viommu_CONTROL_WORD_HANDLED));

    return handled == core->writes_sent &&
           qatomic_read(viommu_control(core, viommu_CONTROL_WORD_QUEUE)) == q->number;
}

/* Carries out everything that the store announces, or nothing. */
static bool run_to(ViommuCore *core, const QueueShape *q, uint32_t index)
{
    uint32_t head = register_value(core, q->head) & q->index_mask;
    Run run;

    run.queue = q;
    run.index = index;
    run.used = ring_used(core);
    run.count = viommu_queue_distance(q, head, index);
    if (!run.count || run.count > MIN(MOST_ENTRIES, 1u << q->entries_log2) ||
        run.used > RING_SLOTS || slots_of(&run) > RING_SLOTS - run.used ||
        !fetch(&run, head) || !match(&run)) {
        return false;
    }
    carry_out(core, &run);
    return true;
}

bool viommu_completion_locked(ViommuCore *core, hwaddr offset, uint64_t value,
                              unsigned size)
{
    const QueueShape *q;

    RCU_READ_LOCK_GUARD();
    q = qatomic_rcu_read(&core->queue);
    return q && offset == q->tail && (size == 4 || size == 8) &&
           !(value & ~(uint64_t)q->index_mask) && viommu_core_alive(core) &&
           is_alone(core) && in_force(core, q) && run_to(core, q, value);
}
