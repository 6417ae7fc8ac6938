/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The layout of the file that bridge and daemon share: the control page with its words and
 * the mailbox, the state page, the registers, the ring. The numbers are the contract's
 * (proto/viommu.proto, SharedFile and ControlWord); these are sizes that follow from them.
 */
#ifndef VIOMMU_SHARED_PAGE_H
#define VIOMMU_SHARED_PAGE_H

#include "viommu.pb.h"

#define PAGE_REGISTERS_OFFSET viommu_SHARED_REGISTERS

/* Bytes of the mailbox's two places. */
#define MAIL_BYTES \
    ((viommu_CONTROL_WORD_MAIL_FRAME_END - viommu_CONTROL_WORD_MAIL_FRAME) * 4)
#define MAIL_ANSWER_BYTES \
    ((viommu_CONTROL_WORD_MAIL_ANSWER_END - viommu_CONTROL_WORD_MAIL_ANSWER) * 4)

/* The ring of commands that were carried out here, at the file's end. */
#define RING_BYTES viommu_SHARED_RING_BYTES
#define RING_SLOT_BYTES ((uint32_t)viommu_SHARED_RING_SLOT_BYTES)
#define RING_SLOTS (RING_BYTES / RING_SLOT_BYTES)

#endif
