/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The daemon says what is to be mapped and unmapped; here it becomes events of IOMMU
 * notifiers, and the answer says which of them failed (ioctl-watch.c).
 */
#include "compat.h"
#include "backend.h"
#include "host-batch.h"
#include "ioctl-watch.h"
#include "notices.h"
#include "notify.h"
#include "spaces.h"
#include "viommu-core.h"
#include "wire.h"

typedef struct BatchNotice {
    ViommuNotice notice;
    uint32_t id;
    uint32_t device;
    WireOperations operations;
} BatchNotice;

void viommu_host_batch_run(ViommuCore *core, uint32_t device,
                           const WireOperations *operations, viommu_HostBatchReply *reply)
{
    ViommuSpace *space = viommu_space_by_handle(core, device);
    uint32_t i, count = operations->count / HOST_OPERATION_WORDS;
    const uint32_t *words = operations->words;

    reply->failures_count = 0;
    /*
     * A daemon that is gone takes nothing back: what it asked for last may come after
     * everything was unmapped.
     */
    if (!space || !viommu_core_alive(core)) {
        return;
    }
    for (i = 0; i < count; i++, words += HOST_OPERATION_WORDS) {
        int error;

        viommu_ioctl_watch_begin(!words[0]);
        viommu_notify_operation(space, words);
        error = viommu_ioctl_watch_end();
        if (error && reply->failures_count + 2 <= ARRAY_SIZE(reply->failures)) {
            reply->failures[reply->failures_count++] = i;
            reply->failures[reply->failures_count++] = error;
        }
    }
}

static void run(ViommuCore *core, ViommuNotice *notice)
{
    g_autofree BatchNotice *n = container_of(notice, BatchNotice, notice);
    g_autofree viommu_HostBatchReply *reply = g_new(viommu_HostBatchReply, 1);

    viommu_host_batch_run(core, n->device, &n->operations, reply);
    viommu_backend_reply(core, viommu_MessageType_HOST_BATCH, n->id,
                         viommu_HostBatchReply_fields, reply);
}

bool viommu_host_batch_serve(ViommuCore *core, const WireFrame *frame)
{
    viommu_HostBatch msg = viommu_HostBatch_init_zero;
    g_autofree BatchNotice *n = g_new(BatchNotice, 1);

    viommu_wire_operations_init(&msg.ops, &n->operations);
    if (!viommu_wire_decode(frame, viommu_HostBatch_fields, &msg) ||
        n->operations.count % HOST_OPERATION_WORDS) {
        return false;
    }
    n->notice.run = run;
    n->id = frame->id;
    n->device = msg.device;
    viommu_notices_add(core, &g_steal_pointer(&n)->notice);
    return true;
}
