// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Paravirtual PASIDs: those that the IOMMU has handed out to this guest work, no others, and none
 * after it was freed. One line per check, for the test.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include "device.h"

#define IOVA 0x40000000ull
#define MOST 4096

static const void *const iova = (const void *)(uintptr_t)IOVA;

/** 0, or the error. */
static int allocate(uint32_t *pasid)
{
	return device_ioctl(VIOMMU_ALLOCATE_PASID, pasid) < 0 ? errno : 0;
}

static int release(uint32_t pasid)
{
	return device_ioctl(VIOMMU_FREE_PASID, &pasid) < 0 ? errno : 0;
}

/* The kernel gives it a domain, whichever device owns it. */
static void attach(uint32_t pasid, uint8_t *memory)
{
	struct viommu_bind b = { .pasid = pasid };
	struct viommu_map m = { .iova = IOVA, .length = BUFFER_SIZE, .memory = (uintptr_t)memory };

	if (device_ioctl(VIOMMU_ATTACH_DOMAIN, &b) < 0)
		say("reason=\"attach %u, step %u: %s\"", pasid, b.step, strerror(errno));
	else if (device_ioctl(VIOMMU_MAP, &m) < 0)
		say("reason=\"map: %s\"", strerror(errno));
}

static void detach(void)
{
	device_ioctl(VIOMMU_UNBIND, NULL);
}

/* All that there are, one that comes back, and all back. */
static void exhaust(void)
{
	uint32_t got[MOST];
	unsigned int count = 0, freed = 0;
	int error = 0, again, known;
	uint32_t last;

	while (count < MOST && !(error = allocate(&got[count])))
		count++;
	known = release(got[0]);
	last = got[0];
	again = allocate(&got[0]);
	while (freed < count && !release(got[freed]))
		freed++;
	say("allocated=%u error=%d one_freed=%d allocated_again=%d same=%d freed=%u", count, error, known, again,
	    got[0] == last, freed);
}

int main(void)
{
	uint8_t *memory = mmap(NULL, BUFFER_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint32_t first = 0, second = 0, foreign;
	int error;

	device_open("substreams");
	error = allocate(&first);
	if (!error)
		error = allocate(&second);
	say("first=%u second=%u allocate=%d", first, second, error);
	if (error)
		return 0;
	attach(first, memory);
	both_ways("own", memory, iova, 10, first, 0);
	/* Freed under the device. */
	say("free=%d", release(first));
	check("freed", CMD_READ, iova, 64, first, 0, "");
	say("free_again=%d", release(first));
	detach();
	attach(second, memory);
	both_ways("second", memory, iova, 20, second, 0);
	detach();
	/* Never handed out to this guest, with everything in place for it. */
	foreign = second + 1;
	attach(foreign, memory);
	say("foreign=%u free_foreign=%d", foreign, release(foreign));
	check("foreign", CMD_WRITE, iova, 64, foreign, 0, "");
	detach();
	say("free_second=%d", release(second));
	exhaust();
	return 0;
}
