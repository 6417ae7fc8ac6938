/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Pages of guest RAM that are tracked: the daemon wants to be told of stores to them. Big
 * lock.
 */
#ifndef VIOMMU_TRACK_H
#define VIOMMU_TRACK_H

#include "wire.h"

typedef struct ViommuCore ViommuCore;

typedef struct ViommuTracking {
    GTree *pages;                  /* numbers of tracked pages; NULL: no session */
    QLIST_HEAD(, TrackedRam) rams; /* overlays.c */
    GPtrArray *overlays;           /* by rising address; overlays.c */
    GArray *unanswered;            /* ids of TRACKs that vCPUs have to hear of */
    GArray *late;                  /* ids of TRACKs that are not in force yet */
    bool refresh_scheduled;
} ViommuTracking;

void viommu_track_start(ViommuCore *core);
void viommu_track_stop(ViommuCore *core);
/** Whether pages can be tracked at all. */
bool viommu_track_possible(const ViommuCore *core);
/** Serves a TRACK. Backend thread. */
bool viommu_track_serve(ViommuCore *core, const WireFrame *frame);
/** RAM came or went: the overlays follow, from the main loop. */
void viommu_track_ram_changed(ViommuCore *core);
/** Nothing is tracked any more. */
void viommu_track_end_all(ViommuCore *core);

/** Whether a page is tracked. Big lock. */
static inline bool viommu_track_has(const ViommuTracking *t, uint64_t page)
{
    return t->pages && g_tree_lookup(t->pages, &page);
}

#endif
