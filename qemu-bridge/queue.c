/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "compat.h"
#include "queue.h"

/* Blocks that a range is split into. A range of more drops everything of its space. */
#define MOST_BLOCKS 64
#define LARGEST_BLOCK_BITS 52

#define FIELD_WORD(field) ((field) & 0xff)
#define FIELD_SHIFT(field) ((field) >> 8 & 0xff)
#define FIELD_BITS(field) ((field) >> 16)

static bool field_is_possible(uint32_t field, uint32_t words, uint32_t most_bits)
{
    return FIELD_WORD(field) < words && FIELD_SHIFT(field) < 32 &&
           FIELD_BITS(field) <= most_bits && FIELD_SHIFT(field) + FIELD_BITS(field) <= 32;
}

static bool command_is_possible(const QueueCommand *c, uint32_t words)
{
    return c->kind <= QUEUE_STORE && c->log2_size >= VIOMMU_PAGE_BITS &&
           c->log2_size <= 64 && c->most < 64 && field_is_possible(c->space, words, 32) &&
           field_is_possible(c->sub, words, 32) && field_is_possible(c->more, words, 6) &&
           field_is_possible(c->number, words, 16) &&
           field_is_possible(c->scale, words, 5) && field_is_possible(c->data, words, 32);
}

static bool shape_is_possible(const viommu_Queue *msg, uint32_t register_bytes)
{
    uint32_t bits = msg->entries_log2 + msg->wraps;

    return msg->number && msg->tail % 4 == 0 && msg->head % 4 == 0 &&
           register_bytes >= 4 && msg->tail <= register_bytes - 4 &&
           msg->head <= register_bytes - 4 && msg->tail != msg->head &&
           (msg->entry_log2 == 4 || msg->entry_log2 == 5) && msg->entries_log2 >= 1 &&
           msg->entries_log2 < 24 && msg->index_shift < 32 &&
           bits + msg->index_shift <= 32 &&
           msg->index_mask == (uint32_t)(((1ull << bits) - 1) << msg->index_shift) &&
           msg->commands_count % QUEUE_COMMAND_WORDS == 0;
}

QueueShape *viommu_queue_shape_new(const viommu_Queue *msg, uint32_t register_bytes)
{
    g_autofree QueueShape *q = g_new0(QueueShape, 1);
    uint32_t i;

    if (!shape_is_possible(msg, register_bytes)) {
        return NULL;
    }
    q->number = msg->number;
    q->tail = msg->tail;
    q->head = msg->head;
    q->index_mask = msg->index_mask;
    q->index_shift = msg->index_shift;
    q->entry_log2 = msg->entry_log2;
    q->entries_log2 = msg->entries_log2;
    q->around = msg->index_mask >> msg->index_shift;
    q->base = viommu_u64(msg->base_lo, msg->base_hi);
    q->commands = msg->commands_count / QUEUE_COMMAND_WORDS;
    memcpy(q->command, msg->commands, msg->commands_count * sizeof(uint32_t));
    for (i = 0; i < q->commands; i++) {
        if (!command_is_possible(&q->command[i], 1u << (q->entry_log2 - 2))) {
            return NULL;
        }
    }
    return g_steal_pointer(&q);
}

static inline uint32_t field_of(const uint32_t *entry, uint32_t field, uint32_t absent)
{
    uint32_t bits = FIELD_BITS(field);

    return bits ? entry[FIELD_WORD(field)] >> FIELD_SHIFT(field) &
                      (uint32_t)((1ull << bits) - 1) :
                  absent;
}

static bool fits(const QueueCommand *c, const uint32_t *entry, uint32_t words)
{
    uint32_t wrong = 0, wanted = 0, found = 0, i;

    for (i = 0; i < words; i++) {
        wrong |= (entry[i] ^ c->value[i]) & c->mask[i];
    }
    for (i = 0; i < ARRAY_SIZE(c->some); i++) {
        wanted |= c->some[i];
        found |= entry[i] & c->some[i];
    }
    return !wrong && (!wanted || found) && field_of(entry, c->more, 0) <= c->most;
}

bool viommu_queue_match(const QueueShape *q, const uint32_t *entry, QueueStep *step)
{
    const QueueCommand *c = q->command, *end = c + q->commands;
    uint32_t words = 1u << (q->entry_log2 - 2);

    while (c < end && !fits(c, entry, words)) {
        c++;
    }
    if (c == end) {
        return false;
    }
    *step = (QueueStep){
        .kind = c->kind,
        .space = field_of(entry, c->space, 0),
        .sub = field_of(entry, c->sub, IOTLB_ANY),
        .log2_size = MIN(c->log2_size + field_of(entry, c->more, 0), 64),
        .data = field_of(entry, c->data, 0),
        .blocks = (uint64_t)(field_of(entry, c->number, 0) + 1)
                  << field_of(entry, c->scale, 0),
        .address = viommu_u64(entry[2] & c->address_lo, entry[3] & c->address_hi),
    };
    return true;
}

uint32_t viommu_queue_distance(const QueueShape *q, uint32_t head, uint32_t tail)
{
    uint32_t from = (head & q->index_mask) >> q->index_shift;
    uint32_t to = (tail & q->index_mask) >> q->index_shift;

    return (to - from) & q->around;
}

void viommu_queue_scopes(const QueueStep *step, QueueDrop *drop, void *opaque)
{
    IotlbScope scope = { .space = step->space,
                         .sub = step->sub,
                         .log2_size = step->log2_size };
    uint64_t left = step->blocks;
    uint32_t blocks;

    for (blocks = 0; left && step->log2_size < 64 && blocks < MOST_BLOCKS; blocks++) {
        scope.log2_size = step->log2_size;
        if (!blocks) {
            scope.address = step->address >> step->log2_size << step->log2_size;
        }
        while (scope.log2_size < LARGEST_BLOCK_BITS &&
               2ull << (scope.log2_size - step->log2_size) <= left &&
               !(scope.address >> scope.log2_size & 1)) {
            scope.log2_size++;
        }
        drop(opaque, &scope);
        scope.address += 1ull << scope.log2_size;
        left -= 1ull << (scope.log2_size - step->log2_size);
    }
    if (left) {
        /*
         * With any second tag: some of so many blocks may have other tags that the
         * command reaches too.
         */
        scope = (IotlbScope) {
            .space = step->space,
            .sub = step->log2_size < 64 ? IOTLB_ANY : step->sub,
            .log2_size = 64,
        };
        drop(opaque, &scope);
    }
}
