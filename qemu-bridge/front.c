/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The front channel has one request in flight, and the daemon answers in order. The
 * caller's thread waits in recv, whether or not it holds the big lock: the daemon answers
 * while it waits for acknowledgements of its own (ordering rule 5), and the backend
 * thread needs no lock that a waiting thread may hold.
 */
#include "compat.h"
#include "front.h"
#include "shared-page.h"
#include "viommu-core.h"
#include "wire.h"

/*
 * MAIL that has come too late: the thread that looked for the answer found it before it
 * slept.
 */
static bool is_late_mail(const ViommuCore *core, const WireFrame *frame)
{
    return frame->type == viommu_MessageType_MAIL &&
           viommu_core_has(core, viommu_Feature_FEATURE_MAILBOX);
}

/* The next frame that is not such MAIL. */
static WireResult receive_past_mail(ViommuCore *core, WireFrame *frame)
{
    WireResult result;

    do {
        result = viommu_wire_receive(&core->front.wire, frame);
    } while (result == WIRE_OK && is_late_mail(core, frame));
    return result;
}

static bool send_fds_locked(ViommuCore *core, uint32_t type, uint32_t flags, uint32_t id,
                            const pb_msgdesc_t *fields, const void *message,
                            const int *fds, unsigned nfds)
{
    WireResult result;

    if (!viommu_core_alive(core)) {
        return false;
    }
    result = viommu_wire_send(&core->front.wire, type, flags, id, fields, message, fds,
                              nfds);
    if (result != WIRE_OK) {
        WireFrame frame;

        /*
         * A daemon that hangs up sends the reason first, which says more than "connection
         * closed".
         */
        if (result == WIRE_CLOSED && receive_past_mail(core, &frame) == WIRE_OK &&
            viommu_core_is_ended_by(core, &frame)) {
            return false;
        }
        viommu_core_gone(core, "%s", viommu_wire_result_text(result));
        return false;
    }
    /* A daemon that polls the mailbox learns of the frame there. */
    qatomic_set(viommu_control(core, viommu_CONTROL_WORD_FRONT_SENT), ++core->front.sent);
    return true;
}

bool viommu_front_send_locked(ViommuCore *core, uint32_t type, uint32_t flags,
                              uint32_t id, const pb_msgdesc_t *fields,
                              const void *message)
{
    return send_fds_locked(core, type, flags, id, fields, message, NULL, 0);
}

/* Whether a frame was received that is not an ERROR; reports otherwise. */
static bool is_frame(ViommuCore *core, WireResult result, const WireFrame *frame)
{
    if (result != WIRE_OK) {
        viommu_core_gone(core, "%s", viommu_wire_result_text(result));
        return false;
    }
    return !viommu_core_is_ended_by(core, frame);
}

bool viommu_front_next_locked(ViommuCore *core, WireFrame *frame)
{
    return is_frame(core, viommu_wire_receive(&core->front.wire, frame), frame);
}

bool viommu_front_take_locked(ViommuCore *core, const WireFrame *frame, uint32_t type,
                              uint32_t id, const pb_msgdesc_t *fields, void *reply)
{
    if (frame->type != type || !(frame->flags & WIRE_FLAG_REPLY) || frame->id != id) {
        viommu_core_gone(core,
                         "the daemon answered message %" PRIu32 " type %" PRIu32
                         " with message %" PRIu32 " type %" PRIu32,
                         id, type, frame->id, frame->type);
        return false;
    }
    if (fields && !viommu_wire_decode(frame, fields, reply)) {
        viommu_core_gone(core,
                         "the daemon's answer to message type %" PRIu32
                         " cannot be decoded",
                         type);
        return false;
    }
    return true;
}

bool viommu_front_receive_locked(ViommuCore *core, uint32_t type, uint32_t id,
                                 const pb_msgdesc_t *fields, void *reply)
{
    WireFrame frame;

    return is_frame(core, receive_past_mail(core, &frame), &frame) &&
           viommu_front_take_locked(core, &frame, type, id, fields, reply);
}

bool viommu_front_spans_are_whole(ViommuCore *core, const WireSpans *spans)
{
    if (spans->count % SPAN_WORDS) {
        viommu_core_gone(core,
                         "the daemon sent %" PRIu32 " words of spans of %d words each",
                         spans->count, SPAN_WORDS);
        return false;
    }
    return true;
}

static bool request_fds_locked(ViommuCore *core, uint32_t type,
                               const pb_msgdesc_t *fields, const void *message,
                               const int *fds, unsigned nfds,
                               const pb_msgdesc_t *reply_fields, void *reply)
{
    uint32_t id = core->front.next_id++;

    return send_fds_locked(core, type, WIRE_FLAG_NEED_REPLY, id, fields, message, fds,
                           nfds) &&
           viommu_front_receive_locked(core, type, id, reply_fields, reply);
}

bool viommu_front_request_locked(ViommuCore *core, uint32_t type,
                                 const pb_msgdesc_t *fields, const void *message, int fd,
                                 const pb_msgdesc_t *reply_fields, void *reply)
{
    return request_fds_locked(core, type, fields, message, &fd, fd >= 0 ? 1 : 0,
                              reply_fields, reply);
}

bool viommu_front_hello(ViommuCore *core, const viommu_Hello *hello, const int *fds,
                        unsigned nfds, viommu_HelloReply *reply)
{
    bool ok;

    qemu_mutex_lock(&core->front.lock);
    ok = request_fds_locked(core, viommu_MessageType_HELLO, viommu_Hello_fields, hello,
                            fds, nfds, viommu_HelloReply_fields, reply);
    qemu_mutex_unlock(&core->front.lock);
    return ok;
}

bool viommu_front_post_locked(ViommuCore *core, uint32_t type, const pb_msgdesc_t *fields,
                              const void *message)
{
    return viommu_front_send_locked(core, type, 0, core->front.next_id++, fields,
                                    message);
}

bool viommu_front_reply_locked(ViommuCore *core, uint32_t type, uint32_t id,
                               const pb_msgdesc_t *fields, const void *message)
{
    return viommu_front_send_locked(core, type, WIRE_FLAG_REPLY, id, fields, message);
}

bool viommu_front_request(ViommuCore *core, uint32_t type, const pb_msgdesc_t *fields,
                          const void *message, int fd, const pb_msgdesc_t *reply_fields,
                          void *reply)
{
    bool ok;

    qemu_mutex_lock(&core->front.lock);
    ok = viommu_front_request_locked(core, type, fields, message, fd, reply_fields,
                                     reply);
    qemu_mutex_unlock(&core->front.lock);
    return ok;
}

bool viommu_front_post(ViommuCore *core, uint32_t type, const pb_msgdesc_t *fields,
                       const void *message)
{
    bool ok;

    qemu_mutex_lock(&core->front.lock);
    ok = viommu_front_post_locked(core, type, fields, message);
    qemu_mutex_unlock(&core->front.lock);
    return ok;
}
