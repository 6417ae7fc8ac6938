/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A store to a tracked page (TABLE_WRITE) ends when host mappings are what the tables say
 * with it. Where vCPUs have to hear of a TRACK for that, the storing vCPU waits behind
 * its store.
 */
#include "compat.h"
#include "hw/core/cpu.h"
#include "front.h"
#include "notices.h"
#include "refusals.h"
#include "settle.h"
#include "stores.h"
#include "track.h"
#include "viommu-core.h"

/* In exclusive context, before the vCPU goes on behind its store. */
static void end_store(CPUState *cpu, run_on_cpu_data data)
{
    ViommuCore *core = data.host_ptr;

    bql_lock();
    viommu_settle(core);
    object_unref(OBJECT(core->dev));
    bql_unlock();
}

static bool meets_tracked_page(const ViommuTracking *t, uint64_t gpa, unsigned size)
{
    return viommu_track_has(t, gpa >> VIOMMU_PAGE_BITS) ||
           viommu_track_has(t, (gpa + size - 1) >> VIOMMU_PAGE_BITS);
}

void viommu_stores_tell(ViommuCore *core, uint64_t gpa, unsigned size)
{
    viommu_TableWrite msg = { .lo = gpa, .hi = gpa >> 32, .size = size };
    viommu_TableWriteReply reply = viommu_TableWriteReply_init_zero;

    viommu_refusal_forget();
    if (!viommu_core_alive(core) || !meets_tracked_page(&core->tracking, gpa, size)) {
        return;
    }
    if (!viommu_front_request(core, viommu_MessageType_TABLE_WRITE,
                              viommu_TableWrite_fields, &msg, -1,
                              viommu_TableWriteReply_fields, &reply) ||
        reply.settled) {
        return;
    }
    viommu_notices_run_until(core, reply.sent);
    if (!viommu_settle(core) && current_cpu) {
        object_ref(OBJECT(core->dev));
        async_safe_run_on_cpu(current_cpu, end_store, RUN_ON_CPU_HOST_PTR(core));
    }
}
