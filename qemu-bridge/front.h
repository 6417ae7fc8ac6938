/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Requests to the daemon on the front channel, one at a time. Functions named `_locked`
 * want front.lock held. False: the daemon is gone, which is reported already.
 */
#ifndef VIOMMU_FRONT_H
#define VIOMMU_FRONT_H

#include "shared-page.h"
#include "wire.h"

typedef struct ViommuCore ViommuCore;

typedef struct ViommuFront {
    QemuMutex lock;
    Wire wire;
    uint32_t next_id;
    uint32_t sent;                /* frames, modulo 2^32 */
    uint32_t mail_sent;           /* frames put into the mailbox */
    uint32_t mail_answers;        /* answers taken from it */
    uint8_t mail[MAIL_ANSWER_BYTES];
    WireOperations operations;    /* what came with the answer to a REG_WRITE; big lock */
    viommu_HostBatchReply failed; /* and what becomes of it */
} ViommuFront;

bool viommu_front_request_locked(ViommuCore *core, uint32_t type,
                                 const pb_msgdesc_t *fields, const void *message, int fd,
                                 const pb_msgdesc_t *reply_fields, void *reply);
bool viommu_front_post_locked(ViommuCore *core, uint32_t type, const pb_msgdesc_t *fields,
                              const void *message);
/** Sends a frame as given. */
bool viommu_front_send_locked(ViommuCore *core, uint32_t type, uint32_t flags,
                              uint32_t id, const pb_msgdesc_t *fields,
                              const void *message);
/** Receives a frame that is not an ERROR. */
bool viommu_front_next_locked(ViommuCore *core, WireFrame *frame);
/** Decodes a frame that must be the reply to `id`. */
bool viommu_front_take_locked(ViommuCore *core, const WireFrame *frame, uint32_t type,
                              uint32_t id, const pb_msgdesc_t *fields, void *reply);
/** Receives the reply to `id` on the front channel, and decodes it. */
bool viommu_front_receive_locked(ViommuCore *core, uint32_t type, uint32_t id,
                                 const pb_msgdesc_t *fields, void *reply);
/** Answers what came with an answer. */
bool viommu_front_reply_locked(ViommuCore *core, uint32_t type, uint32_t id,
                               const pb_msgdesc_t *fields, const void *message);
bool viommu_front_request(ViommuCore *core, uint32_t type, const pb_msgdesc_t *fields,
                          const void *message, int fd, const pb_msgdesc_t *reply_fields,
                          void *reply);
bool viommu_front_post(ViommuCore *core, uint32_t type, const pb_msgdesc_t *fields,
                       const void *message);
bool viommu_front_hello(ViommuCore *core, const viommu_Hello *hello, const int *fds,
                        unsigned nfds, viommu_HelloReply *reply);
/** False: a span is cut short, which ends the session. */
bool viommu_front_spans_are_whole(ViommuCore *core, const WireSpans *spans);

#endif
