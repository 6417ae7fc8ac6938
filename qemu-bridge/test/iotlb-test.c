/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The IOTLB beside a naive list of blocks, and under threads. Prints what it did; exits 1
 * at the first difference.
 */
#include "compat.h"
#include "iotlb.h"
#include "mutex.h"

#define CHECK(condition, ...) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "iotlb-test: " __VA_ARGS__); \
            fprintf(stderr, " (%s)\n", #condition); \
            exit(1); \
        } \
    } while (0)

static uint64_t random_state = 0x9e3779b97f4a7c15ull;

static uint64_t next_random(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

/*
 * The reference: every block ever inserted that no invalidation has met. The cache may
 * hold fewer blocks, never others.
 */
#define MODEL_SIZE 4096

typedef struct Block {
    uint64_t input, output;
    uint32_t log2_size, access, space, sub;
} Block;

static Block model[MODEL_SIZE];
static unsigned model_count;

static bool contains(uint64_t base, uint32_t log2_size, uint64_t address)
{
    return log2_size >= 64 || base >> log2_size == address >> log2_size;
}

static void model_insert(const Block *b)
{
    unsigned i;

    for (i = 0; i < model_count; i++) {
        if (model[i].log2_size == b->log2_size && model[i].input == b->input) {
            model[i] = *b;
            return;
        }
    }
    if (model_count < MODEL_SIZE) {
        model[model_count++] = *b;
    }
}

static void model_invalidate(const IotlbScope *s)
{
    unsigned i, kept = 0;

    for (i = 0; i < model_count; i++) {
        uint32_t larger = MAX(model[i].log2_size, s->log2_size);
        bool hit = contains(model[i].input, larger, s->address) &&
                   (s->space == IOTLB_ANY || s->space == model[i].space) &&
                   (s->sub == IOTLB_ANY || s->sub == model[i].sub);

        if (!hit) {
            model[kept++] = model[i];
        }
    }
    model_count = kept;
}

static bool model_allows(uint64_t address, uint32_t access, const IotlbHit *hit)
{
    unsigned i;

    for (i = 0; i < model_count; i++) {
        const Block *b = &model[i];

        if (b->log2_size == hit->log2_size && contains(b->input, b->log2_size, address) &&
            b->output == hit->output && b->access == hit->access &&
            (b->access & access) == access) {
            return true;
        }
    }
    return false;
}

static const uint8_t sizes[] = { 12, 12, 12, 12, 12, 13, 16, 21, 21, 30, 39, 52, 63, 64 };

static uint64_t random_address(void)
{
    /* Few distinct places, so that blocks of different sizes meet. */
    return (next_random() & 0x3ff) << 12 | (next_random() & 3) << 30 |
           (next_random() & 1) << 47 | (next_random() & 0xfff);
}

static uint64_t block_base(uint64_t address, uint32_t log2_size)
{
    return log2_size >= 64 ? 0 : address >> log2_size << log2_size;
}

static void random_insert(Iotlb *t)
{
    uint32_t log2_size = sizes[next_random() % ARRAY_SIZE(sizes)];
    Block b = {
        .input = block_base(random_address(), log2_size),
        .output = block_base(next_random(), log2_size),
        .log2_size = log2_size,
        .access = 1 + next_random() % 3,
        .space = next_random() % 4,
        .sub = next_random() % 3 ? next_random() % 3 : IOTLB_ANY,
    };

    qemu_mutex_lock(&t->lock);
    viommu_iotlb_insert_locked(t, b.input, b.output, b.log2_size, b.access, b.space,
                               b.sub);
    qemu_mutex_unlock(&t->lock);
    model_insert(&b);
}

static void random_invalidate(Iotlb *t)
{
    static const uint8_t scopes[] = { 12, 12, 13, 15, 18, 21, 30, 48, 64, 255 };
    IotlbScope s = {
        .space = next_random() % 3 ? next_random() % 4 : IOTLB_ANY,
        .sub = next_random() % 2 ? next_random() % 3 : IOTLB_ANY,
        .address = random_address(),
        .log2_size = scopes[next_random() % ARRAY_SIZE(scopes)],
    };

    viommu_iotlb_invalidate(t, &s);
    model_invalidate(&s);
}

static void against_reference(void)
{
    unsigned step, hits = 0, lookups = 0;
    IotlbHit hit;
    Iotlb t;

    viommu_iotlb_init(&t);
    CHECK(!viommu_iotlb_lookup(&t, 0, IOTLB_READ, &hit), "an empty cache answers");
    for (step = 0; step < 400000; step++) {
        unsigned what = next_random() % 64;

        if (what < 16) {
            random_insert(&t);
        } else if (what == 16) {
            random_invalidate(&t);
        } else {
            uint64_t address = random_address();
            uint32_t access = next_random() % 4;

            lookups++;
            if (viommu_iotlb_lookup(&t, address, access, &hit)) {
                hits++;
                CHECK(model_allows(address, access, &hit),
                      "step %u: a translation that is not there", step);
            }
        }
    }
    CHECK(hits > lookups / 20, "%u hits in %u look-ups", hits, lookups);
    viommu_iotlb_flush(&t);
    CHECK(t.entries == 0 && t.classes == 0, "%u entries left after a flush", t.entries);
    viommu_iotlb_destroy(&t);
    printf("iotlb-test: reference: %u look-ups, %u hits\n", lookups, hits);
}

/* What was inserted and not invalidated is found: nothing is dropped without need. */
static void keeps_what_fits(void)
{
    IotlbScope one = { .space = 1, .sub = IOTLB_ANY, .address = 0x5000, .log2_size = 12 };
    IotlbHit hit;
    Iotlb t;
    uint64_t i;

    viommu_iotlb_init(&t);
    qemu_mutex_lock(&t.lock);
    for (i = 0; i < IOTLB_SETS * 2; i++) {
        viommu_iotlb_insert_locked(&t, i << 12, (i + 7) << 12, 12, IOTLB_RW, 1, 2);
    }
    viommu_iotlb_insert_locked(&t, 0, 0, 11, IOTLB_RW, 1, 2);
    viommu_iotlb_insert_locked(&t, 0, 0, 65, IOTLB_RW, 1, 2);
    qemu_mutex_unlock(&t.lock);
    CHECK(t.entries == IOTLB_SETS * 2, "%u entries", t.entries);
    CHECK(viommu_iotlb_invalidate(&t, &one) == 1, "a page invalidation");
    for (i = 0; i < IOTLB_SETS * 2; i++) {
        CHECK(viommu_iotlb_lookup(&t, i << 12 | 0xabc, IOTLB_RW, &hit) == (i != 5),
              "page %" PRIu64, i);
        CHECK(i == 5 || hit.output == (i + 7) << 12, "page %" PRIu64 " leads elsewhere",
              i);
    }
    viommu_iotlb_destroy(&t);
    printf("iotlb-test: %u neighbouring pages kept\n", IOTLB_SETS * 2);
}

static void epochs(void)
{
    IotlbEpochs e = { 0 };
    uint32_t epoch;

    CHECK(viommu_iotlb_epochs_fresh(&e, 5, 0), "the first answer");
    viommu_iotlb_epochs_note(&e, 5, 10);
    CHECK(!viommu_iotlb_epochs_fresh(&e, 5, 9) && viommu_iotlb_epochs_fresh(&e, 5, 10),
          "an older answer of the space");
    CHECK(viommu_iotlb_epochs_fresh(&e, 6, 9), "an older answer of another space");
    viommu_iotlb_epochs_note(&e, IOTLB_ANY, 20);
    CHECK(!viommu_iotlb_epochs_fresh(&e, 6, 19) && viommu_iotlb_epochs_fresh(&e, 6, 20),
          "an older answer of any space");
    /* Once round: a slot that nothing touches must not come to look like the future. */
    for (epoch = 0x1000000; epoch; epoch += 0x1000000) {
        viommu_iotlb_epochs_note(&e, 7, epoch);
        CHECK(viommu_iotlb_epochs_fresh(&e, 5, epoch) &&
                  viommu_iotlb_epochs_fresh(&e, 200, epoch),
              "at 0x%x", epoch);
        CHECK(!viommu_iotlb_epochs_fresh(&e, 7, epoch - 1), "at 0x%x", epoch);
    }
    viommu_iotlb_epochs_note(&e, 7, 3);
    CHECK(!viommu_iotlb_epochs_fresh(&e, 7, 0xfffffff0u) &&
              viommu_iotlb_epochs_fresh(&e, 7, 4),
          "across the wrap");
    printf("iotlb-test: epochs\n");
}

/*
 * Readers against writers: an answer is always one that was put there, never half of two.
 */
#define RACE_PAGES 8

static bool race_over;
static unsigned race_hits;

static void *reader(void *opaque)
{
    Iotlb *t = opaque;
    unsigned hits = 0;
    IotlbHit hit;
    uint64_t i;

    for (i = 0; !qatomic_read(&race_over); i++) {
        uint64_t page = i % RACE_PAGES;

        /* All pages collide in one set. */
        if (viommu_iotlb_lookup(t, page << (12 + IOTLB_SETS_BITS * 2), IOTLB_READ,
                                &hit)) {
            CHECK((hit.output >> 40) == page &&
                      (hit.output >> 12 & 1) == (hit.access >> 1),
                  "page %" PRIu64 " -> %" PRIx64 " access %u", page, hit.output,
                  hit.access);
            hits++;
        }
    }
    qatomic_add(&race_hits, hits);
    return NULL;
}

static void *writer(void *opaque)
{
    Iotlb *t = opaque;
    uint64_t i;

    for (i = 0; i < 2000000; i++) {
        uint64_t page = i * 5 % RACE_PAGES, odd = i >> 3 & 1;

        qemu_mutex_lock(&t->lock);
        viommu_iotlb_insert_locked(t, page << (12 + IOTLB_SETS_BITS * 2),
                                   page << 40 | odd << 12, 12, 1 | odd << 1, 0, 0);
        qemu_mutex_unlock(&t->lock);
        if (i % 64 == 0) {
            viommu_iotlb_flush(t);
        }
    }
    return NULL;
}

static void under_threads(void)
{
    pthread_t readers[2], writers[2];
    unsigned i;
    Iotlb t;

    viommu_iotlb_init(&t);
    for (i = 0; i < 2; i++) {
        pthread_create(&readers[i], NULL, reader, &t);
        pthread_create(&writers[i], NULL, writer, &t);
    }
    for (i = 0; i < 2; i++) {
        pthread_join(writers[i], NULL);
    }
    qatomic_set(&race_over, true);
    for (i = 0; i < 2; i++) {
        pthread_join(readers[i], NULL);
    }
    CHECK(race_hits > 1000, "readers hardly hit: %u", race_hits);
    viommu_iotlb_destroy(&t);
    printf("iotlb-test: threads: %u hits, none torn\n", race_hits);
}

int main(void)
{
    against_reference();
    keeps_what_fits();
    epochs();
    under_threads();
    return 0;
}
