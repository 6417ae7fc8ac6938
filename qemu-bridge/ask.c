/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "compat.h"
#include "ask.h"
#include "endpoint.h"
#include "front.h"
#include "iotlb.h"
#include "spaces.h"
#include "viommu-core.h"
#include "wire.h"

bool viommu_ask(ViommuSpace *space, const ViommuRequest *request, ViommuAnswer *answer,
                uint16_t *rid)
{
    ViommuCore *core = space->core;
    viommu_Translate msg = {
        .pasid = request->pasid_plus_1,
        .access = request->access,
        .lo = request->address,
        .hi = request->address >> 32,
        .kind = request->kind,
        .may_stall = request->may_stall,
        .size = request->size,
    };
    bool ok;

    viommu_wire_spans_init(&answer->reply.spans, &answer->spans);
    qemu_mutex_lock(&core->front.lock);
    ok = viommu_space_announce_locked(space);
    *rid = space->rid;
    msg.rid = space->rid;
    answer->own = viommu_iotlb_epochs_newest(&core->own);
    ok = ok &&
         viommu_front_request_locked(core, viommu_MessageType_TRANSLATE,
                                     viommu_Translate_fields, &msg, -1,
                                     viommu_TranslateReply_fields, &answer->reply) &&
         viommu_front_spans_are_whole(core, &answer->spans);
    if (ok) {
        space->counts.misses++;
        viommu_core_publish(core, space);
    }
    qemu_mutex_unlock(&core->front.lock);
    return ok;
}

bool viommu_ask_allows(const ViommuAnswer *answer, uint64_t address, uint32_t access)
{
    const uint32_t *w = answer->spans.words;

    return answer->reply.status == 0 && viommu_wire_span_count(&answer->spans) &&
           w[4] >= VIOMMU_PAGE_BITS &&
           (w[4] >= 64 || (address ^ viommu_u64(w[0], w[1])) >> w[4] == 0) &&
           (w[5] & access) == access;
}
