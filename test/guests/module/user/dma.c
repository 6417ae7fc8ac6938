// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * viommu-dma SECONDS SEED strict|lazy: has the module map and unmap through the kernel's DMA API (dma-api.c) for a while.
 * Prints what was done: `maps`, `coherent` and `lists` among them, `unmaps`, `bytes` that were compared, accesses `refused`
 * as they had to be, and `stale` ones that reached what was unmapped and not flushed yet, which only lazy mode may have.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "device.h"

#define STEPS 500

int main(int argc, char **argv)
{
	unsigned long long maps = 0, unmaps = 0, coherent = 0, lists = 0, bytes = 0, refused = 0, stale = 0;
	struct viommu_dma run = { .steps = STEPS };
	unsigned long seed;
	time_t end;

	if (argc != 4)
		return 2;
	device_open("dma");
	seed = strtoul(argv[2], NULL, 0);
	run.lazy = !strcmp(argv[3], "lazy");
	say("seed=%lu seconds=%s mode=%s", seed, argv[1], argv[3]);
	end = time(NULL) + atol(argv[1]);
	do {
		struct viommu_dma r = run;

		r.seed = seed++;
		if (device_ioctl(VIOMMU_DMA, &r) < 0) {
			say("reason=\"%s: %s\" address=0x%llx seed=%lu", strerror(errno), r.wrong,
			    (unsigned long long)r.address, seed - 1);
			return 1;
		}
		maps += r.maps;
		unmaps += r.unmaps;
		coherent += r.coherent;
		lists += r.lists;
		bytes += r.bytes;
		refused += r.refused;
		stale += r.stale;
	} while (time(NULL) < end);
	say("state=done maps=%llu unmaps=%llu coherent=%llu lists=%llu bytes=%llu refused=%llu stale=%llu", maps, unmaps,
	    coherent, lists, bytes, refused, stale);
	return 0;
}
