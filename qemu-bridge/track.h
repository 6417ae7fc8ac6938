/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Pages of guest RAM whose stores the daemon wants to be told of (track.c), and what brings these here (overlays.c). */
#ifndef VIOMMU_TRACK_H
#define VIOMMU_TRACK_H

typedef struct ViommuCore ViommuCore;

typedef struct ViommuTracking {
    GTree *pages;         /* numbers of tracked pages; big lock */
    QLIST_HEAD(, TrackedRam) rams; /* big lock */
    GPtrArray *overlays;  /* by rising address; big lock */
    GArray *unanswered;   /* ids of TRACKs that vCPUs have to hear of; big lock */
    GArray *late;         /* ids of TRACKs that are not in force yet; big lock */
    bool refresh_scheduled;
} ViommuTracking;

/* track.c: stores to table pages. Big lock. */

void viommu_track_start(ViommuCore *core);
void viommu_track_stop(ViommuCore *core);
/** Whether stores can be told of at all. */
bool viommu_track_possible(const ViommuCore *core);
/** Carries out a TRACK, which is answered at once or when every vCPU has heard of it. */
void viommu_track_run(ViommuCore *core, uint32_t id, const uint32_t *words, uint32_t count);
/** Answers what waits for vCPUs, if none is in the middle of something. False: one is. */
bool viommu_track_answer(ViommuCore *core);
/** RAM came or went: overlays follow, soon. */
void viommu_track_ram_changed(ViommuCore *core);
/** Whether stores to this page are told of. Big lock. */
bool viommu_track_has(const ViommuCore *core, uint64_t page);
/** Somebody has stored to RAM under an overlay; returns when the store may end. */
void viommu_track_stored(ViommuCore *core, uint64_t gpa, unsigned size);
/** Nothing is tracked any more. */
void viommu_track_end_all(ViommuCore *core);

/* overlays.c: what brings stores to tracked pages to us. Big lock. */

/** Makes the overlays what the tracked pages and today's RAM ask for, in one memory transaction. */
void viommu_overlays_apply(ViommuCore *core);

#endif
