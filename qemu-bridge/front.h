/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Requests to the daemon: on the front channel (front.c), or through the mailbox (mailbox.c). */
#ifndef VIOMMU_FRONT_H
#define VIOMMU_FRONT_H

#include "shared-page.h"
#include "wire.h"

typedef struct ViommuCore ViommuCore;

/* The front channel: one request at a time. */
typedef struct ViommuFront {
    QemuMutex lock;
    Wire wire;
    uint32_t next_id;
    uint32_t sent;                /* frames, modulo 2^32 */
    uint32_t mail_sent;           /* the same of the mailbox, and answers taken from there */
    uint32_t mail_answers;
    uint8_t mail[MAIL_ANSWER_BYTES];
    WireOperations operations;    /* what came with the answer to a REG_WRITE; big lock */
    viommu_HostBatchReply failed; /* and what becomes of it */
} ViommuFront;

/* front.c. False = the daemon is gone (already said). */

bool viommu_front_request_locked(ViommuCore *core, uint32_t type, const pb_msgdesc_t *fields,
                                 const void *message, int fd, const pb_msgdesc_t *reply_fields, void *reply);
bool viommu_front_post_locked(ViommuCore *core, uint32_t type, const pb_msgdesc_t *fields, const void *message);
/** Sends a frame as given. */
bool viommu_front_send_locked(ViommuCore *core, uint32_t type, uint32_t flags, uint32_t id,
                              const pb_msgdesc_t *fields, const void *message);
/** Receives a frame; not an ERROR, which is said. */
bool viommu_front_next_locked(ViommuCore *core, WireFrame *frame);
/** Takes a frame that must be the reply to `id`. */
bool viommu_front_take_locked(ViommuCore *core, const WireFrame *frame, uint32_t type, uint32_t id,
                              const pb_msgdesc_t *fields, void *reply);
/** Both: what has been asked for comes on the front channel. */
bool viommu_front_receive_locked(ViommuCore *core, uint32_t type, uint32_t id, const pb_msgdesc_t *fields,
                                 void *reply);
/** Answers what came with an answer. */
bool viommu_front_reply_locked(ViommuCore *core, uint32_t type, uint32_t id, const pb_msgdesc_t *fields,
                               const void *message);
bool viommu_front_request(ViommuCore *core, uint32_t type, const pb_msgdesc_t *fields, const void *message,
                          int fd, const pb_msgdesc_t *reply_fields, void *reply);
bool viommu_front_post(ViommuCore *core, uint32_t type, const pb_msgdesc_t *fields, const void *message);
bool viommu_front_hello(ViommuCore *core, const viommu_Hello *hello, const int *fds, unsigned nfds,
                        viommu_HelloReply *reply);
/** Ends the session when a span is cut short. */
bool viommu_spans_are_whole(ViommuCore *core, const WireSpans *spans);
/** Says why, if the frame is an ERROR; true when it was one. */
bool viommu_frame_is_error(ViommuCore *core, const WireFrame *frame);

/* mailbox.c: register writes and their answers without system calls, where MAILBOX is in force. front.lock. */

/** As viommu_front_request_locked. */
bool viommu_mail_request_locked(ViommuCore *core, uint32_t type, const pb_msgdesc_t *fields, const void *message,
                                const pb_msgdesc_t *reply_fields, void *reply);
/** As viommu_front_reply_locked. */
bool viommu_mail_reply_locked(ViommuCore *core, uint32_t type, uint32_t id, const pb_msgdesc_t *fields,
                              const void *message);

#endif
