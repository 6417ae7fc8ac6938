/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Requests that say exactly what they are. Their answers go to no cache here, so an
 * invalidation has to wait only for the request in flight.
 */
#include "compat.h"
#include "ask.h"
#include "backend.h"
#include "endpoint.h"
#include "endpoints.h"
#include "front.h"
#include "requests.h"
#include "spaces.h"
#include "viommu-core.h"
#include "wire.h"

void viommu_request_begin(ViommuEndpoint *e)
{
    ViommuEndpoints *all = &e->space->core->endpoints;

    qemu_mutex_lock(&all->lock);
    all->under_way++;
    qemu_mutex_unlock(&all->lock);
}

void viommu_request_end(ViommuEndpoint *e)
{
    ViommuCore *core = e->space->core;
    ViommuEndpoints *all = &core->endpoints;
    g_autoptr(GArray) answers = NULL;
    guint i;

    qemu_mutex_lock(&all->lock);
    if (--all->under_way == 0 && all->held_answers->len) {
        answers = all->held_answers;
        all->held_answers = g_array_new(false, false, sizeof(uint32_t));
    }
    qemu_mutex_unlock(&all->lock);
    for (i = 0; answers && i < answers->len; i++) {
        viommu_backend_reply(core, viommu_MessageType_INVALIDATE,
                             g_array_index(answers, uint32_t, i), NULL, NULL);
    }
}

bool viommu_requests_hold_answer(ViommuCore *core, uint32_t id)
{
    ViommuEndpoints *all = &core->endpoints;
    bool hold;

    qemu_mutex_lock(&all->lock);
    hold = all->under_way > 0;
    if (hold) {
        g_array_append_val(all->held_answers, id);
    }
    qemu_mutex_unlock(&all->lock);
    return hold;
}

/* False: no block, or one that does not contain the address. */
static bool take_span(const ViommuAnswer *answer, uint64_t address, ViommuTranslation *t)
{
    const uint32_t *w = answer->spans.words;

    if (!viommu_wire_span_count(&answer->spans) || w[4] < VIOMMU_PAGE_BITS || w[4] > 64) {
        return false;
    }
    t->input = viommu_u64(w[0], w[1]);
    t->output = viommu_u64(w[2], w[3]);
    t->log2_size = w[4];
    t->access = w[5];
    return w[4] == 64 || (address ^ t->input) >> w[4] == 0;
}

ViommuOutcome viommu_request_translation(ViommuEndpoint *e, const ViommuRequest *request,
                                         ViommuTranslation *t)
{
    ViommuAnswer answer = { .reply = viommu_TranslateReply_init_zero };
    uint16_t rid;

    *t = (ViommuTranslation) { 0 };
    if (!viommu_ask(e->space, request, &answer, &rid)) {
        return VIOMMU_GONE;
    }
    t->stall = answer.reply.stall;
    switch (answer.reply.status) {
    case VIOMMU_TRANSLATION:
        return take_span(&answer, request->address, t) ? VIOMMU_TRANSLATION :
                                                         VIOMMU_REFUSED;
    case VIOMMU_STALLED:
        return request->may_stall ? VIOMMU_STALLED : VIOMMU_REFUSED;
    case VIOMMU_COMPLETER_ABORT:
        return VIOMMU_COMPLETER_ABORT;
    default:
        return VIOMMU_REFUSED;
    }
}

bool viommu_request_page(ViommuEndpoint *e, uint32_t pasid_plus_1, uint32_t access,
                         uint64_t address, uint32_t group, bool last)
{
    ViommuCore *core = e->space->core;
    viommu_PageRequest msg = {
        .pasid = pasid_plus_1,
        .access = access,
        .lo = address,
        .hi = address >> 32,
        .group = group,
        .last = last,
    };
    bool ok;

    qemu_mutex_lock(&core->front.lock);
    ok = viommu_space_announce_locked(e->space);
    msg.rid = e->space->rid;
    ok = ok && viommu_front_post_locked(core, viommu_MessageType_PAGE_REQUEST,
                                        viommu_PageRequest_fields, &msg);
    qemu_mutex_unlock(&core->front.lock);
    return ok;
}
