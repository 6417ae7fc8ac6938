/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * HOST_SPACE_CREATE to HOST_RESPOND, carried out on the objects of iommufd-*.h.
 * Structures of the kernel pass through unread.
 *
 * The backend thread does it, so that a thread that holds the big lock may wait for the
 * daemon (a reset, RAM that goes). core->host_lock protects what the two share: the
 * objects, and changes of the list of RAM regions. It is taken alone or below the big
 * lock, and never held while a message is sent.
 */
#include "compat.h"
#include "backend.h"
#include "host-objects.h"
#include "iommufd-attach.h"
#include "iommufd-devices.h"
#include "iommufd-queues.h"
#include "iommufd-spaces.h"
#include "iommufd-vdevices.h"
#include "memory-table.h"
#include "text.h"
#include "viommu-core.h"
#include "wire.h"

#define TARGET_WORDS 3

/* What an errno means as the answer to one kind of request. */
typedef struct ErrnoCode {
    int error;
    viommu_HostResult code;
} ErrnoCode;

static const ErrnoCode space_errors[] = {
    { ENOENT, viommu_HostResult_HOST_NO_SUCH_SPACE },
    { EEXIST, viommu_HostResult_HOST_SPACE_EXISTS },
    { EBUSY, viommu_HostResult_HOST_IN_USE },
    { EOPNOTSUPP, viommu_HostResult_HOST_NOT_SUPPORTED },
    { ENOMEM, viommu_HostResult_HOST_NO_TABLE_MEMORY },
    { 0 },
};
static const ErrnoCode map_errors[] = {
    { ENOENT, viommu_HostResult_HOST_NO_SUCH_SPACE },
    { EEXIST, viommu_HostResult_HOST_OVERLAP },
    { EADDRINUSE, viommu_HostResult_HOST_OVERLAP },
    { ENOMEM, viommu_HostResult_HOST_PIN_LIMIT },
    { EFAULT, viommu_HostResult_HOST_NOT_MEMORY },
    { EINVAL, viommu_HostResult_HOST_IOVA_RANGE },
    { ERANGE, viommu_HostResult_HOST_IOVA_RANGE },
    { 0 },
};
static const ErrnoCode attach_errors[] = {
    { ENOENT, viommu_HostResult_HOST_NO_SUCH_SPACE },
    { EOPNOTSUPP, viommu_HostResult_HOST_NOT_SUPPORTED },
    { ENOMEM, viommu_HostResult_HOST_NO_TABLE_MEMORY },
    { 0 },
};
static const ErrnoCode table_errors[] = {
    { ENOENT, viommu_HostResult_HOST_NO_SUCH_SPACE },
    { EOPNOTSUPP, viommu_HostResult_HOST_NOT_SUPPORTED },
    { ENOMEM, viommu_HostResult_HOST_NO_TABLE_MEMORY },
    { EINVAL, viommu_HostResult_HOST_BAD_TABLE },
    { 0 },
};
static const ErrnoCode detach_errors[] = { { ENOENT,
                                             viommu_HostResult_HOST_NOT_ATTACHED },
                                           { 0 } };
static const ErrnoCode identify_errors[] = { { EEXIST,
                                               viommu_HostResult_HOST_FIELD_IN_USE },
                                             { 0 } };
static const ErrnoCode invalidate_errors[] = {
    { ENOENT, viommu_HostResult_HOST_NOT_ATTACHED },
    { EOPNOTSUPP, viommu_HostResult_HOST_NOT_SUPPORTED },
    { EINVAL, viommu_HostResult_HOST_BAD_INVALIDATION },
    { EIO, viommu_HostResult_HOST_BAD_INVALIDATION },
    { 0 },
};

static void set_error(viommu_HostReply *reply, int result, const ErrnoCode *known)
{
    if (!result) {
        return;
    }
    while (known->error && known->error != -result) {
        known++;
    }
    reply->code = known->error ? known->code : viommu_HostResult_HOST_FAILED;
    viommu_text_copy(reply->text, sizeof(reply->text), strerror(-result));
}

/* NULL when the device is gone, and the answer says so. */
static HostDevice *device_of(const ViommuCore *core, uint32_t number,
                             viommu_HostReply *reply)
{
    HostDevice *device = viommu_iommufd_host_device(core->host, number);

    if (!device) {
        reply->code = viommu_HostResult_HOST_NO_SUCH_DEVICE;
        snprintf(reply->text, sizeof(reply->text), "device %" PRIu32, number);
    }
    return device;
}

/* PASIDs are one more on the wire; 0 = requests without. */
static int32_t pasid_of(uint32_t pasid_plus_1)
{
    return pasid_plus_1 ? (int32_t)pasid_plus_1 - 1 : IOMMUFD_NO_PASID;
}

static bool create_space(ViommuCore *core, const WireFrame *frame,
                         viommu_HostReply *reply)
{
    viommu_HostSpaceCreate msg = viommu_HostSpaceCreate_init_zero;
    HostDevice *device;

    if (!viommu_wire_decode(frame, viommu_HostSpaceCreate_fields, &msg)) {
        return false;
    }
    device = device_of(core, msg.device, reply);
    if (device) {
        set_error(reply,
                  viommu_iommufd_host_create_space(core->host, msg.space, device,
                                                   msg.parent),
                  space_errors);
    }
    return true;
}

static bool destroy_space(ViommuCore *core, const WireFrame *frame,
                          viommu_HostReply *reply)
{
    viommu_HostSpaceDestroy msg = viommu_HostSpaceDestroy_init_zero;

    if (!viommu_wire_decode(frame, viommu_HostSpaceDestroy_fields, &msg)) {
        return false;
    }
    set_error(reply, viommu_iommufd_host_destroy_space(core->host, msg.space),
              space_errors);
    return true;
}

/* RAM of one region, or NULL. */
static void *memory_at(const ViommuCore *core, uint64_t gpa, uint64_t size, bool write)
{
    const ViommuRegion *region;

    QTAILQ_FOREACH(region, &core->regions, next) {
        if (gpa >= region->gpa && size <= region->size &&
            gpa - region->gpa <= region->size - size) {
            return write && region->readonly ?
                       NULL :
                       (uint8_t *)memory_region_get_ram_ptr(region->mr) + region->offset +
                           (gpa - region->gpa);
        }
    }
    return NULL;
}

/* One operation of a HOST_MAP. */
static void change(ViommuCore *core, uint32_t space, const uint32_t *w,
                   viommu_HostReply *reply)
{
    uint64_t first = viommu_u64(w[1], w[2]), last = viommu_u64(w[3], w[4]);
    uint64_t gpa = viommu_u64(w[5], w[6]);
    uint64_t size = last - first + 1;
    void *memory;

    if (last < first || size == 0) {
        reply->code = viommu_HostResult_HOST_BAD_RANGE;
        return;
    }
    if (!w[0]) {
        set_error(reply, viommu_iommufd_host_unmap(core->host, space, first, size),
                  map_errors);
        return;
    }
    memory = memory_at(core, gpa, size, w[0] & IOMMU_WO);
    if (!memory) {
        reply->code = viommu_HostResult_HOST_NOT_MEMORY;
        return;
    }
    set_error(reply,
              viommu_iommufd_host_map(core->host, space, first, memory, size, w[0]),
              map_errors);
}

static bool map(ViommuCore *core, const WireFrame *frame, viommu_HostReply *reply)
{
    viommu_HostMap msg = viommu_HostMap_init_zero;
    g_autofree WireOperations *operations = g_new(WireOperations, 1);
    const uint32_t *w = operations->words;

    viommu_wire_operations_init(&msg.ops, operations);
    if (!viommu_wire_decode(frame, viommu_HostMap_fields, &msg) ||
        operations->count % HOST_OPERATION_WORDS) {
        return false;
    }
    for (; w < operations->words + operations->count && !reply->code;
         w += HOST_OPERATION_WORDS) {
        change(core, msg.space, w, reply);
        reply->done += !reply->code;
    }
    return true;
}

static bool attach(ViommuCore *core, const WireFrame *frame, viommu_HostReply *reply)
{
    viommu_HostAttach msg = viommu_HostAttach_init_zero;
    HostDevice *device;

    if (!viommu_wire_decode(frame, viommu_HostAttach_fields, &msg)) {
        return false;
    }
    device = device_of(core, msg.device, reply);
    if (device) {
        set_error(reply,
                  viommu_iommufd_host_attach(core->host, device, pasid_of(msg.pasid),
                                             msg.space),
                  attach_errors);
    }
    return true;
}

static bool attach_tables(ViommuCore *core, const WireFrame *frame,
                          viommu_HostReply *reply)
{
    viommu_HostAttachTables msg = viommu_HostAttachTables_init_zero;
    HostDevice *device;

    if (!viommu_wire_decode(frame, viommu_HostAttachTables_fields, &msg)) {
        return false;
    }
    device = device_of(core, msg.device, reply);
    if (device) {
        set_error(reply,
                  viommu_iommufd_host_attach_nested(core->host, device,
                                                    pasid_of(msg.pasid), msg.parent,
                                                    msg.type, msg.data.bytes,
                                                    msg.data.size),
                  table_errors);
    }
    return true;
}

static bool detach(ViommuCore *core, const WireFrame *frame, viommu_HostReply *reply)
{
    viommu_HostDetach msg = viommu_HostDetach_init_zero;
    HostDevice *device;

    if (!viommu_wire_decode(frame, viommu_HostDetach_fields, &msg)) {
        return false;
    }
    device = device_of(core, msg.device, reply);
    if (device) {
        set_error(reply,
                  viommu_iommufd_host_detach(core->host, device, pasid_of(msg.pasid)),
                  detach_errors);
    }
    return true;
}

static bool identify(ViommuCore *core, const WireFrame *frame, viommu_HostReply *reply)
{
    viommu_HostIdentify msg = viommu_HostIdentify_init_zero;
    HostDevice *device;

    if (!viommu_wire_decode(frame, viommu_HostIdentify_fields, &msg)) {
        return false;
    }
    device = device_of(core, msg.device, reply);
    if (device) {
        set_error(reply,
                  viommu_iommufd_host_identify(core->host, device,
                                               viommu_u64(msg.id_lo, msg.id_hi)),
                  identify_errors);
    }
    return true;
}

/* Entries of one device's tables, target by target. */
static void invalidate_tables(ViommuCore *core, const viommu_HostInvalidate *msg,
                              const WireOperations *targets, const WireBytes *entries,
                              viommu_HostReply *reply)
{
    const uint32_t *w = targets->words;
    uint32_t left = entries->size / msg->size;
    const uint8_t *at = entries->bytes;

    for (; w < targets->words + targets->count && !reply->code; w += TARGET_WORDS) {
        HostDevice *device = device_of(core, w[0], reply);
        uint32_t count = w[2];

        if (!device) {
            return;
        }
        if (count > left) {
            reply->code = viommu_HostResult_HOST_BAD_INVALIDATION;
            return;
        }
        left -= count;
        set_error(reply,
                  viommu_iommufd_host_invalidate_tables(core->host, device,
                                                        pasid_of(w[1]), msg->type, at,
                                                        msg->size, &count),
                  invalidate_errors);
        reply->done += count;
        at += w[2] * msg->size;
    }
}

static bool invalidate(ViommuCore *core, const WireFrame *frame, viommu_HostReply *reply)
{
    viommu_HostInvalidate msg = viommu_HostInvalidate_init_zero;
    g_autofree WireOperations *targets = g_new(WireOperations, 1);
    g_autofree WireBytes *entries = g_new(WireBytes, 1);
    uint32_t count;

    viommu_wire_operations_init(&msg.targets, targets);
    viommu_wire_bytes_init(&msg.entries, entries);
    if (!viommu_wire_decode(frame, viommu_HostInvalidate_fields, &msg) ||
        targets->count % TARGET_WORDS || !msg.size || entries->size % msg.size) {
        return false;
    }
    if (targets->count) {
        invalidate_tables(core, &msg, targets, entries, reply);
        return true;
    }
    count = entries->size / msg.size;
    set_error(reply,
              viommu_iommufd_host_invalidate_viommu(core->host, msg.space, msg.type,
                                                    entries->bytes, msg.size, &count),
              invalidate_errors);
    reply->done = count;
    return true;
}

static bool respond(ViommuCore *core, const WireFrame *frame)
{
    viommu_HostRespond msg = viommu_HostRespond_init_zero;
    HostDevice *device;

    if (!viommu_wire_decode(frame, viommu_HostRespond_fields, &msg)) {
        return false;
    }
    device = viommu_iommufd_host_device(core->host, msg.device);
    /* A group may have gone with the tables that its requests came through. */
    if (device) {
        viommu_iommufd_host_respond(core->host, device, pasid_of(msg.pasid), msg.group,
                                    msg.code);
    }
    return true;
}

/* host_lock held, and there is a host. */
static bool carry_out(ViommuCore *core, const WireFrame *frame, viommu_HostReply *reply)
{
    switch (frame->type) {
    case viommu_MessageType_HOST_SPACE_CREATE:
        return create_space(core, frame, reply);
    case viommu_MessageType_HOST_SPACE_DESTROY:
        return destroy_space(core, frame, reply);
    case viommu_MessageType_HOST_MAP:
        return map(core, frame, reply);
    case viommu_MessageType_HOST_ATTACH:
        return attach(core, frame, reply);
    case viommu_MessageType_HOST_ATTACH_TABLES:
        return attach_tables(core, frame, reply);
    case viommu_MessageType_HOST_DETACH:
        return detach(core, frame, reply);
    case viommu_MessageType_HOST_IDENTIFY:
        return identify(core, frame, reply);
    case viommu_MessageType_HOST_INVALIDATE:
        return invalidate(core, frame, reply);
    case viommu_MessageType_HOST_RESPOND:
        return respond(core, frame);
    default:
        /*
         * PASIDs of an mdev's parent: no kernel gives them out, and HOST_DEVICE says so.
         */
        reply->code = viommu_HostResult_HOST_NOT_SUPPORTED;
        return true;
    }
}

bool viommu_host_objects_serve(ViommuCore *core, const WireFrame *frame)
{
    viommu_HostReply reply = viommu_HostReply_init_zero;
    bool ok = true;

    qemu_mutex_lock(&core->host_lock);
    if (!core->host || !viommu_core_alive(core)) {
        reply.code = viommu_HostResult_HOST_NO_SUCH_DEVICE;
    } else {
        ok = carry_out(core, frame, &reply);
    }
    qemu_mutex_unlock(&core->host_lock);
    if (ok && frame->type != viommu_MessageType_HOST_RESPOND) {
        viommu_backend_reply(core, frame->type, frame->id, viommu_HostReply_fields,
                             &reply);
    }
    return ok;
}
