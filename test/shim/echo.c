/*
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The floor of a translation miss: a frame out, a frame back, over the same kind of socket with the
 * calls that the bridge makes, and nothing done with it on either side.
 */
#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "qemu/timer.h"

#include <sys/socket.h>
#include <sys/un.h>

#include "echo.h"
#include "stats.h"

#define FRAME_MAX 4096
#define HEADER_BYTES 16

typedef struct Header {
    uint32_t type;
    uint32_t flags;
    uint32_t size;
    uint32_t id;
} Header;

static bool send_frame(int fd, uint8_t *data, size_t size)
{
    for (size_t sent = 0; sent < size; ) {
        struct iovec iov = { .iov_base = data + sent, .iov_len = size - sent };
        struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1 };
        ssize_t count = sendmsg(fd, &message, MSG_NOSIGNAL);

        if (count < 0 && errno == EINTR) {
            continue;
        }
        if (count <= 0) {
            return false;
        }
        sent += count;
    }
    return true;
}

/* Takes what there is in one call, so a whole frame as a rule. */
static bool receive_frame(int fd, uint8_t *data, size_t size)
{
    for (size_t end = 0; end < size; ) {
        ssize_t count = recv(fd, data + end, HEADER_BYTES + FRAME_MAX - end, 0);

        if (count < 0 && errno == EINTR) {
            continue;
        }
        if (count <= 0) {
            return false;
        }
        end += count;
    }
    return true;
}

static bool round_trip(int fd, uint32_t body, uint32_t id)
{
    static uint8_t frame[HEADER_BYTES + FRAME_MAX];
    Header header = { .type = 6, .flags = 1 | 8, .size = body, .id = id };

    memcpy(frame, &header, sizeof(header));
    if (!send_frame(fd, frame, HEADER_BYTES + body)
        || !receive_frame(fd, frame, HEADER_BYTES + body)) {
        return false;
    }
    memcpy(&header, frame, sizeof(header));
    return header.id == id && header.size == body;
}

void echo_command(const char *line, FILE *stream)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    Stats stats = { 0 };
    unsigned body, rounds;
    bool good = true;
    int fd;

    if (sscanf(line, "echo %107s %u %u", address.sun_path, &body, &rounds) != 3 || body > FRAME_MAX) {
        fputs("error usage: echo PATH REQUEST ROUNDS\n", stream);
        fflush(stream);
        return;
    }
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address))) {
        fprintf(stream, "error cannot connect to %s\n", address.sun_path);
        fflush(stream);
        return;
    }
    /* With the BQL, as a miss that a device's DMA makes. */
    for (unsigned i = 0; good && i < rounds; i++) {
        bql_lock();
        int64_t start = get_clock();
        good = round_trip(fd, body, i + 1);
        stats_add(&stats, get_clock() - start);
        bql_unlock();
    }
    close(fd);
    if (!good) {
        fputs("error the echo was cut short\n", stream);
        fflush(stream);
        return;
    }
    stats_answer(&stats, stream);
}
