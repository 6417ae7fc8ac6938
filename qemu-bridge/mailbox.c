/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The mailbox: a frame each way in the control page, for a daemon that looks there and a thread that looks for its answer.
 * Whoever has looked for long enough says so, sleeps, and is woken by MAIL on the front channel. What the daemon puts there
 * is copied before it is looked at.
 */
#include "compat.h"
#include "viommu-core.h"

/* Before this thread sleeps: about as long as it takes to wake up. The latter cost a system call each. */
#define LOOKS_INTO_MAILBOX 2048
#define LOOKS_AT_SOCKET 64
#define LOOKS_FOR_COMPLETION 256

static uint8_t *place(const ViommuCore *core, ControlWord word)
{
    return (uint8_t *)viommu_control(core, word);
}

/* False: there is no room for it now, or no mailbox. */
static bool put(ViommuCore *core, uint32_t type, uint32_t flags, uint32_t id, const pb_msgdesc_t *fields,
                const void *message)
{
    ViommuFront *front = &core->front;

    if (!viommu_core_has(core, viommu_Feature_FEATURE_MAILBOX) || !viommu_core_alive(core) ||
        qatomic_load_acquire(viommu_control(core, CONTROL_WORD_MAIL_TAKEN)) != front->mail_sent ||
        !wire_encode(place(core, CONTROL_WORD_MAIL_AFTER) + 4, MAIL_BYTES, type, flags, id, fields, message)) {
        return false;
    }
    qatomic_set(viommu_control(core, CONTROL_WORD_MAIL_AFTER), front->sent);
    qatomic_store_release(viommu_control(core, CONTROL_WORD_MAIL_SENT), ++front->mail_sent);
    /* Either the daemon finds the frame before it sleeps, or it is seen here that it does. */
    smp_mb();
    if (qatomic_read(viommu_control(core, CONTROL_WORD_DAEMON_SLEEPS))) {
        viommu_front_post_locked(core, viommu_MessageType_MAIL, NULL, NULL);
    }
    return true;
}

static bool answered(const ViommuCore *core)
{
    return qatomic_load_acquire(viommu_control(core, CONTROL_WORD_MAIL_ANSWERED)) != core->front.mail_answers;
}

static bool handled(const ViommuCore *core)
{
    return qatomic_load_acquire(viommu_control(core, CONTROL_WORD_MAIL_HANDLED)) == core->front.mail_sent;
}

/* False: the daemon is gone. */
static bool await_answer(ViommuCore *core)
{
    WireFrame frame;
    bool ok = true;
    int look;

    for (look = 0; look < LOOKS_INTO_MAILBOX; look++) {
        if (answered(core)) {
            return true;
        }
        cpu_relax();
    }
    qatomic_set(viommu_control(core, CONTROL_WORD_PEER_SLEEPS), 1);
    smp_mb();
    while (ok && !answered(core)) {
        ok = viommu_front_next_locked(core, &frame);
        if (ok && frame.type != viommu_MessageType_MAIL) {
            viommu_core_gone(core, "the daemon sent message type %" PRIu32 " before its answer", frame.type);
            ok = false;
        }
    }
    qatomic_set(viommu_control(core, CONTROL_WORD_PEER_SLEEPS), 0);
    return ok;
}

/* False: it comes on the front channel. */
static bool take(ViommuCore *core, WireFrame *frame, bool *ok)
{
    ViommuFront *front = &core->front;

    front->mail_answers++;
    memcpy(front->mail, place(core, CONTROL_WORD_MAIL_ANSWER), sizeof(front->mail));
    if (ldl_le_p(front->mail) == viommu_MessageType_NONE) {
        return false;
    }
    *ok = wire_parse_header(front->mail, MAIL_ANSWER_BYTES - WIRE_HEADER_BYTES, frame);
    if (!*ok) {
        viommu_core_gone(core, "%s", wire_result_text(WIRE_MALFORMED));
    }
    return true;
}

bool viommu_mail_request_locked(ViommuCore *core, uint32_t type, const pb_msgdesc_t *fields, const void *message,
                                const pb_msgdesc_t *reply_fields, void *reply)
{
    ViommuFront *front = &core->front;
    uint32_t id = front->next_id++;
    WireFrame frame;
    bool ok;

    if (put(core, type, WIRE_FLAG_NEED_REPLY, id, fields, message)) {
        if (!await_answer(core)) {
            return false;
        }
        if (take(core, &frame, &ok)) {
            return ok && viommu_front_take_locked(core, &frame, type, id, reply_fields, reply);
        }
        return viommu_front_receive_locked(core, type, id, reply_fields, reply);
    }
    front->wire.looks = LOOKS_AT_SOCKET;
    ok = viommu_front_send_locked(core, type, WIRE_FLAG_NEED_REPLY, id, fields, message) &&
         viommu_front_receive_locked(core, type, id, reply_fields, reply);
    front->wire.looks = 0;
    return ok;
}

bool viommu_mail_reply_locked(ViommuCore *core, uint32_t type, uint32_t id, const pb_msgdesc_t *fields,
                              const void *message)
{
    int look;

    if (!put(core, type, WIRE_FLAG_REPLY, id, fields, message)) {
        return viommu_front_reply_locked(core, type, id, fields, message);
    }
    /* A guest that does not find its completion there pauses, which takes longer. */
    for (look = 0; look < LOOKS_FOR_COMPLETION && !handled(core); look++) {
        cpu_relax();
    }
    return true;
}
