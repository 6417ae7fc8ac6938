/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The guest's queue of commands as the daemon describes it (docs/protocol.md, "Queues"):
 * which entries may be carried out here, and what each asks for. No command is known
 * here, only where its fields stand.
 */
#ifndef VIOMMU_QUEUE_H
#define VIOMMU_QUEUE_H

#include "iotlb.h"
#include "viommu.pb.h"

#define QUEUE_COMMAND_WORDS 32
#define QUEUE_MAX_COMMANDS 32
/* 32-bit words of an entry. */
#define QUEUE_ENTRY_WORDS 8

typedef enum QueueKind { QUEUE_NOTHING = 0, QUEUE_DROP = 1, QUEUE_STORE = 2 } QueueKind;

/* The words of Queue.commands. A field is word | first bit << 8 | bits << 16; 0: none. */
typedef struct QueueCommand {
    uint32_t mask[QUEUE_ENTRY_WORDS];
    uint32_t value[QUEUE_ENTRY_WORDS];
    uint32_t some[4];
    uint32_t kind;
    uint32_t space;
    uint32_t sub;
    uint32_t log2_size;
    uint32_t more;
    uint32_t most;
    uint32_t number;
    uint32_t scale;
    uint32_t address_lo;
    uint32_t address_hi;
    uint32_t data;
    uint32_t unused;
} QueueCommand;

typedef struct QueueShape {
    struct rcu_head rcu;
    uint32_t number;
    uint32_t tail;        /* register offsets */
    uint32_t head;
    uint32_t index_mask;
    uint32_t index_shift;
    uint32_t entry_log2;
    uint32_t entries_log2;
    uint32_t around;      /* index after the last, wrap bit included, minus 1 */
    uint64_t base;
    uint32_t commands;
    QueueCommand command[QUEUE_MAX_COMMANDS];
} QueueShape;

/* What an entry asks for. */
typedef struct QueueStep {
    QueueKind kind;
    uint32_t space;       /* QUEUE_DROP: tags */
    uint32_t sub;
    uint32_t log2_size;   /* QUEUE_DROP: of the bytes of a block; 64: every address */
    uint32_t data;        /* QUEUE_STORE */
    uint64_t blocks;
    uint64_t address;
} QueueStep;

/**
 * The queue that the daemon describes, to be freed with g_free. NULL: impossible values.
 */
QueueShape *viommu_queue_shape_new(const viommu_Queue *msg, uint32_t register_bytes);

/**
 * What the entry (2^entry_log2 bytes, as words) asks for. False: it matches no
 * description.
 */
bool viommu_queue_match(const QueueShape *q, const uint32_t *entry, QueueStep *step);

/** Entries from one value of the registers to another. */
uint32_t viommu_queue_distance(const QueueShape *q, uint32_t head, uint32_t tail);

/** The entry's place in the queue that a register's value says. */
static inline uint32_t viommu_queue_place(const QueueShape *q, uint32_t value)
{
    return (value & q->index_mask) >> q->index_shift & ((1u << q->entries_log2) - 1);
}

typedef void QueueDrop(void *opaque, const IotlbScope *scope);

/**
 * Calls `drop` for the aligned powers of two that make up what a QUEUE_DROP names, or for
 * all of its space where there would be too many.
 */
void viommu_queue_scopes(const QueueStep *step, QueueDrop *drop, void *opaque);

#endif
