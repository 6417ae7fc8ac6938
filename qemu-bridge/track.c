/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Stores to tracked pages (TRACK, TABLE_WRITE). Overlays (overlays.c) bring them here; one ends when the daemon has made of
 * it what it must.
 *
 * A vCPU may go on storing past a new overlay until it has dropped its TLB, which it does before its next translation
 * block. So a TRACK is answered when each has, or at once where none can be in the middle of one.
 *
 * Everything here runs under the big lock.
 */
#include "compat.h"
#include "hw/core/cpu.h"
#include "system/tcg.h"
#include "backend.h"
#include "front.h"
#include "host.h"
#include "refusals.h"
#include "track.h"
#include "viommu-core.h"
#include "wire.h"

/* What a vCPU has to pass before a TRACK is answered. */
typedef struct Passing {
    ViommuCore *core;
    uint32_t id;
    uint32_t left;
} Passing;

static int compare_pages(gconstpointer a, gconstpointer b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

bool viommu_track_possible(const ViommuCore *core)
{
    return viommu_core_has(core, viommu_Feature_FEATURE_TRACKING) && tcg_enabled();
}

/* Nobody but this thread is between two instructions. */
static bool vcpus_are_quiet(void)
{
    CPUState *cpu;

    if (current_cpu && cpu_in_exclusive_context(current_cpu)) {
        return true;
    }
    CPU_FOREACH(cpu) {
        if (cpu != current_cpu && !cpu->stopped) {
            return false;
        }
    }
    return true;
}

static void answer(ViommuCore *core, uint32_t id)
{
    viommu_backend_reply(core, viommu_MessageType_TRACK, id, NULL, NULL);
}

bool viommu_track_answer(ViommuCore *core)
{
    GArray *ids = core->tracking.unanswered;
    guint i;

    if (core->tracking.late->len || (ids->len && !vcpus_are_quiet())) {
        return false;
    }
    for (i = 0; i < ids->len; i++) {
        answer(core, g_array_index(ids, uint32_t, i));
    }
    g_array_set_size(ids, 0);
    return true;
}

static void passed(CPUState *cpu, run_on_cpu_data data)
{
    Passing *passing = data.host_ptr;
    ViommuCore *core = passing->core;
    GArray *ids = core->tracking.unanswered;
    guint i;

    if (--passing->left) {
        return;
    }
    for (i = 0; ids && i < ids->len; i++) {
        if (g_array_index(ids, uint32_t, i) == passing->id) {
            g_array_remove_index(ids, i);
            answer(core, passing->id);
            break;
        }
    }
    g_free(passing);
    object_unref(OBJECT(core->dev));
}

/* The work queues behind what makes each vCPU drop its TLB. */
static void answer_when_passed(ViommuCore *core, uint32_t id)
{
    Passing *passing;
    CPUState *cpu;

    if (vcpus_are_quiet()) {
        answer(core, id);
        return;
    }
    g_array_append_val(core->tracking.unanswered, id);
    passing = g_new(Passing, 1);
    *passing = (Passing) { .core = core, .id = id };
    object_ref(OBJECT(core->dev));
    CPU_FOREACH(cpu) {
        passing->left++;
    }
    CPU_FOREACH(cpu) {
        async_run_on_cpu(cpu, passed, RUN_ON_CPU_HOST_PTR(passing));
    }
}

/* In exclusive context, before the vCPU goes on behind its store. */
static void end_store(CPUState *cpu, run_on_cpu_data data)
{
    ViommuCore *core = data.host_ptr;

    bql_lock();
    viommu_host_settle(core);
    object_unref(OBJECT(core->dev));
    bql_unlock();
}

bool viommu_track_has(const ViommuCore *core, uint64_t page)
{
    return core->tracking.pages && g_tree_lookup(core->tracking.pages, &page);
}

void viommu_track_stored(ViommuCore *core, uint64_t gpa, unsigned size)
{
    viommu_TableWrite msg = { .lo = gpa, .hi = gpa >> 32, .size = size };
    viommu_TableWriteReply reply = viommu_TableWriteReply_init_zero;

    viommu_refusal_forget();
    if (!viommu_core_alive(core) || !(viommu_track_has(core, gpa >> VIOMMU_PAGE_BITS) ||
                                      viommu_track_has(core, (gpa + size - 1) >> VIOMMU_PAGE_BITS))) {
        return;
    }
    if (!viommu_front_request(core, viommu_MessageType_TABLE_WRITE, viommu_TableWrite_fields, &msg, -1,
                              viommu_TableWriteReply_fields, &reply) || reply.settled) {
        return;
    }
    viommu_backend_run_until(core, reply.sent);
    if (!viommu_host_settle(core) && current_cpu) {
        object_ref(OBJECT(core->dev));
        async_safe_run_on_cpu(current_cpu, end_store, RUN_ON_CPU_HOST_PTR(core));
    }
}

void viommu_track_run(ViommuCore *core, uint32_t id, const uint32_t *words, uint32_t count)
{
    GTree *pages = core->tracking.pages;

    for (; count >= TRACK_WORDS; count -= TRACK_WORDS, words += TRACK_WORDS) {
        uint64_t page = viommu_u64(words[0], words[1]) >> VIOMMU_PAGE_BITS;

        if (words[0] & TRACK_BEGIN) {
            uint64_t *key = g_memdup2(&page, sizeof(page));

            g_tree_replace(pages, key, key);
        } else {
            g_tree_remove(pages, &page);
        }
    }
    /* While listeners hear of a change of the memory map there can be no other. */
    if (core->memory_changing) {
        g_array_append_val(core->tracking.late, id);
        viommu_track_ram_changed(core);
        return;
    }
    viommu_overlays_apply(core);
    answer_when_passed(core, id);
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
            answer_when_passed(core, g_array_index(t->late, uint32_t, i));
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

    t->pages = g_tree_new_full((GCompareDataFunc)(void (*)(void))compare_pages, NULL, g_free, NULL);
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
