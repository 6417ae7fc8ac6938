/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "compat.h"
#include "walk.h"

#define ACCESS_READ 1u
#define ACCESS_WRITE 2u

/*
 * A level's shift and index reach no further than a 64-bit address, and entries never
 * straddle tables.
 */
static bool level_is_possible(const WalkLevel *level)
{
    return level->shift >= VIOMMU_PAGE_BITS && level->shift < 64 &&
           level->index_mask < 1u << 20 && !(level->index_mask & (level->index_mask + 1));
}

static bool rights_are_complete(const viommu_PeerWalk *msg)
{
    return msg->low_shift < 32 && msg->leaf_hi_shift < 32 && msg->above_hi_shift < 32 &&
           msg->split_shift < 32 &&
           (msg->low_mask | msg->leaf_hi_mask | msg->above_hi_mask) < msg->rights.size;
}

WalkTables *viommu_walk_tables_new(const viommu_PeerWalk *msg)
{
    g_autofree WalkTables *t = g_new0(WalkTables, 1);
    const uint32_t *w = msg->levels;
    uint32_t i;

    t->levels = msg->levels_count / WALK_LEVEL_WORDS;
    if (!t->levels || t->levels > WALK_MAX_LEVELS ||
        msg->levels_count % WALK_LEVEL_WORDS || !rights_are_complete(msg)) {
        return NULL;
    }
    for (i = 0; i < t->levels; i++, w += WALK_LEVEL_WORDS) {
        t->level[i] = (WalkLevel) {
            .shift = w[0],
            .index_mask = w[1],
            .leaf_mask = w[2],
            .leaf_value = w[3],
            .flip = w[4],
            .table_reserved = viommu_u64(w[5], w[6]),
            .leaf_reserved = viommu_u64(w[7], w[8]),
            .leaf_address = viommu_u64(w[9], w[10]),
        };
        if (!level_is_possible(&t->level[i])) {
            return NULL;
        }
    }
    t->rid = msg->rid;
    t->space = msg->space;
    t->sub = msg->sub;
    t->root = viommu_u64(msg->root_lo, msg->root_hi);
    t->sign_extended = msg->sign_extended;
    t->upper = msg->upper;
    t->input = viommu_u64(msg->input_lo, msg->input_hi);
    t->present = msg->present;
    t->keep = msg->keep;
    t->table_accessed = msg->table_accessed;
    t->accessed = msg->accessed;
    t->dirty = msg->dirty;
    t->clean = msg->clean;
    t->address = viommu_u64(msg->address_lo, msg->address_hi);
    t->split = msg->split;
    t->split_shift = msg->split_shift;
    t->low_shift = msg->low_shift;
    t->low_mask = msg->low_mask;
    t->leaf_hi_shift = msg->leaf_hi_shift;
    t->leaf_hi_mask = msg->leaf_hi_mask;
    t->above_hi_shift = msg->above_hi_shift;
    t->above_hi_mask = msg->above_hi_mask;
    t->expected_mask = msg->expected_mask;
    t->expected = msg->expected;
    t->hole_first = (uint64_t)msg->hole_first << VIOMMU_PAGE_BITS;
    t->hole_last = ((uint64_t)msg->hole_last + 1) * VIOMMU_PAGE_SIZE - 1;
    if (msg->hole_first > msg->hole_last) {
        t->hole_first = 1;
        t->hole_last = 0;
    }
    t->hole_input = msg->hole_input;
    memcpy(t->rights, msg->rights.bytes, msg->rights.size);
    return g_steal_pointer(&t);
}

/* Bits of the low half that stand for high bits of an address. */
static inline uint64_t split_bits(const WalkTables *t, uint32_t lo)
{
    return (uint64_t)(lo & t->split) << t->split_shift << 32;
}

static inline bool meets_hole(const WalkTables *t, uint64_t first, uint64_t size)
{
    return t->hole_first <= t->hole_last && first <= t->hole_last &&
           first + (size - 1) >= t->hole_first;
}

/* What the entries above a leaf have gathered. */
typedef struct Above {
    uint32_t lo;
    uint32_t hi;
} Above;

static bool take_leaf(const WalkTables *t, const WalkLevel *level, uint64_t address,
                      uint32_t access, uint64_t entry, const Above *above,
                      WalkBlock *block)
{
    uint64_t size = 1ull << level->shift;
    uint32_t lo = entry, hi = entry >> 32, rights, index;

    if (((entry ^ level->flip) & level->leaf_reserved) ||
        (lo & t->expected_mask) != t->expected) {
        return false;
    }
    index = ((above->lo & lo) >> t->low_shift & t->low_mask) |
            (hi >> t->leaf_hi_shift & t->leaf_hi_mask) |
            (above->hi >> t->above_hi_shift & t->above_hi_mask);
    rights = t->rights[index];
    /* Where Accessed or Dirty would have to be set, the daemon has to do it. */
    if ((above->lo & lo & t->accessed) != t->accessed) {
        return false;
    }
    if ((~lo & t->dirty) || (lo & t->clean)) {
        rights &= ~ACCESS_WRITE;
    }
    rights &= ACCESS_READ | ACCESS_WRITE;
    if (!rights || (access & ~rights)) {
        return false;
    }
    block->input = address & ~(size - 1);
    block->output = (entry & level->leaf_address) | split_bits(t, lo);
    block->log2_size = level->shift;
    block->access = rights;
    return !meets_hole(t, block->output, size) &&
           !(t->hole_input && meets_hole(t, block->input, size));
}

static inline bool is_input(const WalkTables *t, uint64_t address)
{
    uint64_t sign = t->upper || (t->sign_extended && address >> 63) ? UINT64_MAX : 0;

    return !((address ^ sign) & t->input);
}

/*
 * Adds the entries behind the one found, in its cache line. The pages of a buffer usually
 * follow each other, so reading them now is cheaper than a walk later.
 */
static void take_line(const WalkTables *t, const WalkLevel *level, uint64_t address,
                      uint64_t at, const Above *above, WalkRead *read, WalkFound *found)
{
    uint64_t entries[WALK_LINE];
    uint32_t i, count = WALK_LINE - 1 - at / sizeof(uint64_t) % WALK_LINE;

    if (!count || !read(at + sizeof(uint64_t), entries, count)) {
        return;
    }
    for (i = 0; i < count; i++) {
        uint32_t lo = entries[i];

        address += 1ull << level->shift;
        /* A small root table may end within the line. */
        if (is_input(t, address) && (lo & t->present) &&
            (lo & level->leaf_mask) == level->leaf_value &&
            take_leaf(t, level, address, 0, entries[i], above,
                      &found->block[found->count])) {
            found->count++;
        }
    }
}

bool viommu_walk_tables(const WalkTables *t, uint64_t address, uint32_t access,
                        WalkRead *read, WalkFound *found)
{
    Above above = { .lo = UINT32_MAX, .hi = 0 };
    uint64_t table = t->root;
    uint32_t i;

    if (!is_input(t, address)) {
        return false;
    }
    for (i = 0; i < t->levels; i++) {
        const WalkLevel *level = &t->level[i];
        uint64_t entry,
            at = table + (address >> level->shift & level->index_mask) * sizeof(entry);
        uint32_t lo;

        if (!read(at, &entry, 1)) {
            return false;
        }
        lo = entry;
        if (!(lo & t->present)) {
            return false;
        }
        if ((lo & level->leaf_mask) == level->leaf_value) {
            if (!take_leaf(t, level, address, access, entry, &above, &found->block[0])) {
                return false;
            }
            found->count = 1;
            take_line(t, level, address, at, &above, read, found);
            return true;
        }
        if (((entry ^ level->flip) & level->table_reserved) ||
            (lo & t->table_accessed) != t->table_accessed) {
            return false;
        }
        above.lo &= lo | t->keep;
        above.hi |= entry >> 32;
        table = (entry & t->address) | split_bits(t, lo);
    }
    return false;
}
