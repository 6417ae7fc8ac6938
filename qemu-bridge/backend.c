/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The backend channel: what the daemon asks. One thread serves it and never takes the big lock, because a vCPU
 * may hold that lock while it waits for the daemon. What needs the big lock (IOMMU notifiers, interrupts) is
 * queued to the main loop (backend-queue.c); an invalidation with notifiers is answered from there.
 */
#include "compat.h"
#include "backend.h"
#include "completion.h"
#include "endpoints.h"
#include "front.h"
#include "guest-memory.h"
#include "host.h"
#include "iotlb.h"
#include "spaces.h"
#include "viommu-core.h"
#include "wire.h"

void viommu_backend_reply(ViommuCore *core, uint32_t type, uint32_t id, const pb_msgdesc_t *fields,
                          const void *message)
{
    ViommuBackend *b = &core->backend;
    WireResult result;

    qemu_mutex_lock(&b->send_lock);
    result = wire_send(&b->wire, type, WIRE_FLAG_REPLY, id, fields, message, NULL, 0);
    qemu_mutex_unlock(&b->send_lock);
    if (result != WIRE_OK) {
        viommu_core_gone(core, "backend channel: %s", wire_result_text(result));
    }
}

static bool serve_invalidate(ViommuCore *core, const WireFrame *frame)
{
    viommu_Invalidate msg = viommu_Invalidate_init_zero;
    IotlbScope scope;
    bool resetting;

    if (!wire_decode(frame, viommu_Invalidate_fields, &msg)) {
        return false;
    }
    viommu_core_publish(core);
    scope = (IotlbScope) {
        .space = msg.space,
        .sub = msg.sub,
        .address = viommu_u64(msg.lo, msg.hi),
        .log2_size = MAX(msg.log2_size, VIOMMU_PAGE_BITS),
    };
    if (msg.structures) {
        viommu_spaces_drop_tables(core);
    }
    iotlb_epochs_note(&core->epochs, msg.space, msg.epoch);
    viommu_spaces_invalidate(core, &scope, msg.rid, msg.pasid);
    resetting = qatomic_read(&core->resetting);
    if (msg.devices_count && !resetting) {
        viommu_backend_queue_invalidation(core, frame->id, &scope, &msg);
        return true;
    }
    if (msg.devices_count) {
        qatomic_inc(&core->backend.notices_done);
    }
    if (!viommu_endpoints_hold_answer(core, frame->id)) {
        viommu_backend_reply(core, viommu_MessageType_INVALIDATE, frame->id, NULL, NULL);
    }
    return true;
}

static bool serve_tables(ViommuCore *core, const WireFrame *frame)
{
    g_autofree viommu_Tables *msg = g_new0(viommu_Tables, 1);

    return wire_decode(frame, viommu_Tables_fields, msg) && viommu_spaces_take_tables(core, msg);
}

static bool serve_mem_read(ViommuCore *core, const WireFrame *frame)
{
    viommu_MemRead msg = viommu_MemRead_init_zero;
    viommu_MemReadReply reply;

    if (!wire_decode(frame, viommu_MemRead_fields, &msg) || msg.size > sizeof(reply.data.bytes)) {
        return false;
    }
    reply.code = viommu_guest_read(viommu_u64(msg.gpa_lo, msg.gpa_hi), reply.data.bytes, msg.size);
    reply.data.size = reply.code ? 0 : msg.size;
    viommu_backend_reply(core, viommu_MessageType_MEM_READ, frame->id, viommu_MemReadReply_fields, &reply);
    return true;
}

static bool serve_mem_write(ViommuCore *core, const WireFrame *frame)
{
    viommu_MemWrite msg = viommu_MemWrite_init_zero;
    viommu_Status reply = viommu_Status_init_zero;

    if (!wire_decode(frame, viommu_MemWrite_fields, &msg)) {
        return false;
    }
    reply.code = viommu_guest_write(viommu_u64(msg.gpa_lo, msg.gpa_hi), msg.data.bytes, msg.data.size);
    viommu_backend_reply(core, viommu_MessageType_MEM_WRITE, frame->id, viommu_Status_fields, &reply);
    return true;
}

static bool serve_mem_cas(ViommuCore *core, const WireFrame *frame)
{
    viommu_MemCas msg = viommu_MemCas_init_zero;
    viommu_MemCasReply reply = viommu_MemCasReply_init_zero;

    if (!wire_decode(frame, viommu_MemCas_fields, &msg)) {
        return false;
    }
    reply.code = viommu_guest_cas(viommu_u64(msg.gpa_lo, msg.gpa_hi), msg.expected, msg.value, &reply.found);
    viommu_backend_reply(core, viommu_MessageType_MEM_CAS, frame->id, viommu_MemCasReply_fields, &reply);
    return true;
}

static void serve(ViommuCore *core, const WireFrame *frame)
{
    bool ok = true;

    if (viommu_frame_is_error(core, frame)) {
        return;
    }
    switch (frame->type) {
    case viommu_MessageType_INVALIDATE:
        ok = serve_invalidate(core, frame);
        break;
    case viommu_MessageType_HOST_BATCH:
        ok = viommu_backend_queue_host_batch(core, frame);
        break;
    case viommu_MessageType_TABLES:
        ok = serve_tables(core, frame);
        break;
    case viommu_MessageType_QUEUE:
        ok = viommu_completion_take_queue(core, frame);
        break;
    case viommu_MessageType_TRACK:
        ok = viommu_backend_queue_track(core, frame);
        break;
    case viommu_MessageType_INTERRUPT:
        ok = viommu_backend_queue_interrupt(core, frame);
        break;
    case viommu_MessageType_MEM_READ:
        ok = serve_mem_read(core, frame);
        break;
    case viommu_MessageType_MEM_WRITE:
        ok = serve_mem_write(core, frame);
        break;
    case viommu_MessageType_MEM_CAS:
        ok = serve_mem_cas(core, frame);
        break;
    case viommu_MessageType_HOST_SPACE_CREATE:
    case viommu_MessageType_HOST_SPACE_DESTROY:
    case viommu_MessageType_HOST_MAP:
    case viommu_MessageType_HOST_ATTACH:
    case viommu_MessageType_HOST_ATTACH_TABLES:
    case viommu_MessageType_HOST_DETACH:
    case viommu_MessageType_HOST_IDENTIFY:
    case viommu_MessageType_HOST_INVALIDATE:
    case viommu_MessageType_HOST_PASID_ALLOC:
    case viommu_MessageType_HOST_PASID_FREE:
    case viommu_MessageType_HOST_RESPOND:
        ok = viommu_objects_serve(core, frame);
        break;
    case viommu_MessageType_RESUME:
    case viommu_MessageType_PAGE_RESPONSE:
    case viommu_MessageType_DEVICE_TLB:
        ok = viommu_endpoints_serve(core, frame);
        break;
    default:
        viommu_core_gone(core, "backend channel: unknown message type %" PRIu32, frame->type);
        return;
    }
    if (!ok) {
        viommu_core_gone(core, "backend channel: message type %" PRIu32 " cannot be decoded", frame->type);
    }
}

static void *backend_thread(void *opaque)
{
    ViommuCore *core = opaque;
    WireFrame frame;
    WireResult result;

    rcu_register_thread();
    while (viommu_core_alive(core)) {
        viommu_hosts_wait(core);
        result = wire_receive(&core->backend.wire, &frame);
        if (result != WIRE_OK) {
            viommu_core_gone(core, "%s", wire_result_text(result));
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
    qemu_mutex_init(&b->queue_lock);
    QSIMPLEQ_INIT(&b->notices);
    qemu_cond_init(&b->queue_cond);
}

void viommu_backend_start(ViommuCore *core, int fd)
{
    wire_init(&core->backend.wire, fd, 0, core->timeout_ms);
    core->backend.running = true;
    qemu_thread_create(&core->backend.thread, "viommu-backend", backend_thread, core, QEMU_THREAD_JOINABLE);
}

void viommu_backend_stop(ViommuCore *core)
{
    if (core->backend.running) {
        wire_shutdown(&core->backend.wire);
        qemu_thread_join(&core->backend.thread);
        core->backend.running = false;
        viommu_backend_run_notices(core);
    }
    wire_close(&core->backend.wire);
}
