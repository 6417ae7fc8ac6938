/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Commands on standard input, for test programs that a test tells what to do. */
#ifndef VIOMMU_TEST_READER_H
#define VIOMMU_TEST_READER_H

#include "pb_decode.h"

/* Reads `bytes` bytes; the program ends where there are fewer. */
static inline void reader_take(void *data, size_t bytes)
{
    if (fread(data, 1, bytes, stdin) != bytes) {
        fprintf(stderr, "the input ends in the middle of a command\n");
        exit(1);
    }
}

/* Reads a message behind its size in 32 bits. False: it cannot be decoded. */
static inline bool reader_take_message(const pb_msgdesc_t *fields, void *message)
{
    static uint8_t bytes[8192];
    pb_istream_t in;
    uint32_t size;

    reader_take(&size, sizeof(size));
    assert(size <= sizeof(bytes));
    reader_take(bytes, size);
    in = pb_istream_from_buffer(bytes, size);
    return pb_decode(&in, fields, message);
}

#endif
