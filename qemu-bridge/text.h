/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Text for the wire's fields, which have a size. */
#ifndef VIOMMU_TEXT_H
#define VIOMMU_TEXT_H

/*
 * Copies as much of a text as fits, in whole characters, with its terminating zero. What
 * is not UTF-8 is replaced: names come from a command line, which may be in any encoding,
 * and the contract knows no other one.
 */
void viommu_text_copy(char *to, size_t size, const char *from);

#endif
