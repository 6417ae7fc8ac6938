/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A device that vfio-pci has, in a type1 container: what QEMU does with a device that is assigned
 * to a guest.
 */
#ifndef CONTAINER_H
#define CONTAINER_H

#include <stddef.h>
#include <stdint.h>

#define PAGE 4096ull

/* Input addresses that the IOMMU takes, both ends included. */
struct range {
	uint64_t first;
	uint64_t last;
};

#define MAX_RANGES 16

struct container {
	int fd;
	int device;
	unsigned int range_count;
	struct range ranges[MAX_RANGES];
};

/** One line for the test that reads the console: `VIOMMU-GUEST: JOB …`. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
/** The same, and the end of the program with exit code 1. */
void fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
/** Set before the first line. */
extern const char *job;

/**
 * Opens container, group and device (`0000:00:05.0`); fails the program where that is not possible.
 */
void container_open(struct container *c, const char *device);
/** Maps a region of the device, which is at least `size` bytes. */
void *container_region(const struct container *c, unsigned int index, size_t size);
/** Memory decoding and bus mastering on. */
void container_enable(const struct container *c);

/** VFIO_IOMMU_MAP_DMA and UNMAP_DMA; 0 or an error number. */
int container_map(const struct container *c, uint64_t iova, void *memory, uint64_t size, int writable);
int container_unmap(const struct container *c, uint64_t iova, uint64_t size);

#endif
