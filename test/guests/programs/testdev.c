/* SPDX-License-Identifier: Apache-2.0 */
#include <endian.h>
#include <time.h>
#include "testdev.h"

/* Numbers of docs/testdev.md. */
enum {
	REG_ID = 0x00,
	REG_ADDRESS_LO = 0x10,
	REG_ADDRESS_HI = 0x14,
	REG_LENGTH = 0x18,
	REG_OFFSET = 0x1c,
	REG_COMMAND = 0x28,
	REG_STATUS = 0x2c,
	REG_RESULT = 0x30,
	REG_BYTES_DONE = 0x34,
	REG_HOST_MAPS = 0x80,
	REG_HOST_UNMAPS = 0x84,
	WINDOW = 0x1000,
};
enum { BUSY = 1, DONE = 2, FAULT = 3 };

#define TESTDEV_ID 0x544f4956u
#define SECONDS_AT_MOST 60

static uint32_t get(const struct testdev *t, unsigned int offset)
{
	return le32toh(t->registers[offset / 4]);
}

static void set(struct testdev *t, unsigned int offset, uint32_t value)
{
	t->registers[offset / 4] = htole32(value);
}

void testdev_open(struct testdev *t, const struct container *c)
{
	t->registers = container_region(c, 0, WINDOW);
	t->buffer = container_region(c, 1, BUFFER_SIZE);
	if (get(t, REG_ID) != TESTDEV_ID)
		fail("reason=\"this is no viommu-testdev: 0x%x\"", get(t, REG_ID));
}

uint32_t testdev_host_maps(const struct testdev *t)
{
	return get(t, REG_HOST_MAPS);
}

uint32_t testdev_host_unmaps(const struct testdev *t)
{
	return get(t, REG_HOST_UNMAPS);
}

bool testdev_move(struct testdev *t, enum direction direction, uint64_t iova, uint32_t length)
{
	time_t end = time(NULL) + SECONDS_AT_MOST;
	uint32_t status;

	set(t, REG_ADDRESS_LO, iova);
	set(t, REG_ADDRESS_HI, iova >> 32);
	set(t, REG_LENGTH, length);
	set(t, REG_OFFSET, 0);
	set(t, REG_COMMAND, direction);
	while ((status = get(t, REG_STATUS)) == BUSY)
		if (time(NULL) > end)
			fail("reason=\"a transfer at 0x%llx does not end\"", (unsigned long long)iova);
	if (status == DONE && get(t, REG_BYTES_DONE) == length)
		return true;
	if (status != FAULT)
		fail("reason=\"status %u after a transfer at 0x%llx\"", status, (unsigned long long)iova);
	return false;
}
