/* SPDX-License-Identifier: Apache-2.0 */
/* The guest's stop watch. */
#ifndef NOW_H
#define NOW_H

#include <stdint.h>
#include <time.h>

/** Nanoseconds. */
static inline uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

#endif
