/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Pages of guest RAM whose stores the daemon wants to be told of. */
#ifndef VIOMMU_TRACK_H
#define VIOMMU_TRACK_H

typedef struct ViommuTracking {
    GTree *pages;         /* numbers of tracked pages; big lock */
    QLIST_HEAD(, TrackedRam) rams; /* big lock */
    GPtrArray *overlays;  /* by rising address; big lock */
    GArray *unanswered;   /* ids of TRACKs that vCPUs have to hear of; big lock */
    GArray *late;         /* ids of TRACKs that are not in force yet; big lock */
    bool refresh_scheduled;
} ViommuTracking;

#endif
