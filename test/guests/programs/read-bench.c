/* SPDX-License-Identifier: Apache-2.0 */
/*
 * viommu-read-bench: random reads of 4 KiB past the page cache, each a DMA with a mapping of its
 * own. Every line of the input is one round, `DISK DEPTH COUNT MS`: so many reads in all by DEPTH
 * threads, each of which has one under way, and fewer where none begins any more after so many
 * milliseconds. Prints the nanoseconds of the round, and the reads. The line `latency` asks for the
 * time that single reads took in the rounds of depth 1 since the last such line, which is what a
 * driver sees from the doorbell to the completion, and what the kernel does around it.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <linux/fs.h>
#include "container.h"
#include "now.h"
#include "random.h"

#define MAX_DEPTH 64
#define MAX_LATENCIES (1u << 20)

struct reader {
	pthread_t thread;
	int disk;
	uint64_t pages;
	uint64_t state;
	unsigned int count;
	unsigned int done;
	uint64_t end;
	void *page;
	int alone;
	int failed;
};

/* Nanoseconds of single reads with nothing else under way, until they are asked for. */
static uint32_t latencies[MAX_LATENCIES];
static size_t latency_count;

static void keep_latency(uint64_t ns)
{
	if (latency_count < MAX_LATENCIES)
		latencies[latency_count++] = ns < UINT32_MAX ? ns : UINT32_MAX;
}

static int compare(const void *a, const void *b)
{
	uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;

	return left < right ? -1 : left > right;
}

/* So many of a thousand samples took no longer. */
static uint32_t permille(unsigned int of)
{
	return latency_count ? latencies[(latency_count * of + 999) / 1000 - 1] : 0;
}

static void say_latencies(void)
{
	qsort(latencies, latency_count, sizeof(latencies[0]), compare);
	say("latency samples=%zu p50_ns=%u p999_ns=%u max_ns=%u", latency_count, permille(500), permille(999),
	    permille(1000));
	latency_count = 0;
}

static void *read_pages(void *opaque)
{
	struct reader *r = opaque;
	uint64_t at = now();

	/* Some guests' clock is a device of the machine: one look for each read. */
	do {
		uint64_t began = at;

		r->failed = pread(r->disk, r->page, PAGE, random_below(&r->state, r->pages) * PAGE) != (ssize_t)PAGE;
		at = now();
		if (r->alone)
			keep_latency(at - began);
	} while (++r->done < r->count && !r->failed && at < r->end);
	return NULL;
}

static void run(int disk, uint64_t bytes, unsigned int depth, unsigned int count, unsigned int ms)
{
	static struct reader readers[MAX_DEPTH];
	uint64_t took = now();
	unsigned int done = 0, i;

	for (i = 0; i < depth; i++) {
		struct reader *r = &readers[i];

		if (!r->page && posix_memalign(&r->page, PAGE, PAGE))
			fail("reason=\"no memory\"");
		r->disk = disk;
		r->pages = bytes / PAGE;
		r->state = i + 1;
		r->count = count / depth;
		r->done = 0;
		r->end = took + ms * 1000000ull;
		r->alone = depth == 1;
		r->failed = 0;
	}
	for (i = 0; i < depth; i++)
		if (pthread_create(&readers[i].thread, NULL, read_pages, &readers[i]))
			fail("reason=\"no thread\"");
	for (i = 0; i < depth; i++)
		pthread_join(readers[i].thread, NULL);
	took = now() - took;
	for (i = 0; i < depth; i++) {
		if (readers[i].failed)
			fail("reason=\"a read failed\"");
		done += readers[i].done;
	}
	say("ns=%llu reads=%u", (unsigned long long)took, done);
}

int main(void)
{
	char text[128], name[32], path[64];
	unsigned int depth, count, ms;
	uint64_t bytes;
	int disk;

	job = "read-bench";
	say("state=ready");
	while (fgets(text, sizeof(text), stdin) && strncmp(text, "end", 3)) {
		if (!strncmp(text, "latency", 7)) {
			say_latencies();
			continue;
		}
		if (sscanf(text, "%31s %u %u %u", name, &depth, &count, &ms) != 4 || !depth || depth > MAX_DEPTH || count < depth)
			fail("reason=\"no round: DISK DEPTH COUNT MS\"");
		snprintf(path, sizeof(path), "/dev/%s", name);
		disk = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
		if (disk < 0 || ioctl(disk, BLKGETSIZE64, &bytes) || bytes < PAGE)
			fail("reason=\"no disk %s\"", path);
		run(disk, bytes, depth, count, ms);
		close(disk);
	}
	return 0;
}
