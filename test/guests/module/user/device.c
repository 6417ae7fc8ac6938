// SPDX-License-Identifier: GPL-2.0-or-later
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include "device.h"

static const char *job_name;
static int device = -1;

void say(const char *format, ...)
{
	va_list arguments;

	printf("VIOMMU-GUEST: %s ", job_name);
	va_start(arguments, format);
	vprintf(format, arguments);
	va_end(arguments);
	putchar('\n');
	fflush(stdout);
}

void device_name(const char *job)
{
	job_name = job;
}

void device_open(const char *job)
{
	device_name(job);
	device = open("/dev/viommu-testdev", O_RDWR);
	if (device < 0) {
		say("reason=\"/dev/viommu-testdev: %s\"", strerror(errno));
		exit(1);
	}
}

int device_ioctl(unsigned long request, void *argument)
{
	return ioctl(device, request, argument);
}

uint32_t device_register(uint32_t offset)
{
	struct viommu_register r = { .offset = offset };

	if (ioctl(device, VIOMMU_READ_REGISTER, &r) < 0) {
		say("reason=\"register 0x%x: %s\"", offset, strerror(errno));
		exit(1);
	}
	return r.value;
}

void device_set_register(uint32_t offset, uint32_t value)
{
	struct viommu_register r = { .offset = offset, .value = value };

	ioctl(device, VIOMMU_WRITE_REGISTER, &r);
}

static void run(struct viommu_transfer *t)
{
	if (ioctl(device, VIOMMU_TRANSFER, t) < 0)
		say("reason=\"command %u: %s\"", t->command, strerror(errno));
}

struct viommu_transfer transfer(uint32_t command, const void *address, uint32_t pasid, uint32_t control)
{
	struct viommu_transfer t = {
		.command = command,
		.address = (uintptr_t)address,
		.length = BUFFER_SIZE,
		.pasid = pasid,
		.control = control,
	};

	run(&t);
	return t;
}

struct viommu_transfer check(const char *what, uint32_t command, const void *address, uint32_t length, uint32_t pasid,
			     uint32_t control, const char *more)
{
	struct viommu_transfer t = {
		.command = command,
		.address = (uintptr_t)address,
		.length = length,
		.pasid = pasid,
		.control = control,
	};

	run(&t);
	say("check=%s device_status=%u result=0x%x bytes=%u fault=0x%llx address=0x%llx %s", what, t.status, t.result,
	    t.bytes_done, (unsigned long long)t.fault_address, (unsigned long long)t.address, more);
	return t;
}

void fill_buffer(uint32_t seed)
{
	struct viommu_transfer t = {
		.command = CMD_FILL,
		.length = BUFFER_SIZE,
		.pasid = VIOMMU_NO_PASID,
		.seed = seed,
	};

	run(&t);
}

void read_buffer(void *data)
{
	size_t at = 0;

	while (at < BUFFER_SIZE) {
		ssize_t n = pread(device, (uint8_t *)data + at, BUFFER_SIZE - at, at);

		if (n <= 0)
			break;
		at += n;
	}
}

/* xorshift32, as the device does it. */
static uint32_t step(uint32_t x)
{
	x ^= x << 13;
	x ^= x >> 17;
	return x ^ x << 5;
}

void make_pattern(uint8_t *data, size_t length, uint32_t seed)
{
	uint32_t x = seed ? seed : 1;
	size_t i;

	for (i = 0; i < length; i++) {
		x = step(x);
		data[i] = x;
	}
}

bool is_pattern(const uint8_t *data, size_t length, uint32_t seed)
{
	uint32_t x = seed ? seed : 1;
	size_t i;

	for (i = 0; i < length; i++) {
		x = step(x);
		if (data[i] != (uint8_t)x)
			return false;
	}
	return true;
}

void both_ways(const char *what, uint8_t *memory, const void *address, uint32_t seed, uint32_t pasid,
	       uint32_t control)
{
	static uint8_t data[BUFFER_SIZE];
	struct viommu_transfer t;
	bool written, read;

	fill_buffer(seed);
	t = transfer(CMD_WRITE, address, pasid, control);
	written = is_pattern(memory, BUFFER_SIZE, seed);
	make_pattern(memory, BUFFER_SIZE, seed + 1);
	if (t.status == STATUS_DONE)
		t = transfer(CMD_READ, address, pasid, control);
	read_buffer(data);
	read = is_pattern(data, BUFFER_SIZE, seed + 1);
	say("check=%s device_status=%u result=0x%x written=%d read=%d", what, t.status, t.result, written, read);
}
