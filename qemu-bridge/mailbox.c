/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The mailbox holds one frame each way in the control page. The daemon polls it for
 * requests, and the thread that asks polls it for the answer. A side that has polled long
 * enough says so in the control page and sleeps; the other side then wakes it with MAIL
 * on the front channel. The answer is copied out of shared memory before it is parsed.
 */
#include "compat.h"
#include "front.h"
#include "mailbox.h"
#include "shared-page.h"
#include "viommu-core.h"
#include "wire.h"

/*
 * Polls before this thread sleeps: about as long as it takes to wake up. At the socket
 * each poll is a system call.
 */
#define LOOKS_INTO_MAILBOX 2048
#define LOOKS_AT_SOCKET 64
/*
 * Polls until a daemon that was woken has to run. One that does not run by then may be
 * waiting for this CPU.
 */
#define LOOKS_FOR_WAKING 1024
#define LOOKS_AT_ONCE 16

static uint8_t *place(const ViommuCore *core, viommu_ControlWord word)
{
    return (uint8_t *)viommu_control(core, word);
}

static bool handled(const ViommuCore *core)
{
    return qatomic_load_acquire(viommu_control(core, viommu_CONTROL_WORD_MAIL_HANDLED)) ==
           core->front.mail_sent;
}

static bool daemon_sleeps(const ViommuCore *core)
{
    return qatomic_read(viommu_control(core, viommu_CONTROL_WORD_DAEMON_SLEEPS));
}

/* The CPU that this thread runs on, counted from 1. */
static uint32_t processor(void)
{
    return sched_getcpu() + 1;
}

/* False: the mailbox is full, or not in force. */
static bool put(ViommuCore *core, uint32_t type, uint32_t flags, uint32_t id,
                const pb_msgdesc_t *fields, const void *message)
{
    ViommuFront *front = &core->front;

    if (!viommu_core_has(core, viommu_Feature_FEATURE_MAILBOX) ||
        !viommu_core_alive(core) || !handled(core) ||
        !viommu_wire_encode(place(core, viommu_CONTROL_WORD_MAIL_FRAME), MAIL_BYTES, type,
                            flags, id, fields, message)) {
        return false;
    }
    qatomic_set(viommu_control(core, viommu_CONTROL_WORD_MAIL_AFTER), front->sent);
    qatomic_set(viommu_control(core, viommu_CONTROL_WORD_PEER_CPU), processor());
    qatomic_store_release(viommu_control(core, viommu_CONTROL_WORD_MAIL_SENT),
                          ++front->mail_sent);
    /*
     * Either the daemon finds the frame before it sleeps, or this thread sees that it
     * sleeps.
     */
    smp_mb();
    if (daemon_sleeps(core)) {
        viommu_front_post_locked(core, viommu_MessageType_MAIL, NULL, NULL);
    }
    return true;
}

static bool answered(const ViommuCore *core)
{
    return qatomic_load_acquire(
               viommu_control(core, viommu_CONTROL_WORD_MAIL_ANSWERED)) !=
           core->front.mail_answers;
}

/*
 * Whether the daemon cannot run while this thread polls, because both are on the same
 * CPU.
 */
static bool in_the_way(const ViommuCore *core)
{
    uint32_t where = qatomic_read(viommu_control(core, viommu_CONTROL_WORD_DAEMON_CPU));

    return !daemon_sleeps(core) && where && where == processor();
}

/* Polls. False: it is better to sleep. */
static bool look_for(ViommuCore *core, bool (*there)(const ViommuCore *core))
{
    int look;

    for (look = 0; look < LOOKS_INTO_MAILBOX; look++) {
        if (there(core)) {
            return true;
        }
        if (look % LOOKS_AT_ONCE == 0 &&
            (in_the_way(core) || (look >= LOOKS_FOR_WAKING && daemon_sleeps(core)))) {
            return false;
        }
        cpu_relax();
    }
    return false;
}

/* Polls, then sleeps. False: the daemon is gone. */
static bool await(ViommuCore *core, bool (*there)(const ViommuCore *core))
{
    WireFrame frame;
    bool ok = true;

    if (look_for(core, there)) {
        return true;
    }
    qatomic_set(viommu_control(core, viommu_CONTROL_WORD_PEER_SLEEPS), 1);
    /* Either this thread finds the answer, or the daemon sees that it sleeps. */
    smp_mb();
    while (ok && !there(core)) {
        ok = viommu_front_next_locked(core, &frame);
        if (ok && frame.type != viommu_MessageType_MAIL) {
            viommu_core_gone(core,
                             "the daemon sent message type %" PRIu32 " before its answer",
                             frame.type);
            ok = false;
        }
    }
    qatomic_set(viommu_control(core, viommu_CONTROL_WORD_PEER_SLEEPS), 0);
    return ok;
}

/* Takes the answer. False: it comes on the front channel. */
static bool take(ViommuCore *core, WireFrame *frame, bool *ok)
{
    ViommuFront *front = &core->front;
    const uint8_t *answer = place(core, viommu_CONTROL_WORD_MAIL_ANSWER);

    front->mail_answers++;
    memcpy(front->mail, answer, WIRE_HEADER_BYTES);
    if (ldl_le_p(front->mail) == viommu_MessageType_NONE) {
        return false;
    }
    *ok = viommu_wire_parse_header(front->mail, MAIL_ANSWER_BYTES - WIRE_HEADER_BYTES,
                                   frame);
    if (*ok) {
        memcpy(front->mail + WIRE_HEADER_BYTES, answer + WIRE_HEADER_BYTES, frame->size);
    } else {
        viommu_core_gone(core, "%s", viommu_wire_result_text(WIRE_MALFORMED));
    }
    return true;
}

bool viommu_mailbox_request_locked(ViommuCore *core, uint32_t type,
                                   const pb_msgdesc_t *fields, const void *message,
                                   const pb_msgdesc_t *reply_fields, void *reply)
{
    ViommuFront *front = &core->front;
    uint32_t id = front->next_id++;
    WireFrame frame;
    bool ok;

    if (put(core, type, WIRE_FLAG_NEED_REPLY, id, fields, message)) {
        if (!await(core, answered)) {
            return false;
        }
        if (take(core, &frame, &ok)) {
            return ok &&
                   viommu_front_take_locked(core, &frame, type, id, reply_fields, reply);
        }
        return viommu_front_receive_locked(core, type, id, reply_fields, reply);
    }
    front->wire.looks = LOOKS_AT_SOCKET;
    ok = viommu_front_send_locked(core, type, WIRE_FLAG_NEED_REPLY, id, fields,
                                  message) &&
         viommu_front_receive_locked(core, type, id, reply_fields, reply);
    front->wire.looks = 0;
    return ok;
}

bool viommu_mailbox_reply_locked(ViommuCore *core, uint32_t type, uint32_t id,
                                 const pb_msgdesc_t *fields, const void *message)
{
    if (!put(core, type, WIRE_FLAG_REPLY, id, fields, message)) {
        return viommu_front_reply_locked(core, type, id, fields, message);
    }
    /*
     * Wait for the daemon here. A guest that does not see its completion yet polls for
     * it, which takes longer, and may keep the CPU that the daemon needs.
     */
    return await(core, handled);
}
