/* SPDX-License-Identifier: Apache-2.0 */
/*
 * viommu-vfio-bench DEVICE: times VFIO_IOMMU_MAP_DMA and UNMAP_DMA for viommu-testdev,assigned=on.
 * Every line of the input is one round, `MEMORY SIZE SKEW COUNT [STRAYS]`: so many mappings of so
 * many bytes are made, each at an address of its own, and then undone.
 *
 * MEMORY: `large` is as contiguous as the kernel gives it, `scattered` was got page by page in
 * disorder. SKEW is what the device's addresses are off from the memory's alignment: 0 lets the
 * guest's driver use large pages, 4096 makes it use pages of 4 KiB for contiguous memory.
 *
 * Prints nanoseconds of one mapping and of one unmapping, the mean of the round; what the host was
 * asked for in that time, by all COUNT of them; and `extents`, how many aligned powers of two the
 * contiguous pieces of the memory have at these addresses: the fewest mappings that an IOMMU
 * notifier can be told of. What is mapped must be reached, and what is unmapped must not: of that
 * the first STRAYS are tried, or all. For a device that an IOMMU translates for, each is a fault.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "container.h"
#include "now.h"
#include "random.h"
#include "testdev.h"

#define MIB (1ull << 20)
#define LARGE_PAGE (2 * MIB)
#define MAX_SIZE (64 * MIB)
#define SCATTERED_SIZE (2 * MIB)
#define MAX_COUNT 4096
#define FIRST_IOVA (1ull << 32)
#define FRAME_BITS ((1ull << 55) - 1)

struct round {
	uint8_t *memory;
	uint64_t size;
	uint64_t skew;
	unsigned int count;
	unsigned int strays;
};

static struct container container;
static struct testdev testdev;
static uint8_t *large, *scattered;

static uint8_t *get_memory(uint64_t size)
{
	uint8_t *raw = mmap(NULL, size + LARGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (raw == MAP_FAILED)
		fail("reason=\"no memory\"");
	return (uint8_t *)(((uintptr_t)raw + LARGE_PAGE - 1) & ~(uintptr_t)(LARGE_PAGE - 1));
}

/* Pages of the kernel's choice are neighbours often enough when they are got in order. */
static void get_scattered(void)
{
	uint64_t pages = SCATTERED_SIZE / PAGE, state = 1, i;
	uint32_t order[SCATTERED_SIZE / PAGE];

	scattered = get_memory(SCATTERED_SIZE);
	madvise(scattered, SCATTERED_SIZE, MADV_NOHUGEPAGE);
	for (i = 0; i < pages; i++)
		order[i] = i;
	for (i = pages - 1; i > 0; i--) {
		uint64_t j = random_below(&state, i + 1);
		uint32_t swapped = order[i];

		order[i] = order[j];
		order[j] = swapped;
	}
	for (i = 0; i < pages; i++)
		scattered[order[i] * PAGE] = 1;
}

static void get_large(void)
{
	large = get_memory(MAX_SIZE);
	madvise(large, MAX_SIZE, MADV_HUGEPAGE);
	memset(large, 1, MAX_SIZE);
}

/* Where the kernel has put a page of this program. */
static uint64_t frame_of(int pagemap, const uint8_t *at)
{
	uint64_t entry = 0;

	if (pread(pagemap, &entry, sizeof(entry), (uintptr_t)at / PAGE * sizeof(entry)) != sizeof(entry) || !(entry >> 63))
		fail("reason=\"/proc/self/pagemap does not say where memory is\"");
	return entry & FRAME_BITS;
}

/* Aligned powers of two that make up [first, last] in pages. */
static unsigned int blocks_of(uint64_t first, uint64_t last)
{
	unsigned int blocks = 0;

	while (first <= last) {
		uint64_t size = first & -first;

		while (size - 1 > last - first)
			size /= 2;
		first += size;
		blocks++;
	}
	return blocks;
}

static uint64_t address_of(const struct round *r, unsigned int index)
{
	/* None touches the next one. */
	return FIRST_IOVA + index * 2 * (r->size < LARGE_PAGE ? r->size : r->size + LARGE_PAGE) + r->skew;
}

static unsigned int extents_of(const struct round *r, unsigned int index)
{
	int pagemap = open("/proc/self/pagemap", O_RDONLY);
	uint64_t page, first = 0, start = address_of(r, index) / PAGE, pages = r->size / PAGE;
	uint64_t before = frame_of(pagemap, r->memory);
	unsigned int extents = 0;

	for (page = 1; page < pages; page++) {
		uint64_t frame = frame_of(pagemap, r->memory + page * PAGE);

		if (frame != before + 1) {
			extents += blocks_of(start + first, start + page - 1);
			first = page;
		}
		before = frame;
	}
	close(pagemap);
	return extents + blocks_of(start + first, start + pages - 1);
}

static void check(const struct round *r, unsigned int index, bool mapped)
{
	uint64_t iova = address_of(r, index);
	uint64_t *first = (uint64_t *)r->memory, *last = (uint64_t *)(r->memory + r->size - 8);

	*first = index * 2 + 1;
	*last = index * 2 + 2;
	if (testdev_move(&testdev, FROM_MEMORY, iova + r->size - 8, 8) != mapped || (mapped && testdev.buffer[0] != *last) ||
	    testdev_move(&testdev, FROM_MEMORY, iova, 8) != mapped || (mapped && testdev.buffer[0] != *first))
		fail("reason=\"%s\" iova=0x%llx size=0x%llx",
		     mapped ? "the device does not read what is mapped" : "the device reads what is not mapped any more",
		     (unsigned long long)iova, (unsigned long long)r->size);
}

static void run(const struct round *r)
{
	uint32_t maps = testdev_host_maps(&testdev), unmaps;
	uint64_t mapped, unmapped;
	unsigned int i, extents = 0;
	int error;

	mapped = now();
	for (i = 0; i < r->count; i++) {
		error = container_map(&container, address_of(r, i), r->memory, r->size, 1);
		if (error)
			fail("reason=\"VFIO_IOMMU_MAP_DMA: %s\"", strerror(error));
	}
	mapped = now() - mapped;
	maps = testdev_host_maps(&testdev) - maps;
	for (i = 0; i < r->count; i++) {
		check(r, i, true);
		extents += extents_of(r, i);
	}
	unmaps = testdev_host_unmaps(&testdev);
	unmapped = now();
	for (i = 0; i < r->count; i++) {
		error = container_unmap(&container, address_of(r, i), r->size);
		if (error)
			fail("reason=\"VFIO_IOMMU_UNMAP_DMA: %s\"", strerror(error));
	}
	unmapped = now() - unmapped;
	unmaps = testdev_host_unmaps(&testdev) - unmaps;
	for (i = 0; i < r->strays; i++)
		check(r, i, false);
	say("map_ns=%llu unmap_ns=%llu maps=%u unmaps=%u extents=%u", (unsigned long long)mapped / r->count,
	    (unsigned long long)unmapped / r->count, maps, unmaps, extents);
}

static void read_round(const char *text, struct round *r)
{
	unsigned long long size, skew;
	char memory[16];
	int words = sscanf(text, "%15s %llu %llu %u %u", memory, &size, &skew, &r->count, &r->strays);

	if (words < 4 || !size || size % PAGE || skew % PAGE || !r->count || r->count > MAX_COUNT)
		fail("reason=\"no round: %s\"", text);
	if (words == 4 || r->strays > r->count)
		r->strays = r->count;
	r->size = size;
	r->skew = skew;
	r->memory = strcmp(memory, "scattered") ? large : scattered;
	if (size > (r->memory == large ? MAX_SIZE : SCATTERED_SIZE) || (size < LARGE_PAGE && skew > size))
		fail("reason=\"no round: %s\"", text);
}

int main(int argc, char **argv)
{
	char text[128];
	struct round r;

	job = "vfio-bench";
	if (argc != 2)
		fail("reason=\"viommu-vfio-bench DEVICE\"");
	container_open(&container, argv[1]);
	container_enable(&container);
	testdev_open(&testdev, &container);
	get_large();
	get_scattered();
	say("device=%s", argv[1]);
	while (fgets(text, sizeof(text), stdin) && strncmp(text, "end", 3)) {
		text[strcspn(text, "\n")] = 0;
		read_round(text, &r);
		run(&r);
	}
	return 0;
}
