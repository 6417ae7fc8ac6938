/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which pages are tracked (TRACK). Overlays (overlays.c) bring stores to them to us
 * (stores.c). A TRACK is answered when vCPUs have heard of the change (track-answers.c).
 */
#include "compat.h"
#include "system/tcg.h"
#include "notices.h"
#include "overlays.h"
#include "track-answers.h"
#include "track.h"
#include "viommu-core.h"
#include "wire.h"

typedef struct TrackNotice {
    ViommuNotice notice;
    uint32_t id;
    WireOperations pages;
} TrackNotice;

static int compare_pages(gconstpointer a, gconstpointer b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

bool viommu_track_possible(const ViommuCore *core)
{
    return viommu_core_has(core, viommu_Feature_FEATURE_TRACKING) && tcg_enabled();
}

static void change_pages(GTree *pages, const uint32_t *words, uint32_t count)
{
    for (; count >= TRACK_WORDS; count -= TRACK_WORDS, words += TRACK_WORDS) {
        uint64_t page = viommu_u64(words[0], words[1]) >> VIOMMU_PAGE_BITS;

        if (words[0] & TRACK_BEGIN) {
            uint64_t *key = g_memdup2(&page, sizeof(page));

            g_tree_replace(pages, key, key);
        } else {
            g_tree_remove(pages, &page);
        }
    }
}

static void run(ViommuCore *core, ViommuNotice *notice)
{
    g_autofree TrackNotice *n = container_of(notice, TrackNotice, notice);

    /*
     * A daemon that is gone takes nothing back: what it asked for last may come after the
     * end of tracking.
     */
    if (!viommu_core_alive(core)) {
        return;
    }
    change_pages(core->tracking.pages, n->pages.words, n->pages.count);
    /* While listeners hear of a change of the memory map there can be no other. */
    if (core->memory_changing) {
        g_array_append_val(core->tracking.late, n->id);
        viommu_track_ram_changed(core);
        return;
    }
    viommu_overlays_apply(core);
    viommu_track_answers_add(core, n->id);
}

bool viommu_track_serve(ViommuCore *core, const WireFrame *frame)
{
    viommu_Track msg = viommu_Track_init_zero;
    g_autofree TrackNotice *n = g_new(TrackNotice, 1);

    viommu_wire_operations_init(&msg.pages, &n->pages);
    if (!viommu_wire_decode(frame, viommu_Track_fields, &msg) ||
        n->pages.count % TRACK_WORDS) {
        return false;
    }
    n->notice.run = run;
    n->id = frame->id;
    viommu_notices_add(core, &g_steal_pointer(&n)->notice);
    return true;
}

static void refresh_bh(void *opaque)
{
    ViommuCore *core = opaque;
    ViommuTracking *t = &core->tracking;
    guint i;

    t->refresh_scheduled = false;
    if (t->pages) {
        viommu_overlays_apply(core);
        for (i = 0; i < t->late->len; i++) {
            viommu_track_answers_add(core, g_array_index(t->late, uint32_t, i));
        }
        g_array_set_size(t->late, 0);
    }
    object_unref(OBJECT(core->dev));
}

void viommu_track_ram_changed(ViommuCore *core)
{
    if (core->tracking.pages && !core->tracking.refresh_scheduled) {
        core->tracking.refresh_scheduled = true;
        viommu_core_schedule(core, refresh_bh);
    }
}

void viommu_track_end_all(ViommuCore *core)
{
    ViommuTracking *t = &core->tracking;

    if (t->pages && g_tree_nnodes(t->pages)) {
        g_tree_destroy(g_tree_ref(t->pages));
        viommu_overlays_apply(core);
    }
}

void viommu_track_start(ViommuCore *core)
{
    ViommuTracking *t = &core->tracking;

    t->pages = g_tree_new_full((GCompareDataFunc)(void (*)(void))compare_pages, NULL,
                               g_free, NULL);
    t->overlays = g_ptr_array_new();
    t->unanswered = g_array_new(FALSE, FALSE, sizeof(uint32_t));
    t->late = g_array_new(FALSE, FALSE, sizeof(uint32_t));
}

void viommu_track_stop(ViommuCore *core)
{
    ViommuTracking *t = &core->tracking;

    if (!t->pages) {
        return;
    }
    viommu_track_end_all(core);
    g_clear_pointer(&t->pages, g_tree_destroy);
    g_ptr_array_free(t->overlays, TRUE);
    t->overlays = NULL;
    g_array_free(t->unanswered, TRUE);
    t->unanswered = NULL;
    g_array_free(t->late, TRUE);
    t->late = NULL;
}
