/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "compat.h"
#include "front.h"
#include "notices.h"
#include "settle.h"
#include "track-answers.h"
#include "viommu-core.h"

bool viommu_settle(ViommuCore *core)
{
    return !core->assigned || viommu_settle_all(core);
}

bool viommu_settle_all(ViommuCore *core)
{
    viommu_HostSettle msg = viommu_HostSettle_init_zero;
    viommu_HostSettleReply reply = viommu_HostSettleReply_init_zero;

    /* The main loop cannot run the notices while the big lock is held here. */
    while (viommu_front_request(core, viommu_MessageType_HOST_SETTLE,
                                viommu_HostSettle_fields, &msg, -1,
                                viommu_HostSettleReply_fields, &reply) &&
           !reply.settled) {
        viommu_notices_run_until(core, reply.sent);
        if (!viommu_track_answers_give(core) && reply.tracking) {
            return false;
        }
    }
    return true;
}
