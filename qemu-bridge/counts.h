/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How translations of one requester were found, or of all of them. */
#ifndef VIOMMU_COUNTS_H
#define VIOMMU_COUNTS_H

typedef struct ViommuCounts {
    uint64_t hits;   /* cached */
    uint64_t misses; /* asked for */
    uint64_t walks;  /* found by a peer walk */
} ViommuCounts;

#endif
