/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Frames on one AF_UNIX stream socket: a 16-byte little-endian header, then a protobuf
 * body (proto/viommu.proto, "Transport"). Framing, encoding and descriptors only;
 * messages have no meaning here.
 */
#ifndef VIOMMU_WIRE_H
#define VIOMMU_WIRE_H

#include "pb.h"
#include "viommu.pb.h"

/* The contract's numbers. */
#define WIRE_VERSION viommu_WIRE_VERSION
#define WIRE_HEADER_BYTES viommu_WIRE_HEADER_BYTES
#define WIRE_MAX_BODY viommu_WIRE_MAX_BODY
/*
 * The largest body that the bridge itself sends: a HOST_BATCH reply in which everything
 * failed.
 */
#define WIRE_MAX_SENT_BODY 20480
/* Most descriptors that one frame carries (HELLO). */
#define WIRE_MAX_FDS 2

#define WIRE_FLAG_VERSION_MASK viommu_WIRE_FLAG_VERSION_MASK
#define WIRE_FLAG_REPLY viommu_WIRE_FLAG_REPLY
#define WIRE_FLAG_NEED_REPLY viommu_WIRE_FLAG_NEED_REPLY

typedef struct WireFrame {
    uint32_t type;
    uint32_t flags;
    uint32_t size;
    uint32_t id;
    /* Points into the receiver's buffer; valid until the next viommu_wire_receive. */
    const uint8_t *body;
} WireFrame;

/* One direction pair of a socket. Callers serialise senders and receivers themselves. */
typedef struct Wire {
    int fd;
    uint32_t rx_start;
    uint32_t rx_end;
    uint32_t looks; /* for data, before the receiver sleeps */
    uint8_t tx[WIRE_HEADER_BYTES + WIRE_MAX_SENT_BODY];
    uint8_t rx[WIRE_HEADER_BYTES + WIRE_MAX_BODY];
} Wire;

typedef enum WireResult {
    WIRE_OK = 0,
    WIRE_CLOSED,     /* the peer closed, or the socket failed */
    WIRE_TIMEOUT,    /* nothing within the socket's timeout */
    WIRE_MALFORMED,  /* not a frame of this protocol, or a body that does not decode */
} WireResult;

/** Takes over `fd`. A `timeout_ms` of 0 waits for ever when receiving. */
void viommu_wire_init(Wire *w, int fd, uint32_t receive_timeout_ms,
                      uint32_t send_timeout_ms);

/**
 * Wakes every thread that waits on the socket. The descriptor stays open until
 * viommu_wire_close.
 */
void viommu_wire_shutdown(Wire *w);
void viommu_wire_close(Wire *w);

/**
 * Encodes and sends one frame, with `nfds` descriptors on its first byte.
 * `fields`/`message` may be NULL for an empty body.
 */
WireResult viommu_wire_send(Wire *w, uint32_t type, uint32_t flags, uint32_t id,
                            const pb_msgdesc_t *fields, const void *message,
                            const int *fds, unsigned nfds);

/**
 * Encodes one frame into `room` bytes at `buffer`. Returns its size, or 0 when it does
 * not fit. `fields`/`message` as for viommu_wire_send.
 */
size_t viommu_wire_encode(uint8_t *buffer, size_t room, uint32_t type, uint32_t flags,
                          uint32_t id, const pb_msgdesc_t *fields, const void *message);

/**
 * Parses a header; the body follows it. False: it is none, or more than `most` bytes
 * follow.
 */
bool viommu_wire_parse_header(const uint8_t *header, uint32_t most, WireFrame *frame);

/** Receives one frame. The header is judged before any of the body is waited for. */
WireResult viommu_wire_receive(Wire *w, WireFrame *frame);

/** Whether more than the frames received so far has been read from the socket. */
bool viommu_wire_has_more(const Wire *w);

/**
 * Decodes a frame's body. False: it is not that message, or exceeds the bridge's static
 * sizes.
 */
bool viommu_wire_decode(const WireFrame *frame, const pb_msgdesc_t *fields,
                        void *message);

/** For reports. */
const char *viommu_wire_result_text(WireResult result);

/* Six words of a span: input lo, hi, output lo, hi, log2 size, access bits. */
#define SPAN_WORDS viommu_WIRE_SPAN_WORDS
#define MAX_SPANS 64

/* Where a decoder puts `repeated fixed32 spans`. */
typedef struct WireSpans {
    uint32_t count; /* words; more than fit make the decoding fail */
    uint32_t words[MAX_SPANS * SPAN_WORDS];
} WireSpans;

/*
 * Words of a host operation: access bits; lo and hi of first input address, last one,
 * memory.
 */
#define HOST_OPERATION_WORDS viommu_WIRE_OPERATION_WORDS
#define MAX_HOST_OPERATIONS 2048

/*
 * Words of a page of a TRACK: lo and hi of the address, with a bit that says whether
 * tracking begins.
 */
#define TRACK_WORDS 2
#define TRACK_BEGIN 1u

/* Where a decoder puts `repeated fixed32` ops of a HOST_BATCH, or pages of a TRACK. */
typedef struct WireOperations {
    uint32_t count; /* words */
    uint32_t words[MAX_HOST_OPERATIONS * HOST_OPERATION_WORDS];
} WireOperations;

/* Where a decoder puts a field of bytes. */
typedef struct WireBytes {
    uint32_t size;
    uint8_t bytes[WIRE_MAX_BODY];
} WireBytes;

/** Hooks a field of bytes to `bytes`, and empties it. */
void viommu_wire_bytes_init(pb_callback_t *field, WireBytes *bytes);

/** Hooks an ops field to `operations`, and empties it. */
void viommu_wire_operations_init(pb_callback_t *field, WireOperations *operations);

/** Hooks a spans field (a nanopb callback) to `spans`, and empties it. */
void viommu_wire_spans_init(pb_callback_t *field, WireSpans *spans);

static inline uint32_t viommu_wire_span_count(const WireSpans *spans)
{
    return spans->count / SPAN_WORDS;
}

#endif
