/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The translations of one requester that the daemon has handed out, kept so that a hit
 * never leaves QEMU.
 *
 * Any thread looks up, without a lock: every set is one cache line under its own sequence
 * counter. Writers (a vCPU or iothread that fills, a thread that invalidates) take the
 * cache's mutex.
 */
#ifndef VIOMMU_IOTLB_H
#define VIOMMU_IOTLB_H

#define IOTLB_SETS_BITS 10
#define IOTLB_SETS (1u << IOTLB_SETS_BITS)
#define IOTLB_WAYS 3
/* Block sizes 2^12 … 2^64, as classes 0 … 52. */
#define IOTLB_CLASSES 53
/* Stands for "every one" in an invalidation scope. */
#define IOTLB_ANY 0xffffffffu

/* Access bits as on the wire; QEMU's IOMMU_RO and IOMMU_WO are the same two. */
#define IOTLB_READ 1u
#define IOTLB_WRITE 2u
#define IOTLB_RW 3u

/* 0 = empty. Bits 63:12 input block, 11:4 class, 3 valid, 2:0 access. */
typedef struct IotlbWay {
    uint64_t key;
    uint64_t output;
} IotlbWay;

typedef struct IotlbSet {
    uint32_t sequence; /* odd while a writer is inside */
    uint32_t victim;
    IotlbWay way[IOTLB_WAYS];
} __attribute__((aligned(64))) IotlbSet;

/* What only invalidations look at, kept away from the lines that hits touch. */
typedef struct IotlbTag {
    uint32_t space;
    uint32_t sub;
} IotlbTag;

typedef struct Iotlb {
    IotlbSet *sets;     /* allocated at the first fill */
    IotlbTag *tags;
    uint64_t classes;   /* bit per class that has an entry */
    uint32_t count[IOTLB_CLASSES];
    uint32_t entries;
    QemuMutex lock;
} Iotlb;

typedef struct IotlbHit {
    uint64_t output;    /* of the block's first byte */
    uint32_t log2_size; /* 12 … 64 */
    uint32_t access;
} IotlbHit;

/* An invalidation as the wire gives it, without the requester. */
typedef struct IotlbScope {
    uint32_t space;
    uint32_t sub;
    uint64_t address;
    uint32_t log2_size; /* 64 and above: all addresses */
} IotlbScope;

void viommu_iotlb_init(Iotlb *t);
void viommu_iotlb_destroy(Iotlb *t);

/**
 * A block that contains `address` and allows all of `access` (IOTLB_READ | IOTLB_WRITE).
 * No lock.
 */
bool viommu_iotlb_lookup(const Iotlb *t, uint64_t address, uint32_t access,
                         IotlbHit *hit);

/** Adds one block; the caller holds t->lock. Sizes outside 12 … 64 are ignored. */
void viommu_iotlb_insert_locked(Iotlb *t, uint64_t input, uint64_t output,
                                uint32_t log2_size, uint32_t access, uint32_t space,
                                uint32_t sub);

/** Drops what the scope matches, takes t->lock. Returns how many entries went. */
uint32_t viommu_iotlb_invalidate(Iotlb *t, const IotlbScope *scope);

/** Drops everything, takes t->lock. */
uint32_t viommu_iotlb_flush(Iotlb *t);

/*
 * Ordering rule 3 (a fill older than the last invalidation of its space is not cached):
 * the newest epoch invalidated, for everything and per space. Spaces share slots by hash;
 * sharing only drops more fills.
 */
#define IOTLB_EPOCH_SLOTS 256

typedef struct IotlbEpochs {
    uint32_t newest;
    uint32_t all;
    uint32_t slot[IOTLB_EPOCH_SLOTS];
} IotlbEpochs;

/**
 * Called before the entries are dropped: a fill under t->lock then sees it, or is
 * dropped.
 */
void viommu_iotlb_epochs_note(IotlbEpochs *e, uint32_t space, uint32_t epoch);

/**
 * The epoch that memory has by now at the latest. What is read after this call, and found
 * fresh for this epoch after it was read, was not invalidated in between.
 */
static inline uint32_t viommu_iotlb_epochs_newest(const IotlbEpochs *e)
{
    return qatomic_load_acquire(&e->newest);
}

/** Whether an answer computed at `epoch` may be cached for `space`. */
bool viommu_iotlb_epochs_fresh(const IotlbEpochs *e, uint32_t space, uint32_t epoch);

#endif
