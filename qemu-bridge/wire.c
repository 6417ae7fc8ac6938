/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "compat.h"
#include <sys/socket.h>
#include "pb_decode.h"
#include "pb_encode.h"
#include "wire.h"

static void set_timeout(int fd, int option, uint32_t ms)
{
    struct timeval tv = { .tv_sec = ms / 1000, .tv_usec = (ms % 1000) * 1000 };

    setsockopt(fd, SOL_SOCKET, option, &tv, sizeof(tv));
}

void viommu_wire_init(Wire *w, int fd, uint32_t receive_timeout_ms,
                      uint32_t send_timeout_ms)
{
    w->fd = fd;
    w->rx_start = 0;
    w->rx_end = 0;
    w->looks = 0;
    set_timeout(fd, SO_RCVTIMEO, receive_timeout_ms);
    set_timeout(fd, SO_SNDTIMEO, send_timeout_ms);
}

void viommu_wire_shutdown(Wire *w)
{
    if (w->fd >= 0) {
        shutdown(w->fd, SHUT_RDWR);
    }
}

void viommu_wire_close(Wire *w)
{
    if (w->fd >= 0) {
        close(w->fd);
        w->fd = -1;
    }
}

static WireResult failed(ssize_t n)
{
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
        return WIRE_TIMEOUT;
    }
    return WIRE_CLOSED;
}

static void attach_fds(struct msghdr *msg, void *control, size_t control_size,
                       const int *fds, unsigned nfds)
{
    struct cmsghdr *cmsg;

    memset(control, 0, control_size);
    msg->msg_control = control;
    msg->msg_controllen = CMSG_SPACE(nfds * sizeof(int));
    cmsg = CMSG_FIRSTHDR(msg);
    cmsg->cmsg_level = SOL_SOCKET;
    cmsg->cmsg_type = SCM_RIGHTS;
    cmsg->cmsg_len = CMSG_LEN(nfds * sizeof(int));
    memcpy(CMSG_DATA(cmsg), fds, nfds * sizeof(int));
}

size_t viommu_wire_encode(uint8_t *buffer, size_t room, uint32_t type, uint32_t flags,
                          uint32_t id, const pb_msgdesc_t *fields, const void *message)
{
    size_t size = 0;

    if (fields) {
        pb_ostream_t out = pb_ostream_from_buffer(buffer + WIRE_HEADER_BYTES,
                                                  room - WIRE_HEADER_BYTES);

        if (!pb_encode(&out, fields, message)) {
            return 0;
        }
        size = out.bytes_written;
    }
    stl_le_p(buffer, type);
    stl_le_p(buffer + 4, flags | WIRE_VERSION);
    stl_le_p(buffer + 8, size);
    stl_le_p(buffer + 12, id);
    return WIRE_HEADER_BYTES + size;
}

WireResult viommu_wire_send(Wire *w, uint32_t type, uint32_t flags, uint32_t id,
                            const pb_msgdesc_t *fields, const void *message,
                            const int *fds, unsigned nfds)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(WIRE_MAX_FDS * sizeof(int))];
    } control;
    size_t size = viommu_wire_encode(w->tx, sizeof(w->tx), type, flags, id, fields,
                                     message),
           sent = 0;

    if (!size) {
        return WIRE_MALFORMED;
    }
    while (sent < size) {
        struct iovec iov = { .iov_base = w->tx + sent, .iov_len = size - sent };
        struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
        ssize_t n;

        if (nfds && sent == 0) {
            assert(nfds <= WIRE_MAX_FDS);
            attach_fds(&msg, &control, sizeof(control), fds, nfds);
        }
        n = sendmsg(w->fd, &msg, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return failed(n);
        }
        sent += n;
    }
    return WIRE_OK;
}

/*
 * Makes at least `need` bytes available from rx_start on. Reads all there is: one call
 * per reply.
 */
static WireResult fill(Wire *w, uint32_t need)
{
    uint32_t looks = w->looks;

    while (w->rx_end - w->rx_start < need) {
        ssize_t n;

        if (w->rx_start && w->rx_start + need > sizeof(w->rx)) {
            memmove(w->rx, w->rx + w->rx_start, w->rx_end - w->rx_start);
            w->rx_end -= w->rx_start;
            w->rx_start = 0;
        }
        n = recv(w->fd, w->rx + w->rx_end, sizeof(w->rx) - w->rx_end,
                 looks ? MSG_DONTWAIT : 0);
        if (n < 0 && (errno == EINTR || (looks && errno == EAGAIN))) {
            looks -= !!looks;
            continue;
        }
        if (n <= 0) {
            return failed(n);
        }
        w->rx_end += n;
    }
    return WIRE_OK;
}

bool viommu_wire_parse_header(const uint8_t *header, uint32_t most, WireFrame *frame)
{
    frame->type = ldl_le_p(header);
    frame->flags = ldl_le_p(header + 4);
    frame->size = ldl_le_p(header + 8);
    frame->id = ldl_le_p(header + 12);
    frame->body = header + WIRE_HEADER_BYTES;
    return (frame->flags & WIRE_FLAG_VERSION_MASK) == WIRE_VERSION && frame->size <= most;
}

WireResult viommu_wire_receive(Wire *w, WireFrame *frame)
{
    WireResult result;

    if (w->rx_start == w->rx_end) {
        w->rx_start = 0;
        w->rx_end = 0;
    }
    result = fill(w, WIRE_HEADER_BYTES);
    if (result != WIRE_OK) {
        return result;
    }
    if (!viommu_wire_parse_header(w->rx + w->rx_start, WIRE_MAX_BODY, frame)) {
        return WIRE_MALFORMED;
    }
    result = fill(w, WIRE_HEADER_BYTES + frame->size);
    if (result != WIRE_OK) {
        return result;
    }
    frame->body = w->rx + w->rx_start + WIRE_HEADER_BYTES;
    w->rx_start += WIRE_HEADER_BYTES + frame->size;
    return WIRE_OK;
}

bool viommu_wire_has_more(const Wire *w)
{
    return w->rx_start != w->rx_end;
}

bool viommu_wire_decode(const WireFrame *frame, const pb_msgdesc_t *fields, void *message)
{
    pb_istream_t in = pb_istream_from_buffer(frame->body, frame->size);

    return pb_decode(&in, fields, message);
}

const char *viommu_wire_result_text(WireResult result)
{
    switch (result) {
    case WIRE_OK:
        return "no error";
    case WIRE_CLOSED:
        return "the daemon closed the connection";
    case WIRE_TIMEOUT:
        return "the daemon did not answer in time";
    case WIRE_MALFORMED:
        return "the daemon sent what is not a frame of this protocol";
    }
    return "unknown";
}

/*
 * Called once per packed run (bytes_left is its length), or once per element from a peer
 * that does not pack.
 */
static bool decode_words(pb_istream_t *stream, const pb_field_t *field, uint32_t *words,
                         uint32_t *count, uint32_t most)
{
    size_t bytes = stream->bytes_left;
    uint32_t i, n;

    if (PB_LTYPE(field->type) != PB_LTYPE_FIXED32) {
        return false;
    }
    if (bytes % 4 || bytes / 4 > most - *count) {
        return false;
    }
    n = bytes / 4;
    if (!pb_read(stream, (uint8_t *)(words + *count), bytes)) {
        return false;
    }
    for (i = *count; i < *count + n; i++) {
        words[i] = le32_to_cpu(words[i]);
    }
    *count += n;
    return true;
}

static bool decode_spans(pb_istream_t *stream, const pb_field_t *field, void **arg)
{
    WireSpans *spans = *arg;

    return decode_words(stream, field, spans->words, &spans->count,
                        ARRAY_SIZE(spans->words));
}

static bool decode_operations(pb_istream_t *stream, const pb_field_t *field, void **arg)
{
    WireOperations *operations = *arg;

    return decode_words(stream, field, operations->words, &operations->count,
                        ARRAY_SIZE(operations->words));
}

static bool decode_bytes(pb_istream_t *stream, const pb_field_t *field, void **arg)
{
    WireBytes *bytes = *arg;

    /* A body is no longer than the buffer. Of several fields the last one counts. */
    bytes->size = stream->bytes_left;
    return pb_read(stream, bytes->bytes, bytes->size);
}

void viommu_wire_bytes_init(pb_callback_t *field, WireBytes *bytes)
{
    bytes->size = 0;
    field->funcs.decode = decode_bytes;
    field->arg = bytes;
}

void viommu_wire_operations_init(pb_callback_t *field, WireOperations *operations)
{
    operations->count = 0;
    field->funcs.decode = decode_operations;
    field->arg = operations;
}

void viommu_wire_spans_init(pb_callback_t *field, WireSpans *spans)
{
    spans->count = 0;
    field->funcs.decode = decode_spans;
    field->arg = spans;
}
