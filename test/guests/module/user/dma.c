// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * viommu-dma SECONDS SEED strict|lazy TASKS: has the module map and unmap through the kernel's DMA
 * API (dma-api.c) for a while, in so many tasks at once (each prints a line with `state=task`), and
 * then, as long as it takes once, in one. Prints what was done by that one: `maps`, `coherent` and
 * `lists` among them, `unmaps`, `bytes` that were compared, accesses `refused` as they had to be,
 * and `stale` ones that reached what was unmapped and not flushed yet, which only lazy mode may
 * have; and, wherever it ends, how many were translated `ahead`, and the `invalidations` that the
 * device has received.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "device.h"

#define STEPS 500
#define MOST_TASKS 64

/* Sums over the module's runs. */
struct sums {
	unsigned long long maps, unmaps, coherent, lists, bytes, refused, stale, ahead;
};

static void run_until(time_t end, struct viommu_dma run, unsigned long seed, struct sums *sums)
{
	device_open("dma");
	do {
		struct viommu_dma r = run;

		r.seed = seed++;
		if (device_ioctl(VIOMMU_DMA, &r) < 0) {
			say("reason=\"%s: %s\" address=0x%llx seed=%lu", strerror(errno), r.wrong,
			    (unsigned long long)r.address, seed - 1);
			say("ahead=%llu invalidations=%u", sums->ahead + r.ahead, device_register(REG_INVALIDATIONS));
			exit(1);
		}
		sums->maps += r.maps;
		sums->unmaps += r.unmaps;
		sums->coherent += r.coherent;
		sums->lists += r.lists;
		sums->bytes += r.bytes;
		sums->refused += r.refused;
		sums->stale += r.stale;
		sums->ahead += r.ahead;
	} while (time(NULL) < end);
}

/* Each opens the device for itself, so that none waits for another one. Returns how many failed. */
static int run_together(int tasks, time_t end, struct viommu_dma run, unsigned long seed)
{
	int task, status, failed = 0;

	run.together = 1;
	for (task = 0; task < tasks; task++) {
		struct sums sums = { 0 };
		pid_t child = fork();

		if (child > 0)
			continue;
		if (child < 0)
			return tasks;
		run_until(end, run, seed + 1000000ul * task, &sums);
		say("state=task task=%d maps=%llu unmaps=%llu bytes=%llu", task, sums.maps, sums.unmaps, sums.bytes);
		exit(0);
	}
	while (wait(&status) > 0)
		failed += status != 0;
	return failed;
}

int main(int argc, char **argv)
{
	struct viommu_dma run = { .steps = STEPS };
	struct sums sums = { 0 };
	unsigned long seed;
	time_t end;
	int tasks;

	if (argc != 5)
		return 2;
	seed = strtoul(argv[2], NULL, 0);
	run.lazy = !strcmp(argv[3], "lazy");
	tasks = atoi(argv[4]);
	if (tasks < 1 || tasks > MOST_TASKS)
		return 2;
	device_name("dma");
	say("seed=%lu seconds=%s mode=%s tasks=%d", seed, argv[1], argv[3], tasks);
	end = time(NULL) + atol(argv[1]);
	if (tasks > 1 && run_together(tasks, end, run, seed))
		return 1;
	run_until(end, run, seed, &sums);
	say("state=done maps=%llu unmaps=%llu coherent=%llu lists=%llu bytes=%llu refused=%llu stale=%llu", sums.maps,
	    sums.unmaps, sums.coherent, sums.lists, sums.bytes, sums.refused, sums.stale);
	say("ahead=%llu invalidations=%u", sums.ahead, device_register(REG_INVALIDATIONS));
	return 0;
}
