/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Remapped interrupts that are kept: what the daemon answered for a source-id, an address
 * and data. Look-ups take no lock.
 */
#ifndef VIOMMU_INTERRUPT_CACHE_H
#define VIOMMU_INTERRUPT_CACHE_H

#define INTERRUPT_SETS_BITS 9
#define INTERRUPT_SETS (1u << INTERRUPT_SETS_BITS)
#define INTERRUPT_WAYS 2

/* A block of 2^16 entries and above is all there is. */
#define INTERRUPT_ALL 16

/*
 * A message. For processors: bits 31:8 of a 32-bit destination are in address bits 63:40.
 */
typedef struct ViommuMessage {
    uint64_t address;
    uint32_t data;
} ViommuMessage;

typedef struct InterruptWay {
    uint64_t key;           /* source-id, address and data; 0: free */
    uint64_t address;
    uint32_t data;
    uint32_t index_plus_1;  /* table entry; 0: of none */
} InterruptWay;

/* One cache line: its sequence is odd while a way changes. */
typedef struct InterruptSet {
    uint32_t sequence;
    uint32_t victim;
    InterruptWay way[INTERRUPT_WAYS];
} __attribute__((aligned(64))) InterruptSet;

typedef struct InterruptCache {
    InterruptSet *sets;
    QemuMutex lock;         /* to change anything */
    uint32_t epoch;         /* of the last invalidation */
    bool pass_all;          /* every message is delivered as it is */
} InterruptCache;

void viommu_interrupt_cache_init(InterruptCache *c);
void viommu_interrupt_cache_destroy(InterruptCache *c);

/** Replaces the message by the one that is kept for it. False: none is. No lock. */
bool viommu_interrupt_cache_lookup(const InterruptCache *c, uint16_t source,
                                   ViommuMessage *message);

/**
 * Keeps an answer, unless it is older than the last invalidation. False: it is.
 * `pass_all`: every message passes as it is.
 */
bool viommu_interrupt_cache_keep(InterruptCache *c, uint16_t source,
                                 const ViommuMessage *asked, const ViommuMessage *answer,
                                 uint32_t index_plus_1, uint32_t epoch, bool pass_all);

/**
 * Drops what comes from the aligned block of 2^log2_count entries. From INTERRUPT_ALL on
 * that is everything.
 */
void viommu_interrupt_cache_invalidate(InterruptCache *c, uint32_t index,
                                       uint32_t log2_count, uint32_t epoch);
/** Drops everything. Epochs go on. */
void viommu_interrupt_cache_flush(InterruptCache *c);

#endif
