/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is one request (refusals.c), under the sequences in which QEMU's memory API asks
 * for translations: it holds a read-side critical section from the first to the last of
 * them. No test waits, and none looks at a clock.
 */
#include "compat.h"
#include "refusals.h"

#define READ 1u
#define WRITE 2u
#define PAGE 0x1000u

/* QEMU's part of RCU that rcu_read_lock() and rcu_read_unlock() use. */
unsigned long rcu_gp_ctr = 1;
QemuEvent rcu_gp_event;
QEMU_DEFINE_CO_TLS(struct rcu_reader_data, rcu_reader)
void qemu_event_set(QemuEvent *event) {}

static int space, other_space;
static unsigned recorded;

/*
 * Whether a grace period that begins in the middle of a section has to wait for its end.
 */
static bool counts_as_old(void)
{
    unsigned long ctr = qatomic_read(&get_ptr_rcu_reader()->ctr);

    return ctr && ctr != rcu_gp_ctr;
}

/* Where a look would say that the access passes by now. */
static uint64_t passes_from = UINT64_MAX;

/* A translation that the daemon would refuse, from `passes_from` on let through. */
static void translate(const void *who, uint64_t address, uint32_t access)
{
    switch (viommu_refusal_known(who, address, access)) {
    case VIOMMU_REFUSED_ALREADY:
        return;
    case VIOMMU_REFUSED_PERHAPS:
        if (address < passes_from) {
            return;
        }
        break;
    case VIOMMU_REFUSED_NOT:
        break;
    }
    if (address < passes_from) {
        recorded++;
        viommu_refusal_note(who, address, access, 0);
    }
}

/*
 * flatview_read and flatview_write, in pieces as large as their alignment and four bytes
 * allow.
 */
static void access_nothing(const void *who, uint64_t address, uint32_t length,
                           uint32_t access)
{
    while (length) {
        uint32_t piece = MIN(MIN(length, 4), address & -address ? address & -address : 4);

        translate(who, address, access);
        piece = pow2floor(piece);
        address += piece;
        length -= piece;
    }
}

/* address_space_read_full and address_space_write. */
static void request(uint64_t address, uint32_t length, uint32_t access)
{
    rcu_read_lock();
    access_nothing(&space, address, length, access);
    rcu_read_unlock();
}

/*
 * address_space_map for reading: translated to see what is there, and read into a bounce
 * buffer.
 */
static void map_for_reading(uint64_t address, uint32_t length)
{
    rcu_read_lock();
    translate(&space, address, READ);
    access_nothing(&space, address, length, READ);
    rcu_read_unlock();
}

static void expect(unsigned faults, const char *what)
{
    if (recorded != faults) {
        fprintf(stderr, "refusals-test: %s: %u faults, not %u\n", what, recorded, faults);
        exit(1);
    }
    recorded = 0;
}

static void one_request(void)
{
    uint32_t length;

    for (length = 1; length <= 64; length++) {
        request(0x5000, length, READ);
        expect(1, "a read");
        request(0x5003, length, WRITE);
        expect(1, "a write that is not aligned");
        map_for_reading(0x5000, length);
        expect(1, "a buffer mapped for reading");
    }
    request(0x5000, PAGE, READ);
    expect(1, "a page");
    request(0x5ff0, PAGE + 32, READ);
    expect(3, "a read of three pages");
}

static void separate_requests(void)
{
    request(0x5000, 4, READ);
    request(0x5000, 4, READ);
    expect(2, "the same read twice");
    request(0x5000, 4, READ);
    request(0x5004, 4, READ);
    expect(2, "a read, and another behind it");
    request(0x5000, 64, READ);
    request(0x5000, 64, READ);
    request(0x5040, 64, READ);
    expect(3, "long reads");
    request(0x5000, 4, READ);
    request(0x5000, 4, WRITE);
    expect(2, "a read and a write");
    rcu_read_lock();
    translate(&space, 0x5000, READ);
    translate(&other_space, 0x5000, READ);
    expect(2, "two devices");
    rcu_read_unlock();
}

/*
 * A section around requests: of a virtqueue, or of TCG's execution loop with guest code
 * in between.
 */
static void in_a_longer_section(void)
{
    rcu_read_lock();
    request(0x5000, 64, READ);
    expect(1, "a read");
    request(0x5000, 64, READ);
    expect(1, "the same read again");
    map_for_reading(0x6000, 64);
    expect(1, "a buffer mapped for reading");
    request(0x7000, 8, READ);
    passes_from = 0x7008;
    request(0x7008, 8, READ);
    passes_from = UINT64_MAX;
    expect(1, "a read behind it, of what has been mapped since");
    request(0x7008, 8, READ);
    request(0x7000, 8, READ);
    expect(2, "the second once more, and the first");
    request(0x8000, 4, READ);
    viommu_refusal_forget();
    request(0x8000, 4, READ);
    viommu_refusal_forget();
    request(0x8004, 4, READ);
    expect(3, "the guest ran in between");
    request(0x9000, 4, READ);
    request(0x9008, 4, READ);
    expect(2, "two that do not touch");
    rcu_read_unlock();
    request(0x7008, 8, READ);
    expect(1, "the next section");
}

/*
 * Where the size of each piece is known (interrupt-range.c), only what stands right
 * behind a refused piece goes on with it.
 */
static void pieces_of_known_size(void)
{
    rcu_read_lock();
    rcu_read_lock();
    viommu_refusal_note(&space, 0x5000, WRITE, 8);
    g_assert(viommu_refusal_goes_on(&space, 0x5008, WRITE, 4));
    g_assert(!viommu_refusal_goes_on(&space, 0x5008, WRITE, 4));
    g_assert(viommu_refusal_goes_on(&space, 0x500c, WRITE, 4));
    g_assert(!viommu_refusal_goes_on(&space, 0x5010, READ, 4));
    g_assert(!viommu_refusal_goes_on(&other_space, 0x5010, WRITE, 4));
    viommu_refusal_forget();
    g_assert(!viommu_refusal_goes_on(&space, 0x5010, WRITE, 4));
    rcu_read_unlock();
    rcu_read_unlock();
    rcu_read_lock();
    viommu_refusal_note(&space, 0x5000, WRITE, 8);
    g_assert(viommu_refusal_goes_on(&space, 0x5020, WRITE, 4));
    rcu_read_unlock();
    rcu_read_lock();
    g_assert(!viommu_refusal_goes_on(&space, 0x5024, WRITE, 4));
    rcu_read_unlock();
}

/* Others may wait for the end of a section that has the mark, and it has an end. */
static void sections(void)
{
    rcu_read_lock();
    g_assert(!counts_as_old());
    translate(&space, 0x5000, READ);
    g_assert(counts_as_old());
    rcu_read_unlock();
    g_assert(!get_ptr_rcu_reader()->ctr);
    rcu_read_lock();
    g_assert(!counts_as_old());
    rcu_read_unlock();
    /* Outside of any there is nothing to mark. */
    viommu_refusal_note(&space, 0x5000, READ, 0);
    g_assert(!get_ptr_rcu_reader()->ctr);
}

int main(void)
{
    sections();
    recorded = 0;
    one_request();
    separate_requests();
    in_a_longer_section();
    pieces_of_known_size();
    printf("refusals: ok\n");
    return 0;
}
