/* SPDX-License-Identifier: Apache-2.0 */
/* viommu-testdev (docs/testdev.md) through its mapped BARs. */
#ifndef TESTDEV_H
#define TESTDEV_H

#include <stdbool.h>
#include <stdint.h>
#include "container.h"

#define BUFFER_SIZE 65536u

struct testdev {
	volatile uint32_t *registers;
	/*
	 * Words, because byte accesses to device memory may not be merged, and some processors
	 * take only aligned ones.
	 */
	volatile uint64_t *buffer;
};

enum direction { FROM_MEMORY = 1, TO_MEMORY = 2 };

void testdev_open(struct testdev *t, const struct container *c);
/**
 * Moves the first `length` bytes of the buffer; true: done, false: a fault. Anything else fails the
 * program.
 */
bool testdev_move(struct testdev *t, enum direction direction, uint64_t iova, uint32_t length);
/** What the host was asked for since the device was made, modulo 2^32. */
uint32_t testdev_host_maps(const struct testdev *t);
uint32_t testdev_host_unmaps(const struct testdev *t);

#endif
