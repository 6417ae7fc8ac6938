/* SPDX-License-Identifier: Apache-2.0 */
/*
 * viommu-read-bench: random reads of 4 KiB past the page cache, each a DMA with a mapping of its own. Every line of the input is
 * one round, `DISK DEPTH COUNT`: so many reads in all by DEPTH threads, each of which has one under way. Prints the nanoseconds
 * of the round.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>
#include <linux/fs.h>
#include "container.h"
#include "random.h"

#define MAX_DEPTH 64

struct reader {
	pthread_t thread;
	int disk;
	uint64_t pages;
	uint64_t state;
	unsigned int count;
	void *page;
	int failed;
};

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void *read_pages(void *opaque)
{
	struct reader *r = opaque;
	unsigned int i;

	for (i = 0; i < r->count && !r->failed; i++)
		r->failed = pread(r->disk, r->page, PAGE, random_below(&r->state, r->pages) * PAGE) != (ssize_t)PAGE;
	return NULL;
}

static void run(int disk, uint64_t bytes, unsigned int depth, unsigned int count)
{
	static struct reader readers[MAX_DEPTH];
	uint64_t took;
	unsigned int i;

	for (i = 0; i < depth; i++) {
		struct reader *r = &readers[i];

		if (!r->page && posix_memalign(&r->page, PAGE, PAGE))
			fail("reason=\"no memory\"");
		r->disk = disk;
		r->pages = bytes / PAGE;
		r->state = i + 1;
		r->count = count / depth;
		r->failed = 0;
	}
	took = now();
	for (i = 0; i < depth; i++)
		if (pthread_create(&readers[i].thread, NULL, read_pages, &readers[i]))
			fail("reason=\"no thread\"");
	for (i = 0; i < depth; i++)
		pthread_join(readers[i].thread, NULL);
	took = now() - took;
	for (i = 0; i < depth; i++)
		if (readers[i].failed)
			fail("reason=\"a read failed\"");
	say("ns=%llu reads=%u", (unsigned long long)took, count / depth * depth);
}

int main(void)
{
	char text[128], name[32], path[64];
	unsigned int depth, count;
	uint64_t bytes;
	int disk;

	job = "read-bench";
	say("state=ready");
	while (fgets(text, sizeof(text), stdin) && strncmp(text, "end", 3)) {
		if (sscanf(text, "%31s %u %u", name, &depth, &count) != 3 || !depth || depth > MAX_DEPTH || count < depth)
			fail("reason=\"no round: DISK DEPTH COUNT\"");
		snprintf(path, sizeof(path), "/dev/%s", name);
		disk = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
		if (disk < 0 || ioctl(disk, BLKGETSIZE64, &bytes) || bytes < PAGE)
			fail("reason=\"no disk %s\"", path);
		run(disk, bytes, depth, count);
		close(disk);
	}
	return 0;
}
