/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The backend thread drops what the scope matches from the caches here. Where IOMMU
 * notifiers have to hear of it, the rest is a notice, and the answer comes from the main
 * loop. Otherwise the answer waits only for requests of the bridge's own devices that are
 * in flight (requests.c).
 */
#include "compat.h"
#include "backend.h"
#include "invalidation.h"
#include "iotlb.h"
#include "notices.h"
#include "notify.h"
#include "requests.h"
#include "spaces.h"
#include "viommu-core.h"
#include "wire.h"

typedef struct InvalidationNotice {
    ViommuNotice notice;
    uint32_t id;
    IotlbScope scope;
    uint32_t count;
    uint32_t devices[]; /* handles */
} InvalidationNotice;

static void run(ViommuCore *core, ViommuNotice *notice)
{
    g_autofree InvalidationNotice *n = container_of(notice, InvalidationNotice, notice);
    uint32_t i;

    for (i = 0; i < n->count; i++) {
        ViommuSpace *space = viommu_space_by_handle(core, n->devices[i]);

        if (space && !qatomic_read(&core->resetting)) {
            viommu_notify_invalidate(space, &n->scope);
        }
    }
    viommu_backend_reply(core, viommu_MessageType_INVALIDATE, n->id, NULL, NULL);
}

static void queue(ViommuCore *core, uint32_t id, const IotlbScope *scope,
                  const viommu_Invalidate *msg)
{
    size_t bytes = msg->devices_count * sizeof(uint32_t);
    InvalidationNotice *n = g_malloc(sizeof(*n) + bytes);

    n->notice.run = run;
    n->id = id;
    n->scope = *scope;
    n->count = msg->devices_count;
    memcpy(n->devices, msg->devices, bytes);
    viommu_notices_add(core, &n->notice);
}

bool viommu_invalidation_serve(ViommuCore *core, const WireFrame *frame)
{
    viommu_Invalidate msg = viommu_Invalidate_init_zero;
    IotlbScope scope;

    if (!viommu_wire_decode(frame, viommu_Invalidate_fields, &msg)) {
        return false;
    }
    viommu_core_publish_all(core);
    scope = (IotlbScope) {
        .space = msg.space,
        .sub = msg.sub,
        .address = viommu_u64(msg.lo, msg.hi),
        .log2_size = MAX(msg.log2_size, VIOMMU_PAGE_BITS),
    };
    if (msg.structures) {
        viommu_spaces_drop_tables(core);
    }
    viommu_iotlb_epochs_note(&core->epochs, msg.space, msg.epoch);
    viommu_spaces_invalidate(core, &scope, msg.rid, msg.pasid);
    if (msg.devices_count) {
        if (!qatomic_read(&core->resetting)) {
            queue(core, frame->id, &scope, &msg);
            return true;
        }
        /*
         * The reset has emptied all notifiers; the daemon counts the notice all the same.
         */
        qatomic_inc(&core->notices.done);
    }
    if (!viommu_requests_hold_answer(core, frame->id)) {
        viommu_backend_reply(core, viommu_MessageType_INVALIDATE, frame->id, NULL, NULL);
    }
    return true;
}
