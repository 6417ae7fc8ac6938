/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "compat.h"
#include "interrupt-cache.h"

/* Messages go to FEEx_xxxxh. */
#define RANGE_SHIFT 20
#define RANGE 0xfeeull
#define KEY_VALID (1ull << 63)

void viommu_interrupt_cache_init(InterruptCache *c)
{
    memset(c, 0, sizeof(*c));
    qemu_mutex_init(&c->lock);
    c->sets = qemu_memalign(sizeof(InterruptSet), INTERRUPT_SETS * sizeof(InterruptSet));
    memset(c->sets, 0, INTERRUPT_SETS * sizeof(InterruptSet));
}

void viommu_interrupt_cache_destroy(InterruptCache *c)
{
    qemu_vfree(c->sets);
    qemu_mutex_destroy(&c->lock);
    memset(c, 0, sizeof(*c));
}

/*
 * 0: such a message is not kept. No driver writes data above 16 bits, or an address that
 * is not in the range.
 */
static inline uint64_t key_of(uint16_t source, const ViommuMessage *m)
{
    if (m->address >> RANGE_SHIFT != RANGE || m->data >> 16) {
        return 0;
    }
    return KEY_VALID | (uint64_t)source << 34 | (m->address & 0xffffc) << 14 | m->data;
}

static inline uint32_t set_index(uint64_t key)
{
    /* Fibonacci hashing: handles that follow each other are far apart. */
    return key * 0x9e3779b97f4a7c15ull >> (64 - INTERRUPT_SETS_BITS);
}

bool viommu_interrupt_cache_lookup(const InterruptCache *c, uint16_t source,
                                   ViommuMessage *message)
{
    uint64_t key = key_of(source, message);
    const InterruptSet *set = &c->sets[set_index(key)];
    uint32_t before = qatomic_load_acquire(&set->sequence);
    unsigned i;

    if (qatomic_load_acquire(&c->pass_all)) {
        return true;
    }
    for (i = 0; i < INTERRUPT_WAYS; i++) {
        if (key && qatomic_read(&set->way[i].key) == key) {
            const ViommuMessage found = {
                .address = qatomic_read(&set->way[i].address),
                .data = qatomic_read(&set->way[i].data),
            };

            /* The sequence is looked at again after the way was read: write_way. */
            smp_rmb();
            if (before & 1 || qatomic_read(&set->sequence) != before) {
                return false;
            }
            *message = found;
            return true;
        }
    }
    return false;
}

static void write_way(InterruptSet *set, unsigned way, const InterruptWay *to)
{
    qatomic_set(&set->sequence, set->sequence + 1);
    /* Odd before the way changes: viommu_interrupt_cache_lookup. */
    smp_wmb();
    qatomic_set(&set->way[way].key, to->key);
    qatomic_set(&set->way[way].address, to->address);
    qatomic_set(&set->way[way].data, to->data);
    set->way[way].index_plus_1 = to->index_plus_1;
    /* Even after it has changed. */
    smp_wmb();
    qatomic_set(&set->sequence, set->sequence + 1);
}

/* The same message again, else a free way, else the next in turn. */
static unsigned choose_way(InterruptSet *set, uint64_t key)
{
    unsigned i, way = INTERRUPT_WAYS;

    for (i = 0; i < INTERRUPT_WAYS; i++) {
        if (set->way[i].key == key) {
            return i;
        }
        if (!set->way[i].key) {
            way = i;
        }
    }
    if (way == INTERRUPT_WAYS) {
        way = set->victim;
        set->victim = (set->victim + 1) % INTERRUPT_WAYS;
    }
    return way;
}

bool viommu_interrupt_cache_keep(InterruptCache *c, uint16_t source,
                                 const ViommuMessage *asked, const ViommuMessage *answer,
                                 uint32_t index_plus_1, uint32_t epoch, bool pass_all)
{
    const InterruptWay way = {
        .key = key_of(source, asked),
        .address = answer->address,
        .data = answer->data,
        .index_plus_1 = index_plus_1,
    };
    bool fresh;

    qemu_mutex_lock(&c->lock);
    fresh = (int32_t)(epoch - c->epoch) >= 0;
    if (fresh && pass_all) {
        qatomic_store_release(&c->pass_all, true);
    } else if (fresh && way.key) {
        InterruptSet *set = &c->sets[set_index(way.key)];

        write_way(set, choose_way(set, way.key), &way);
    }
    qemu_mutex_unlock(&c->lock);
    return fresh;
}

static void drop_locked(InterruptCache *c, uint32_t index, uint32_t log2_count)
{
    const InterruptWay none = { 0 };
    uint32_t set;
    unsigned i;

    for (set = 0; set < INTERRUPT_SETS; set++) {
        for (i = 0; i < INTERRUPT_WAYS; i++) {
            const InterruptWay *way = &c->sets[set].way[i];

            if (way->key &&
                (log2_count >= INTERRUPT_ALL ||
                 (way->index_plus_1 &&
                  (way->index_plus_1 - 1) >> log2_count == index >> log2_count))) {
                write_way(&c->sets[set], i, &none);
            }
        }
    }
    if (log2_count >= INTERRUPT_ALL) {
        qatomic_set(&c->pass_all, false);
    }
}

void viommu_interrupt_cache_invalidate(InterruptCache *c, uint32_t index,
                                       uint32_t log2_count, uint32_t epoch)
{
    qemu_mutex_lock(&c->lock);
    c->epoch = epoch;
    drop_locked(c, index, log2_count);
    qemu_mutex_unlock(&c->lock);
}

void viommu_interrupt_cache_flush(InterruptCache *c)
{
    qemu_mutex_lock(&c->lock);
    drop_locked(c, 0, INTERRUPT_ALL);
    qemu_mutex_unlock(&c->lock);
}
