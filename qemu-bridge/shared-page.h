/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The layout of the file that bridge and daemon share (proto/viommu.proto, Hello.shared_bytes): the control page with
 * its words and the mailbox, the state page, the registers, the ring.
 */
#ifndef VIOMMU_SHARED_PAGE_H
#define VIOMMU_SHARED_PAGE_H

#define PAGE_CONTROL_BYTES 4096
#define PAGE_STATE_BYTES 4096
#define PAGE_REGISTERS_OFFSET (PAGE_CONTROL_BYTES + PAGE_STATE_BYTES)
#define CONTROL_MAGIC 0x564d4956u

typedef enum ControlWord {
    CONTROL_WORD_MAGIC = 0,
    CONTROL_WORD_HANDLED = 1,
    CONTROL_WORD_QUEUE = 2,
    CONTROL_WORD_RING_TAKEN = 3,
    CONTROL_WORD_HITS_LO = 4,
    CONTROL_WORD_HITS_HI = 5,
    CONTROL_WORD_MISSES_LO = 6,
    CONTROL_WORD_MISSES_HI = 7,
    CONTROL_WORD_STALE_FILLS = 8,
    CONTROL_WORD_INVALIDATED = 9,
    CONTROL_WORD_REFUSED = 10,
    CONTROL_WORD_WALKS_LO = 12,
    CONTROL_WORD_WALKS_HI = 13,
    CONTROL_WORD_PEER_SLEEPS = 16,
    CONTROL_WORD_DAEMON_SLEEPS = 17,
    CONTROL_WORD_DAEMON_CPU = 18,
    CONTROL_WORD_SENT = 32,
    CONTROL_WORD_RING_FILLED = 33,
    CONTROL_WORD_MAIL_SENT = 256,
    CONTROL_WORD_MAIL_AFTER = 257,
    CONTROL_WORD_FRONT_SENT = 258,
    CONTROL_WORD_PEER_CPU = 259,
    CONTROL_WORD_MAIL_FRAME = 260,
    CONTROL_WORD_MAIL_ANSWERED = 512,
    CONTROL_WORD_MAIL_HANDLED = 513,
    CONTROL_WORD_MAIL_ANSWER = 514,
} ControlWord;

/* Bytes of the mailbox's two places. */
#define MAIL_BYTES 496
#define MAIL_ANSWER_BYTES 2040

/* The ring of commands that were carried out here, at the file's end. */
#define RING_SLOT_BYTES 16
#define RING_SLOTS 16384
#define RING_BYTES (RING_SLOTS * RING_SLOT_BYTES)

#endif
