/* SPDX-License-Identifier: Apache-2.0 */
/*
 * viommu-vfio DEVICE SECONDS SEED: maps and unmaps random ranges of memory for a device through
 * VFIO, and has viommu-testdev move every byte that it says it has moved. What is mapped must be
 * reached, both ways and nowhere else; what is not mapped any more must not be.
 *
 * Prints what it has done: `maps`, `unmaps`, `bytes` that were compared, `refused` accesses that
 * had to be. The first wrong byte, or access that should have failed, ends it with a line
 * `reason=…`.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include "container.h"
#include "random.h"
#include "testdev.h"

#define MIB (1ull << 20)
#define MAX_SIZE (64 * MIB)
#define MAX_MAPPINGS 256
/* Of what is mapped at once: fewer pages than a container takes mappings. */
#define MAX_MAPPED (160 * MIB)
#define POOL (128 * MIB)
/* Ranges up to this size are moved whole, larger ones now and then. */
#define WHOLE (256 * 1024ull)
#define SAMPLES 6
#define REPORT_SECONDS 5
#define MAX_IOVA_BITS 47

struct mapping {
	uint64_t iova;
	uint64_t size;
	uint8_t *memory;
	int writable;
};

struct counts {
	unsigned long maps, unmaps, together, moves, refused;
	unsigned long long mapped, bytes;
};

static struct container container;
static struct testdev testdev;
static struct mapping mappings[MAX_MAPPINGS];
static unsigned int mapping_count;
static uint64_t mapped_bytes;
/*
 * Half of it in pages that were got one by one in disorder, half in as large ones as the kernel
 * gives.
 */
static uint8_t *pool;
static uint64_t state;
static struct counts counts;

/* ---- memory ---- */

static void get_pool(void)
{
	uint8_t *raw = mmap(NULL, POOL + 2 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t half = POOL / 2, pages = half / PAGE, i;
	uint32_t *order = malloc(pages * sizeof(*order));

	if (raw == MAP_FAILED || !order)
		fail("reason=\"no memory\"");
	pool = (uint8_t *)(((uintptr_t)raw + 2 * MIB - 1) & ~(uintptr_t)(2 * MIB - 1));
	madvise(pool, half, MADV_NOHUGEPAGE);
	madvise(pool + half, half, MADV_HUGEPAGE);
	for (i = 0; i < pages; i++)
		order[i] = i;
	for (i = pages - 1; i > 0; i--) {
		uint64_t j = random_below(&state, i + 1);
		uint32_t swapped = order[i];

		order[i] = order[j];
		order[j] = swapped;
	}
	for (i = 0; i < pages; i++)
		pool[order[i] * PAGE] = 1;
	memset(pool + half, 1, half);
	free(order);
}

/* ---- where to map ---- */

static int is_free(uint64_t iova, uint64_t size)
{
	unsigned int i;

	for (i = 0; i < mapping_count; i++)
		if (iova < mappings[i].iova + mappings[i].size && mappings[i].iova < iova + size)
			return 0;
	for (i = 0; i < container.range_count; i++)
		if (iova >= container.ranges[i].first && iova + size - 1 <= container.ranges[i].last &&
		    iova + size - 1 > iova)
			return 1;
	return 0;
}

/* From 4 KiB to 64 MiB, each power of two as likely as the others. */
static uint64_t choose_size(void)
{
	uint64_t top = PAGE << random_below(&state, 15);
	uint64_t size = top + random_below(&state, top) / PAGE * PAGE;

	return size > MAX_SIZE ? MAX_SIZE : random_below(&state, 2) ? top : size;
}

/* Large ranges are seldom scattered: each of their pages is a mapping of its own then. */
static uint8_t *choose_memory(uint64_t size)
{
	uint64_t from = size <= MIB || random_below(&state, 8) == 0 ? 0 : POOL / 2;

	return pool + from + random_below(&state, (POOL - from - size) / PAGE + 1) * PAGE;
}

/*
 * Beside a mapping that is there, in the same tables as one, at an address that allows large pages,
 * or anywhere.
 */
static uint64_t choose_iova(uint64_t size, const uint8_t *memory)
{
	const struct mapping *other = mapping_count ? &mappings[random_below(&state, mapping_count)] : NULL;
	uint64_t any = random_next(&state) & ((1ull << (20 + random_below(&state, MAX_IOVA_BITS - 20))) - 1);

	switch (random_below(&state, 5)) {
	case 0:
		return other ? other->iova + other->size : 0;
	case 1:
		return other ? other->iova - size : 0;
	case 2:
		return other ? (other->iova ^ (random_next(&state) & (4 * MIB - 1))) / PAGE * PAGE : 0;
	case 3:
		return any / (2 * MIB) * (2 * MIB) + ((uintptr_t)memory & (2 * MIB - 1));
	default:
		return any / PAGE * PAGE;
	}
}

/* ---- what the device sees ---- */

static void fill(uint8_t *memory, uint32_t length, uint64_t seed)
{
	uint64_t *words = (uint64_t *)memory;
	uint32_t i;

	for (i = 0; i < length / 8; i++)
		words[i] = seed + i * 0x9e3779b97f4a7c15ull;
}

/* Index of the first wrong word, or -1. */
static long compare(const volatile uint64_t *words, uint32_t length, uint64_t seed)
{
	uint32_t i;

	for (i = 0; i < length / 8; i++)
		if (words[i] != seed + i * 0x9e3779b97f4a7c15ull)
			return i;
	return -1;
}

static void wrong(const char *what, const struct mapping *m, uint64_t at)
{
	fail("reason=\"%s\" iova=0x%llx size=0x%llx at=0x%llx writable=%d after=%lu", what,
	     (unsigned long long)m->iova, (unsigned long long)m->size, (unsigned long long)at, m->writable, counts.maps);
}

/* A piece of a mapping, both ways. */
static void move(const struct mapping *m, uint64_t at, uint32_t length)
{
	uint64_t seed = random_next(&state);
	uint32_t i;
	long bad;

	fill(m->memory + at, length, seed);
	if (!testdev_move(&testdev, FROM_MEMORY, m->iova + at, length))
		wrong("the device cannot read what is mapped", m, at);
	bad = compare(testdev.buffer, length, seed);
	if (bad >= 0)
		wrong("the device has read wrong bytes", m, at + bad * 8);

	for (i = 0; i < length / 8; i++)
		testdev.buffer[i] = ~seed + i * 0x9e3779b97f4a7c15ull;
	if (testdev_move(&testdev, TO_MEMORY, m->iova + at, length) != m->writable)
		wrong(m->writable ? "the device cannot write what is mapped" : "the device has written what is read-only",
		      m, at);
	bad = compare((uint64_t *)(m->memory + at), length, m->writable ? ~seed : seed);
	if (bad >= 0)
		wrong("the device has written wrong bytes", m, at + bad * 8);
	counts.moves += 2;
	counts.refused += !m->writable;
	counts.bytes += 2ull * length;
}

static uint32_t piece(uint64_t left)
{
	return left < BUFFER_SIZE ? left : BUFFER_SIZE;
}

static void move_all(const struct mapping *m)
{
	uint64_t at;

	for (at = 0; at < m->size; at += BUFFER_SIZE)
		move(m, at, piece(m->size - at));
}

/* First, last and some pieces between, at any word. */
static void move_some(const struct mapping *m)
{
	unsigned int i;

	move(m, 0, piece(m->size));
	move(m, m->size - piece(m->size), piece(m->size));
	for (i = 0; i < SAMPLES; i++) {
		uint64_t at = random_below(&state, m->size) & ~7ull;

		move(m, at, (random_below(&state, piece(m->size - at)) & ~7ull) + 8);
	}
}

static void check_mapped(const struct mapping *m)
{
	if (m->size <= WHOLE || random_below(&state, 16) == 0)
		move_all(m);
	else
		move_some(m);
}

/* Nothing of a page is reached, in either direction. */
static void check_gone(const struct mapping *m, uint64_t at)
{
	uint64_t before = *(volatile uint64_t *)(m->memory + at);

	testdev.buffer[0] = ~before;
	if (testdev_move(&testdev, FROM_MEMORY, m->iova + at, 8))
		wrong("the device reads what is not mapped any more", m, at);
	if (testdev_move(&testdev, TO_MEMORY, m->iova + at, 8))
		wrong("the device writes what is not mapped any more", m, at);
	if (*(volatile uint64_t *)(m->memory + at) != before)
		wrong("memory has changed that is not mapped any more", m, at);
	counts.moves += 2;
	counts.refused += 2;
}

static void check_all_gone(const struct mapping *m)
{
	unsigned int i;

	check_gone(m, 0);
	check_gone(m, m->size - PAGE);
	for (i = 0; i < SAMPLES; i++)
		check_gone(m, random_below(&state, m->size) & ~7ull);
}

/* ---- one step ---- */

static void map_one(void)
{
	struct mapping m = { .size = choose_size(), .writable = random_below(&state, 8) != 0 };
	int error;

	m.memory = choose_memory(m.size);
	m.iova = choose_iova(m.size, m.memory);
	if (mapping_count == MAX_MAPPINGS || mapped_bytes + m.size > MAX_MAPPED || !is_free(m.iova, m.size))
		return;
	error = container_map(&container, m.iova, m.memory, m.size, m.writable);
	if (error)
		fail("reason=\"VFIO_IOMMU_MAP_DMA: %s\" iova=0x%llx size=0x%llx", strerror(error),
		     (unsigned long long)m.iova, (unsigned long long)m.size);
	mappings[mapping_count++] = m;
	mapped_bytes += m.size;
	counts.maps++;
	counts.mapped += m.size;
	check_mapped(&m);
}

static struct mapping take(unsigned int index)
{
	struct mapping m = mappings[index];

	mappings[index] = mappings[--mapping_count];
	mapped_bytes -= m.size;
	counts.unmaps++;
	return m;
}

/* The mapping that begins where this one ends. */
static int neighbour_of(const struct mapping *m)
{
	unsigned int i;

	for (i = 0; i < mapping_count; i++)
		if (mappings[i].iova == m->iova + m->size)
			return i;
	return -1;
}

/* A mapping; with the one behind it, when there is one, in one call. */
static void unmap_one(unsigned int index)
{
	struct mapping m = take(index), other = { .size = 0 };
	int next = random_below(&state, 2) ? neighbour_of(&m) : -1, error;

	if (next >= 0) {
		other = take(next);
		counts.together++;
	}
	error = container_unmap(&container, m.iova, m.size + other.size);
	if (error)
		fail("reason=\"VFIO_IOMMU_UNMAP_DMA: %s\" iova=0x%llx", strerror(error), (unsigned long long)m.iova);
	check_all_gone(&m);
	if (other.size)
		check_all_gone(&other);
}

static void report(const char *when)
{
	say("%s maps=%lu unmaps=%lu together=%lu mapped_mib=%llu moves=%lu bytes=%llu refused=%lu", when, counts.maps,
	    counts.unmaps, counts.together, counts.mapped / MIB, counts.moves, counts.bytes, counts.refused);
}

int main(int argc, char **argv)
{
	time_t end, told;

	if (argc != 4)
		fail("reason=\"viommu-vfio DEVICE SECONDS SEED\"");
	state = strtoull(argv[3], NULL, 0);
	say("seed=%llu seconds=%s device=%s", (unsigned long long)state, argv[2], argv[1]);
	container_open(&container, argv[1]);
	container_enable(&container);
	testdev_open(&testdev, &container);
	get_pool();
	told = time(NULL);
	end = told + atol(argv[2]);
	while (time(NULL) < end) {
		if (mapping_count == 0 || random_below(&state, 16) < (mapped_bytes < MAX_MAPPED / 2 ? 10 : 6))
			map_one();
		else if (random_below(&state, 4) == 0)
			check_mapped(&mappings[random_below(&state, mapping_count)]);
		else
			unmap_one(random_below(&state, mapping_count));
		if (time(NULL) >= told + REPORT_SECONDS) {
			told = time(NULL);
			report("state=running");
		}
	}
	while (mapping_count)
		unmap_one(mapping_count - 1);
	report("state=done");
	return 0;
}
