/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A request of a device faults once. QEMU asks for its translation more often: it maps an
 * access before it makes it, and makes an access to nothing in pieces of at most four
 * bytes, each translated anew (system/physmem.c). It says neither where a request begins
 * nor how long it is.
 *
 * But QEMU does all of this in one RCU read-side critical section
 * (address_space_read_full, address_space_write, address_space_map,
 * address_space_access_valid), in which the tables that it goes by stay as they are. So a
 * refusal marks the section that its thread is in, and what comes to the same page in a
 * section that has the mark is the same request. The mark is a bit of the thread's own
 * reader counter, which leaving the section clears. rcu_read_lock() never sets it, and
 * others only read there whether the section began before their grace period. With the
 * mark it always counts as begun before, so a grace period waits for the end of the
 * section.
 *
 * A longer section around QEMU's own (of a virtqueue, or of TCG's execution loop) may
 * hold many requests, and guest code in between. There an access has to stand where the
 * next piece would, and even so it is refused with the last one only if it would be
 * refused now. Where the guest is seen to run in between, because it accesses our
 * registers or stores to a tracked page, what follows is a new request.
 *
 * What a virtio device reads of a ring in one go has no section within that of the
 * virtqueue, and counts as one request for each page. A buffer that was mapped for
 * writing is written when it is unmapped, in another section.
 */
#include "compat.h"
#include "refusals.h"

/* rcu_read_lock() stores 32 bits of the grace period's number. */
#define SECTION_MARK (1ul << (sizeof(unsigned long) * 8 - 1))
/* The most that QEMU's memory API hands over at once of an access to nothing. */
#define MAX_PIECE 4

typedef struct Refusal {
    const void *space;
    hwaddr address;
    uint32_t access;
    unsigned size;   /* 0: not known */
    bool seen_twice; /* as it was mapped, and as it was made */
} Refusal;

static __thread Refusal last_refusal;

static bool section_is_marked(void)
{
    return get_ptr_rcu_reader()->ctr & SECTION_MARK;
}

static bool same_page(const void *space, hwaddr address, uint32_t access)
{
    const Refusal *last = &last_refusal;

    return section_is_marked() && last->space == space && last->access == access &&
           (address ^ last->address) >> VIOMMU_PAGE_BITS == 0;
}

void viommu_refusal_note(const void *space, hwaddr address, uint32_t access,
                         unsigned size)
{
    struct rcu_reader_data *reader = get_ptr_rcu_reader();

    if (!reader->depth) {
        return;
    }
    qatomic_set(&reader->ctr, reader->ctr | SECTION_MARK);
    last_refusal =
        (Refusal){ .space = space, .address = address, .access = access, .size = size };
}

void viommu_refusal_forget(void)
{
    last_refusal.space = NULL;
}

bool viommu_refusal_goes_on(const void *space, hwaddr address, uint32_t access,
                            unsigned size)
{
    Refusal *last = &last_refusal;

    if (!same_page(space, address, access)) {
        return false;
    }
    if (get_ptr_rcu_reader()->depth == 1) {
        return true;
    }
    if (!last->size || address != last->address + last->size) {
        return false;
    }
    last->address = address;
    last->size = size;
    return true;
}

ViommuRefused viommu_refusal_known(const void *space, hwaddr address, uint32_t access)
{
    Refusal *last = &last_refusal;

    if (!same_page(space, address, access)) {
        return VIOMMU_REFUSED_NOT;
    }
    if (get_ptr_rcu_reader()->depth == 1) {
        return VIOMMU_REFUSED_ALREADY;
    }
    if (address == last->address && !last->seen_twice) {
        last->seen_twice = true;
        return VIOMMU_REFUSED_PERHAPS;
    }
    if (address - last->address - 1 < MAX_PIECE) {
        last->address = address;
        last->seen_twice = true;
        return VIOMMU_REFUSED_PERHAPS;
    }
    return VIOMMU_REFUSED_NOT;
}
