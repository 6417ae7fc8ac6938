/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A vCPU may go on storing past a new overlay until it has dropped its TLB, which it does
 * before its next translation block. So a TRACK is answered when every vCPU has done so,
 * or at once if no vCPU can be in the middle of a block.
 */
#include "compat.h"
#include "hw/core/cpu.h"
#include "backend.h"
#include "track-answers.h"
#include "viommu-core.h"

/* What a vCPU has to pass before a TRACK is answered. */
typedef struct Passing {
    ViommuCore *core;
    uint32_t id;
    uint32_t left;
} Passing;

/* Whether no other thread is between two instructions of the guest. */
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

bool viommu_track_answers_give(ViommuCore *core)
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
void viommu_track_answers_add(ViommuCore *core, uint32_t id)
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
