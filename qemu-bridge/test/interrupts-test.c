/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The cache of remapped interrupts: what is kept, what is dropped, and look-ups while
 * another thread changes it. `time`: how long a look-up takes.
 */
#include "compat.h"
#include "interrupt-cache.h"
#include "mutex.h"

#define CHECK(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "interrupts-test: %d: %s\n", __LINE__, #condition); \
            exit(1); \
        } \
    } while (0)

#define ADDRESS 0xfee00010ull
#define SOURCE 0x10

static InterruptCache cache;

static ViommuMessage asked(uint32_t handle)
{
    return (ViommuMessage) { .address = ADDRESS | handle << 5, .data = 0 };
}

/* Both halves say which handle it is: a message that is torn shows. */
static ViommuMessage answer(uint32_t handle, uint32_t round)
{
    return (ViommuMessage) {
        .address = (uint64_t)(round << 8) << 32 | 0xfee00000 | handle,
        .data = handle ^ round,
    };
}

static bool keep(uint16_t source, uint32_t handle, uint32_t epoch)
{
    const ViommuMessage from = asked(handle), to = answer(handle, 0);

    return viommu_interrupt_cache_keep(&cache, source, &from, &to, handle + 1, epoch,
                                       false);
}

static bool is_kept(uint16_t source, uint32_t handle)
{
    const ViommuMessage to = answer(handle, 0);
    ViommuMessage m = asked(handle);

    if (!viommu_interrupt_cache_lookup(&cache, source, &m)) {
        CHECK(m.address == asked(handle).address && m.data == 0);
        return false;
    }
    CHECK(m.address == to.address && m.data == to.data);
    return true;
}

static void test_messages(void)
{
    ViommuMessage m = asked(1), odd = { ADDRESS, 0x10000 }, high = { ADDRESS, 0 };

    CHECK(!is_kept(SOURCE, 1));
    CHECK(keep(SOURCE, 1, 0));
    CHECK(is_kept(SOURCE, 1));
    CHECK(!is_kept(SOURCE + 1, 1));
    CHECK(!is_kept(SOURCE, 2));
    m.data = 1;
    CHECK(!viommu_interrupt_cache_lookup(&cache, SOURCE, &m));
    /* Nothing of these would fit into the key. */
    high.address |= 1ull << 32;
    CHECK(viommu_interrupt_cache_keep(&cache, SOURCE, &odd, &m, 1, 0, false));
    CHECK(viommu_interrupt_cache_keep(&cache, SOURCE, &high, &m, 1, 0, false));
    CHECK(!viommu_interrupt_cache_lookup(&cache, SOURCE, &odd));
    CHECK(!viommu_interrupt_cache_lookup(&cache, SOURCE, &high));
    viommu_interrupt_cache_flush(&cache);
    CHECK(!is_kept(SOURCE, 1));
}

static void test_invalidation(void)
{
    const ViommuMessage none = { 0xfee00000, 0x41 };
    ViommuMessage m = none;
    uint32_t handle;

    for (handle = 0; handle < 16; handle++) {
        CHECK(keep(SOURCE, handle, 0));
    }
    CHECK(viommu_interrupt_cache_keep(&cache, SOURCE, &none, &none, 0, 0, false));
    viommu_interrupt_cache_invalidate(&cache, 5, 0, 1);
    viommu_interrupt_cache_invalidate(&cache, 8, 2, 2);
    for (handle = 0; handle < 16; handle++) {
        CHECK(is_kept(SOURCE, handle) == (handle != 5 && (handle < 8 || handle > 11)));
    }
    /* What comes from no entry goes with all only. */
    viommu_interrupt_cache_invalidate(&cache, 0, 15, 3);
    CHECK(!is_kept(SOURCE, 0));
    CHECK(viommu_interrupt_cache_lookup(&cache, SOURCE, &m));
    viommu_interrupt_cache_invalidate(&cache, 0, 16, 4);
    CHECK(!viommu_interrupt_cache_lookup(&cache, SOURCE, &m));
}

static void test_epochs(void)
{
    viommu_interrupt_cache_invalidate(&cache, 0, 16, 0xffffffff);
    CHECK(!keep(SOURCE, 1, 0xfffffffe));
    CHECK(!is_kept(SOURCE, 1));
    CHECK(keep(SOURCE, 1, 0xffffffff));
    CHECK(keep(SOURCE, 2, 1));
    CHECK(is_kept(SOURCE, 1) && is_kept(SOURCE, 2));
    viommu_interrupt_cache_invalidate(&cache, 0, 16, 0);
    CHECK(!keep(SOURCE, 1, 0xffffffff));
}

static void test_pass_all(void)
{
    ViommuMessage m = { ADDRESS, 0x12345678 };

    CHECK(viommu_interrupt_cache_keep(&cache, SOURCE, &m, &m, 0, 0, true));
    CHECK(viommu_interrupt_cache_lookup(&cache, 0xffff, &m));
    CHECK(m.address == ADDRESS && m.data == 0x12345678);
    viommu_interrupt_cache_invalidate(&cache, 7, 15, 1);
    CHECK(viommu_interrupt_cache_lookup(&cache, 0xffff, &m));
    viommu_interrupt_cache_invalidate(&cache, 0, 16, 2);
    CHECK(!viommu_interrupt_cache_lookup(&cache, 0xffff, &m));
    CHECK(!viommu_interrupt_cache_keep(&cache, SOURCE, &m, &m, 0, 1, true));
    CHECK(!viommu_interrupt_cache_lookup(&cache, SOURCE, &m));
}

/* More than fits: what is found is right, and the newest is found. */
static void test_many(void)
{
    uint32_t handle, found = 0;

    for (handle = 0; handle < 32768; handle++) {
        CHECK(keep(SOURCE, handle, 2));
        CHECK(is_kept(SOURCE, handle));
    }
    for (handle = 0; handle < 32768; handle++) {
        found += is_kept(SOURCE, handle);
    }
    CHECK(found > INTERRUPT_SETS && found <= INTERRUPT_SETS * INTERRUPT_WAYS);
    printf("interrupts-test: %u of 32768 are kept\n", found);
}

static bool stop;

static void *change(void *opaque)
{
    uint32_t round;

    for (round = 0; !qatomic_read(&stop); round++) {
        const ViommuMessage from = asked(round % 4), to = answer(round % 4, round);

        viommu_interrupt_cache_keep(&cache, SOURCE, &from, &to, round % 4 + 1, 2, false);
        if (round % 3 == 0) {
            viommu_interrupt_cache_invalidate(&cache, round % 4, 0, 2);
        }
    }
    return NULL;
}

static void test_threads(void)
{
    pthread_t thread;
    uint32_t i, found = 0;

    pthread_create(&thread, NULL, change, NULL);
    for (i = 0; i < 3000000; i++) {
        ViommuMessage m = asked(i % 4);

        if (viommu_interrupt_cache_lookup(&cache, SOURCE, &m)) {
            uint32_t round = m.data ^ i % 4;

            CHECK(m.address == answer(i % 4, round & 0xffffff).address);
            found++;
        }
    }
    qatomic_set(&stop, true);
    pthread_join(thread, NULL);
    CHECK(found > 0);
    printf("interrupts-test: %u of %u found under threads\n", found, i);
}

static void time_hits(void)
{
    const unsigned rounds = 50000000;
    struct timespec from, to;
    uint64_t sum = 0;
    unsigned i;

    viommu_interrupt_cache_flush(&cache);
    for (i = 0; i < 64; i++) {
        keep(SOURCE, i, 2);
    }
    clock_gettime(CLOCK_MONOTONIC, &from);
    for (i = 0; i < rounds; i++) {
        ViommuMessage m = asked(i & 63);

        CHECK(viommu_interrupt_cache_lookup(&cache, SOURCE, &m));
        sum += m.data;
    }
    clock_gettime(CLOCK_MONOTONIC, &to);
    printf("interrupts-test: a hit takes %.1f ns (%" PRIu64 ")\n",
           ((to.tv_sec - from.tv_sec) * 1e9 + (to.tv_nsec - from.tv_nsec)) / rounds, sum);
}

int main(int argc, char **argv)
{
    viommu_interrupt_cache_init(&cache);
    test_messages();
    test_invalidation();
    test_epochs();
    cache.epoch = 0;
    test_pass_all();
    test_many();
    test_threads();
    if (argc > 1) {
        time_hits();
    }
    viommu_interrupt_cache_destroy(&cache);
    return 0;
}
