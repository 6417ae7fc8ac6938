/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Text for the wire's fields: UTF-8, cut between characters. */
#include "compat.h"
#include "text.h"

/* The bytes of a character after its first. */
#define IS_CONTINUATION(byte) (((byte) & 0xc0) == 0x80)

void viommu_text_copy(char *to, size_t size, const char *from)
{
    g_autofree char *valid = g_utf8_make_valid(from, -1);
    size_t length = strlen(valid);

    if (length >= size) {
        length = size - 1;
        while (length && IS_CONTINUATION(valid[length])) {
            length--;
        }
    }
    memcpy(to, valid, length);
    to[length] = '\0';
}
