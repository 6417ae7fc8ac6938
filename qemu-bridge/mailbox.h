/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Register writes and their answers without system calls, where MAILBOX is in force; on
 * the front channel otherwise. front.lock.
 */
#ifndef VIOMMU_MAILBOX_H
#define VIOMMU_MAILBOX_H

#include "wire.h"

typedef struct ViommuCore ViommuCore;

/** As viommu_front_request_locked. */
bool viommu_mailbox_request_locked(ViommuCore *core, uint32_t type,
                                   const pb_msgdesc_t *fields, const void *message,
                                   const pb_msgdesc_t *reply_fields, void *reply);
/** As viommu_front_reply_locked; returns when the daemon has handled it. */
bool viommu_mailbox_reply_locked(ViommuCore *core, uint32_t type, uint32_t id,
                                 const pb_msgdesc_t *fields, const void *message);

#endif
