/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One thread serves the backend channel. It never takes the big lock, because a vCPU may
 * hold that lock while it waits for the daemon. What needs the big lock is queued to the
 * main loop (notices.c, unit-interrupts.c, endpoints.c), and answered from there.
 */
#include "compat.h"
#include "backend.h"
#include "notices.h"
#include "viommu-core.h"
#include "wire.h"

void viommu_backend_reply(ViommuCore *core, uint32_t type, uint32_t id,
                          const pb_msgdesc_t *fields, const void *message)
{
    ViommuBackend *b = &core->backend;
    WireResult result;

    qemu_mutex_lock(&b->send_lock);
    result = viommu_wire_send(&b->wire, type, WIRE_FLAG_REPLY, id, fields, message, NULL,
                              0);
    qemu_mutex_unlock(&b->send_lock);
    if (result != WIRE_OK) {
        viommu_core_gone(core, "backend channel: %s", viommu_wire_result_text(result));
    }
}

static void serve(ViommuCore *core, const WireFrame *frame)
{
    const ViommuBackendOps *ops = core->backend.ops;
    ViommuHandler *handler = frame->type < ops->handler_count ?
                                 ops->handlers[frame->type] :
                                 NULL;

    if (viommu_core_is_ended_by(core, frame)) {
        return;
    }
    if (!handler) {
        viommu_core_gone(core, "backend channel: unknown message type %" PRIu32,
                         frame->type);
    } else if (!handler(core, frame)) {
        viommu_core_gone(core,
                         "backend channel: message type %" PRIu32 " cannot be decoded",
                         frame->type);
    }
}

static void *backend_thread(void *opaque)
{
    ViommuCore *core = opaque;
    WireFrame frame;
    WireResult result;

    rcu_register_thread();
    while (viommu_core_alive(core)) {
        core->backend.ops->wait(core);
        result = viommu_wire_receive(&core->backend.wire, &frame);
        if (result != WIRE_OK) {
            viommu_core_gone(core, "%s", viommu_wire_result_text(result));
            break;
        }
        serve(core, &frame);
    }
    rcu_unregister_thread();
    return NULL;
}

void viommu_backend_init(ViommuCore *core)
{
    ViommuBackend *b = &core->backend;

    b->wire.fd = -1;
    qemu_mutex_init(&b->send_lock);
}

void viommu_backend_start(ViommuCore *core, int fd, const ViommuBackendOps *ops)
{
    ViommuBackend *b = &core->backend;

    b->ops = ops;
    viommu_wire_init(&b->wire, fd, 0, core->timeout_ms);
    b->running = true;
    qemu_thread_create(&b->thread, "viommu-backend", backend_thread, core,
                       QEMU_THREAD_JOINABLE);
}

void viommu_backend_stop(ViommuCore *core)
{
    ViommuBackend *b = &core->backend;

    if (b->running) {
        viommu_wire_shutdown(&b->wire);
        qemu_thread_join(&b->thread);
        b->running = false;
        viommu_notices_run(core);
    }
    viommu_wire_close(&b->wire);
}
