/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "compat.h"
#include "iotlb.h"

#define KEY_VALID 8ull
#define KEY_ACCESS 7ull
#define KEY_CLASS_SHIFT 4
#define CLASS_ALL (IOTLB_CLASSES - 1) /* 2^64: everything */

/* More than this many candidate blocks, and reading every set is cheaper. */
#define PROBE_LIMIT 64

void viommu_iotlb_init(Iotlb *t)
{
    memset(t, 0, sizeof(*t));
    qemu_mutex_init(&t->lock);
}

void viommu_iotlb_destroy(Iotlb *t)
{
    qemu_vfree(t->sets);
    g_free(t->tags);
    qemu_mutex_destroy(&t->lock);
    memset(t, 0, sizeof(*t));
}

static inline uint64_t block_number(uint64_t address, unsigned class)
{
    return class == CLASS_ALL ? 0 : address >> (class + VIOMMU_PAGE_BITS);
}

/* The key of a block without its access bits. */
static inline uint64_t block_key(uint64_t number, unsigned class)
{
    uint64_t base = class == CLASS_ALL ? 0 : number << (class + VIOMMU_PAGE_BITS);

    return base | (uint64_t)class << KEY_CLASS_SHIFT | KEY_VALID;
}

/*
 * Neighbouring blocks of one size fall into neighbouring sets; sizes start at different
 * places.
 */
static inline uint32_t set_index(uint64_t number, unsigned class)
{
    return (uint32_t)(number ^ number >> IOTLB_SETS_BITS ^ class * 0x9eu) &
           (IOTLB_SETS - 1);
}

static inline unsigned key_class(uint64_t key)
{
    return key >> KEY_CLASS_SHIFT & 0xff;
}

/*
 * Finds `want` in one set. False also while a writer is in the set: the daemon can answer
 * as well.
 */
static inline bool probe(const IotlbSet *set, uint64_t want, uint32_t access,
                         IotlbWay *found)
{
    uint32_t before = qatomic_load_acquire(&set->sequence);
    unsigned i;

    for (i = 0; i < IOTLB_WAYS; i++) {
        uint64_t key = qatomic_read(&set->way[i].key);

        if ((key & ~KEY_ACCESS) == want && (key & access) == access) {
            found->key = key;
            found->output = qatomic_read(&set->way[i].output);
            /* The sequence is looked at again after the way was read: write_way. */
            smp_rmb();
            return !(before & 1) && qatomic_read(&set->sequence) == before;
        }
    }
    return false;
}

bool viommu_iotlb_lookup(const Iotlb *t, uint64_t address, uint32_t access, IotlbHit *hit)
{
    uint64_t classes = qatomic_load_acquire(&t->classes);

    while (classes) {
        unsigned class = ctz64(classes);
        uint64_t number = block_number(address, class);
        IotlbWay way;

        if (probe(&t->sets[set_index(number, class)], block_key(number, class), access,
                  &way)) {
            hit->output = way.output;
            hit->log2_size = class + VIOMMU_PAGE_BITS;
            hit->access = way.key & KEY_ACCESS;
            return true;
        }
        classes &= classes - 1;
    }
    return false;
}

static void write_way(IotlbSet *set, unsigned way, uint64_t key, uint64_t output)
{
    qatomic_set(&set->sequence, set->sequence + 1);
    /* Odd before the way changes: probe. */
    smp_wmb();
    qatomic_set(&set->way[way].key, key);
    qatomic_set(&set->way[way].output, output);
    /* Even after it has changed. */
    smp_wmb();
    qatomic_set(&set->sequence, set->sequence + 1);
}

static void account(Iotlb *t, uint64_t key, bool add)
{
    unsigned class = key_class(key);
    uint64_t bit = 1ull << class;

    if (add) {
        t->entries++;
        if (t->count[class]++ == 0) {
            qatomic_store_release(&t->classes, t->classes | bit);
        }
    } else {
        t->entries--;
        if (--t->count[class] == 0) {
            qatomic_set(&t->classes, t->classes & ~bit);
        }
    }
}

static void drop_way(Iotlb *t, uint32_t set, unsigned way)
{
    account(t, t->sets[set].way[way].key, false);
    write_way(&t->sets[set], way, 0, 0);
}

/* The same block again, else a free way, else the next in turn. */
static unsigned choose_way(IotlbSet *set, uint64_t key)
{
    unsigned i, way = IOTLB_WAYS;

    for (i = 0; i < IOTLB_WAYS; i++) {
        if ((set->way[i].key & ~KEY_ACCESS) == (key & ~KEY_ACCESS)) {
            return i;
        }
        if (!set->way[i].key) {
            way = i;
        }
    }
    if (way == IOTLB_WAYS) {
        way = set->victim;
        set->victim = (set->victim + 1) % IOTLB_WAYS;
    }
    return way;
}

void viommu_iotlb_insert_locked(Iotlb *t, uint64_t input, uint64_t output,
                                uint32_t log2_size, uint32_t access, uint32_t space,
                                uint32_t sub)
{
    unsigned class = log2_size - VIOMMU_PAGE_BITS;
    uint64_t number, key;
    uint32_t index;
    unsigned way;
    IotlbSet *set;

    if (log2_size < VIOMMU_PAGE_BITS || log2_size > 64) {
        return;
    }
    if (!t->sets) {
        t->tags = g_new0(IotlbTag, IOTLB_SETS * IOTLB_WAYS);
        t->sets = qemu_memalign(sizeof(IotlbSet), IOTLB_SETS * sizeof(IotlbSet));
        memset(t->sets, 0, IOTLB_SETS * sizeof(IotlbSet));
    }
    number = block_number(input, class);
    key = block_key(number, class) | (access & KEY_ACCESS);
    index = set_index(number, class);
    set = &t->sets[index];
    way = choose_way(set, key);
    if (set->way[way].key) {
        account(t, set->way[way].key, false);
    }
    write_way(set, way, key, output);
    t->tags[index * IOTLB_WAYS + way] = (IotlbTag) { .space = space, .sub = sub };
    account(t, key, true);
}

static bool tag_matches(const IotlbTag *tag, const IotlbScope *scope)
{
    return (scope->space == IOTLB_ANY || scope->space == tag->space) &&
           (scope->sub == IOTLB_ANY || scope->sub == tag->sub);
}

static bool blocks_overlap(uint64_t key, const IotlbScope *scope)
{
    unsigned log2_size = MAX(key_class(key) + VIOMMU_PAGE_BITS, scope->log2_size);

    return log2_size >= 64 || (key ^ scope->address) >> log2_size == 0;
}

static uint32_t drop_matching(Iotlb *t, uint32_t index, const IotlbScope *scope)
{
    uint32_t dropped = 0;
    unsigned i;

    for (i = 0; i < IOTLB_WAYS; i++) {
        uint64_t key = t->sets[index].way[i].key;

        if (key && tag_matches(&t->tags[index * IOTLB_WAYS + i], scope) &&
            blocks_overlap(key, scope)) {
            drop_way(t, index, i);
            dropped++;
        }
    }
    return dropped;
}

/* How many blocks of a class the scope touches; 0 = more than PROBE_LIMIT. */
static unsigned blocks_touched(unsigned class, const IotlbScope *scope)
{
    unsigned log2_size = class + VIOMMU_PAGE_BITS;
    unsigned excess = scope->log2_size > log2_size ? scope->log2_size - log2_size : 0;

    return excess > ctz32(PROBE_LIMIT) ? 0 : 1u << excess;
}

/* One class: its few candidate sets. */
static uint32_t invalidate_class(Iotlb *t, unsigned class, unsigned blocks,
                                 const IotlbScope *scope)
{
    uint64_t first = block_number(scope->address, class) & ~(uint64_t)(blocks - 1);
    uint32_t dropped = 0;
    unsigned i;

    for (i = 0; i < blocks; i++) {
        dropped += drop_matching(t, set_index(first + i, class), scope);
    }
    return dropped;
}

uint32_t viommu_iotlb_invalidate(Iotlb *t, const IotlbScope *scope)
{
    uint32_t dropped = 0, i;
    uint64_t classes;
    bool scan = false;

    qemu_mutex_lock(&t->lock);
    for (classes = t->classes; classes; classes &= classes - 1) {
        unsigned blocks = blocks_touched(ctz64(classes), scope);

        if (blocks) {
            dropped += invalidate_class(t, ctz64(classes), blocks, scope);
        } else {
            scan = true;
        }
    }
    for (i = 0; scan && i < IOTLB_SETS && t->entries; i++) {
        dropped += drop_matching(t, i, scope);
    }
    qemu_mutex_unlock(&t->lock);
    return dropped;
}

uint32_t viommu_iotlb_flush(Iotlb *t)
{
    const IotlbScope all = { .space = IOTLB_ANY, .sub = IOTLB_ANY, .log2_size = 64 };

    return viommu_iotlb_invalidate(t, &all);
}

static inline uint32_t epoch_slot(uint32_t space)
{
    return (space ^ space >> 8 ^ space >> 16) & (IOTLB_EPOCH_SLOTS - 1);
}

/*
 * Epochs wrap. A slot that lags by half the circle would look like the future, so lagging
 * slots are pulled along.
 */
static void pull_along(IotlbEpochs *e, uint32_t epoch)
{
    unsigned i;

    for (i = 0; i < IOTLB_EPOCH_SLOTS; i++) {
        if ((int32_t)(epoch - qatomic_read(&e->slot[i])) > (1 << 30)) {
            qatomic_set(&e->slot[i], epoch - (1 << 30));
        }
    }
    if ((int32_t)(epoch - qatomic_read(&e->all)) > (1 << 30)) {
        qatomic_set(&e->all, epoch - (1 << 30));
    }
}

void viommu_iotlb_epochs_note(IotlbEpochs *e, uint32_t space, uint32_t epoch)
{
    if ((epoch & 0xffffff) == 0) {
        pull_along(e, epoch);
    }
    if (space == IOTLB_ANY) {
        qatomic_set(&e->all, epoch);
    } else {
        qatomic_set(&e->slot[epoch_slot(space)], epoch);
    }
    /* Last: a reader of this epoch sees what it invalidated. */
    qatomic_store_release(&e->newest, epoch);
    /*
     * Pairs with the mutex of a fill: it is seen there, or the caller's search finds the
     * fill.
     */
    smp_mb();
}

bool viommu_iotlb_epochs_fresh(const IotlbEpochs *e, uint32_t space, uint32_t epoch)
{
    return (int32_t)(epoch - qatomic_read(&e->all)) >= 0 &&
           (int32_t)(epoch - qatomic_read(&e->slot[epoch_slot(space)])) >= 0;
}
