/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "compat.h"
#include "backend.h"
#include "guest-memory.h"
#include "guest-messages.h"
#include "wire.h"

bool viommu_guest_messages_serve_read(ViommuCore *core, const WireFrame *frame)
{
    viommu_MemRead msg = viommu_MemRead_init_zero;
    viommu_MemReadReply reply;

    if (!viommu_wire_decode(frame, viommu_MemRead_fields, &msg) ||
        msg.size > sizeof(reply.data.bytes)) {
        return false;
    }
    reply.code = viommu_guest_read(viommu_u64(msg.gpa_lo, msg.gpa_hi), reply.data.bytes,
                                   msg.size);
    reply.data.size = reply.code ? 0 : msg.size;
    viommu_backend_reply(core, viommu_MessageType_MEM_READ, frame->id,
                         viommu_MemReadReply_fields, &reply);
    return true;
}

bool viommu_guest_messages_serve_write(ViommuCore *core, const WireFrame *frame)
{
    viommu_MemWrite msg = viommu_MemWrite_init_zero;
    viommu_Status reply = viommu_Status_init_zero;

    if (!viommu_wire_decode(frame, viommu_MemWrite_fields, &msg)) {
        return false;
    }
    reply.code = viommu_guest_write(viommu_u64(msg.gpa_lo, msg.gpa_hi), msg.data.bytes,
                                    msg.data.size);
    viommu_backend_reply(core, viommu_MessageType_MEM_WRITE, frame->id,
                         viommu_Status_fields, &reply);
    return true;
}

bool viommu_guest_messages_serve_cas(ViommuCore *core, const WireFrame *frame)
{
    viommu_MemCas msg = viommu_MemCas_init_zero;
    viommu_MemCasReply reply = viommu_MemCasReply_init_zero;

    if (!viommu_wire_decode(frame, viommu_MemCas_fields, &msg)) {
        return false;
    }
    reply.code = viommu_guest_cas(viommu_u64(msg.gpa_lo, msg.gpa_hi), msg.expected,
                                  msg.value, &reply.found);
    viommu_backend_reply(core, viommu_MessageType_MEM_CAS, frame->id,
                         viommu_MemCasReply_fields, &reply);
    return true;
}
