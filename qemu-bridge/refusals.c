/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A request of a device faults once. QEMU asks for its translation more often: it maps an access
 * before it makes it, and makes an access to nothing in pieces of at most four bytes, each
 * translated anew (system/physmem.c). It says neither where a request begins nor how long it is.
 *
 * But it does all of this in one RCU read-side critical section (address_space_read_full,
 * address_space_write, address_space_map, address_space_access_valid), in which the tables that it
 * goes by stay as they are. So a refusal marks the section that its thread is in, and what comes to
 * the same page in a section that has the mark is the same request. The mark is a bit of the
 * thread's own reader counter, which leaving the section clears: rcu_read_lock() never sets it, and
 * all that others read there is whether the section began before their grace period. With the mark
 * it always counts as begun before, so they wait for its end.
 *
 * Where the section is not QEMU's memory API's own but a longer one around it (a virtqueue's, or
 * that of TCG's execution loop) it may hold many requests, and guest code in between. There an
 * access has to stand where the next piece would, and even so it is refused with the last only if
 * it would be refused now. (What a virtio device reads of a ring in one go has no section within
 * the virtqueue's, and counts as one request for each page.)
 */
#include "compat.h"
#include "refusals.h"

/* rcu_read_lock() stores 32 bits of the grace period's number. */
#define SECTION_MARK (1ul << (sizeof(unsigned long) * 8 - 1))
/* The most that QEMU's memory API hands over at once of an access to what is no RAM. */
#define MAX_PIECE 8

typedef struct Refusal {
    const void *space;
    hwaddr address;
    uint32_t access;
    bool again; /* came twice: as it was mapped, and as it was made */
} Refusal;

static __thread Refusal last;

static bool section_is_marked(void)
{
    return get_ptr_rcu_reader()->ctr & SECTION_MARK;
}

void viommu_refusal_note(const void *space, hwaddr address, uint32_t access)
{
    struct rcu_reader_data *reader = get_ptr_rcu_reader();

    if (!reader->depth) {
        return;
    }
    qatomic_set(&reader->ctr, reader->ctr | SECTION_MARK);
    last = (Refusal) { .space = space, .address = address, .access = access };
}

ViommuRefused viommu_refusal_known(const void *space, hwaddr address, uint32_t access)
{
    if (!section_is_marked() || last.space != space || last.access != access ||
        (address ^ last.address) >> VIOMMU_PAGE_BITS) {
        return VIOMMU_REFUSED_NOT;
    }
    if (get_ptr_rcu_reader()->depth == 1) {
        return VIOMMU_REFUSED_ALREADY;
    }
    if (address == last.address && !last.again) {
        last.again = true;
        return VIOMMU_REFUSED_PERHAPS;
    }
    if (address - last.address - 1 < MAX_PIECE) {
        last.address = address;
        last.again = true;
        return VIOMMU_REFUSED_PERHAPS;
    }
    return VIOMMU_REFUSED_NOT;
}
