/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which of QEMU's accesses belong to one request of a device, as far as refusals are concerned (refusals.c). */
#ifndef VIOMMU_REFUSALS_H
#define VIOMMU_REFUSALS_H

/* Whether an access belongs to the request that this thread has just refused, and so has its fault recorded already. */
typedef enum ViommuRefused {
    VIOMMU_REFUSED_NOT,     /* a request of its own */
    VIOMMU_REFUSED_ALREADY,
    VIOMMU_REFUSED_PERHAPS, /* refused with it if it would be refused now: a look tells, which records nothing */
} ViommuRefused;

/**
 * Notes that a device's access was refused, and its fault recorded. `space` only tells requesters apart; size 0: not
 * known.
 */
void viommu_refusal_note(const void *space, hwaddr address, uint32_t access, unsigned size);
/** What comes from this thread now is a request of its own: the guest's code ran in between. */
void viommu_refusal_forget(void);
/** Whether this is the next piece of an access of which each has a known size, and is refused with it. */
bool viommu_refusal_goes_on(const void *space, hwaddr address, uint32_t access, unsigned size);

/** Whether this access belongs to the one noted last. */
ViommuRefused viommu_refusal_known(const void *space, hwaddr address, uint32_t access);

#endif
