/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the programs share: /dev/viommu-testdev, and lines for the test that reads the console. */
#ifndef DEVICE_H
#define DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "../viommu-testdev.h"

/* Numbers of docs/testdev.md. */
enum { CMD_READ = 1, CMD_WRITE = 2, CMD_FILL = 3, CMD_REQUEST_PAGES = 5 };
enum { STATUS_DONE = 2, STATUS_FAULT = 3 };
enum { CONTROL_ATS = 2, CONTROL_PRI = 4, CONTROL_STALL = 8 };
enum {
	REG_BEHAVIOUR = 0x50,
	REG_ENABLED = 0x58,
	REG_ATC_ENTRIES = 0x68,
	REG_INVALIDATIONS = 0x6c,
	REG_PAGE_REQUESTS = 0x70,
	REG_PAGE_RESPONSES = 0x74,
	REG_PAGE_CODE = 0x78,
};
enum { ENABLED_PASID = 1, ENABLED_ATS = 2, ENABLED_PRI = 4 };

#define BUFFER_SIZE 65536u

/** Whose lines `say` prints, for a program that opens the device later. */
void device_name(const char *job);
/** Opens the device; ends the program where there is none. */
void device_open(const char *job);
int device_ioctl(unsigned long request, void *argument);
uint32_t device_register(uint32_t offset);
void device_set_register(uint32_t offset, uint32_t value);

/** One line for the test: `VIOMMU-GUEST: JOB …`. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/** A transfer of the whole buffer from or to an address. */
struct viommu_transfer transfer(uint32_t command, const void *address, uint32_t pasid, uint32_t control);
/**
 * The same of `length` bytes, and a line that says what became of it:
 * `check=WHAT status=… result=…`.
 */
struct viommu_transfer check(const char *what, uint32_t command, const void *address, uint32_t length, uint32_t pasid,
			     uint32_t control, const char *more);

/**
 * The device writes a pattern to memory that it reaches at `address`, and reads one:
 * `check=WHAT … written=… read=…`.
 */
void both_ways(const char *what, uint8_t *memory, const void *address, uint32_t seed, uint32_t pasid,
	       uint32_t control);

/** The device's buffer gets the pattern of `seed`. */
void fill_buffer(uint32_t seed);
/** The first bytes of the device's buffer; `data` has room for BUFFER_SIZE. */
void read_buffer(void *data);
/** Whether memory is the pattern of `seed`, which *fill* also makes. */
bool is_pattern(const uint8_t *data, size_t length, uint32_t seed);
void make_pattern(uint8_t *data, size_t length, uint32_t seed);

#endif
