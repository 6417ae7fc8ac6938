/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Peer walks (PEER_WALKS on the wire): the bridge, which is the daemon's peer, walks a
 * requester's tables itself instead of asking for each translation. The daemon describes
 * what an entry means as masks and numbers (PEER_WALK, docs/protocol.md, "Peer walks");
 * no format is known here. A walk that does not end in a translation gives no reason: the
 * daemon is asked, and finds the fault.
 */
#ifndef VIOMMU_WALK_H
#define VIOMMU_WALK_H

#include "qemu/rcu.h"
#include "viommu.pb.h"

#define WALK_MAX_LEVELS 6
#define WALK_LEVEL_WORDS 11
#define WALK_MAX_RIGHTS 1024

typedef struct WalkLevel {
    uint32_t shift;      /* log2 of what an entry maps */
    uint32_t index_mask;
    uint32_t leaf_mask;  /* an entry is a leaf when these bits are leaf_value */
    uint32_t leaf_value;
    uint32_t flip;       /* bits that must be one: inverted before the checks below */
    uint64_t table_reserved;
    uint64_t leaf_reserved;
    uint64_t leaf_address;
} WalkLevel;

typedef struct WalkTables {
    struct rcu_head rcu;
    uint16_t rid;        /* of the requester when it was told */
    uint32_t space;      /* tags of what is found */
    uint32_t sub;
    uint64_t root;
    bool sign_extended;
    bool upper;
    uint64_t input;      /* bits of an address that must be zero, ones, or its sign */
    uint32_t present;
    uint32_t keep;
    uint32_t table_accessed;
    uint32_t accessed;
    uint32_t dirty;
    uint32_t clean;
    uint64_t address;
    uint32_t split;
    uint32_t split_shift;
    uint32_t low_shift;
    uint32_t low_mask;
    uint32_t leaf_hi_shift;
    uint32_t leaf_hi_mask;
    uint32_t above_hi_shift;
    uint32_t above_hi_mask;
    uint32_t expected_mask;
    uint32_t expected;
    uint64_t hole_first; /* bytes, both included; first > last: none */
    uint64_t hole_last;
    bool hole_input;
    uint32_t levels;
    WalkLevel level[WALK_MAX_LEVELS]; /* the root's first */
    uint8_t rights[WALK_MAX_RIGHTS];
} WalkTables;

/* Entries of a leaf table that share a line of memory, which is read at once. */
#define WALK_LINE 8

typedef struct WalkBlock {
    uint64_t input;  /* of the block's first byte */
    uint64_t output;
    uint32_t log2_size;
    uint32_t access; /* what may be cached */
} WalkBlock;

/* The block asked for, then those behind it in its line that may be cached too. */
typedef struct WalkFound {
    uint32_t count;
    WalkBlock block[WALK_LINE];
} WalkFound;

/**
 * Reads aligned little-endian quadwords within a line of guest RAM, each whole. False:
 * not RAM.
 */
typedef bool WalkRead(uint64_t address, uint64_t *values, uint32_t count);

/**
 * The tables that the daemon describes, to be freed with g_free. NULL: impossible values.
 */
WalkTables *viommu_walk_tables_new(const viommu_PeerWalk *msg);

/**
 * The block around `address` that allows all of `access` (1 read, 2 write). Reads at most
 * once for each level, and once more for the rest of the line.
 */
bool viommu_walk_tables(const WalkTables *t, uint64_t address, uint32_t access,
                        WalkRead *read, WalkFound *found);

#endif
