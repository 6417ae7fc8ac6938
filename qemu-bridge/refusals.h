/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which of QEMU's accesses are one request of a device, so that a refused request faults
 * once.
 */
#ifndef VIOMMU_REFUSALS_H
#define VIOMMU_REFUSALS_H

/*
 * Whether an access belongs to the request that this thread has just refused: then its
 * fault is recorded already.
 */
typedef enum ViommuRefused {
    VIOMMU_REFUSED_NOT,     /* a request of its own */
    VIOMMU_REFUSED_ALREADY,
    /*
     * Refused with it if it would be refused now: asking with access 0 tells, without a
     * fault.
     */
    VIOMMU_REFUSED_PERHAPS,
} ViommuRefused;

/**
 * Notes that an access of a device was refused, and its fault recorded. `space` only
 * tells requesters apart. Size 0: not known.
 */
void viommu_refusal_note(const void *space, hwaddr address, uint32_t access,
                         unsigned size);
/**
 * What comes from this thread from now on is a new request: guest code ran in between.
 */
void viommu_refusal_forget(void);
/**
 * Whether this is the next piece of the access refused last, and is refused with it. For
 * accesses whose pieces have known sizes.
 */
bool viommu_refusal_goes_on(const void *space, hwaddr address, uint32_t access,
                            unsigned size);

/** Whether this access belongs to the one noted last. */
ViommuRefused viommu_refusal_known(const void *space, hwaddr address, uint32_t access);

#endif
