/* SPDX-License-Identifier: Apache-2.0 */
/*
 * viommu-vfio-tables DEVICE COUNT COMMAND…: gives viommu-testdev as many table pages as pages, runs
 * a command while they are in force, and takes them away. Each page is mapped 2 MiB from the one
 * before, so that it has a table of its own. The program has it there, too: so the kernel gets a
 * table for the processor and one for the device in turns, and no two tables of the device lie side
 * by side.
 *
 * The device must reach each page before the command and behind it, and none at the end.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include "container.h"
#include "testdev.h"

#define TABLE_SPAN (2ull << 20)
#define FIRST_IOVA (4ull << 30)
#define MAX_COUNT 4096

static struct container container;
static struct testdev testdev;
static uint8_t *memory;

static uint8_t *memory_of(unsigned int index)
{
	return memory + index * TABLE_SPAN;
}

static uint64_t iova_of(unsigned int index)
{
	return FIRST_IOVA + index * TABLE_SPAN;
}

/* Both ways, each page with a word of its own. */
static void check(unsigned int index, const char *when)
{
	volatile uint64_t *page = (uint64_t *)memory_of(index);
	uint64_t word = 0x0123456789abcdefull * (index + 1);

	*page = word;
	if (!testdev_move(&testdev, FROM_MEMORY, iova_of(index), 8) || testdev.buffer[0] != word)
		fail("reason=\"the device does not read page %u %s\"", index, when);
	testdev.buffer[0] = ~word;
	if (!testdev_move(&testdev, TO_MEMORY, iova_of(index), 8) || *page != ~word)
		fail("reason=\"the device does not write page %u %s\"", index, when);
}

static void map(unsigned int index)
{
	uint8_t *page = memory_of(index);
	int error;

	*page = 1;
	error = container_map(&container, iova_of(index), page, PAGE, 1);
	if (error)
		fail("reason=\"VFIO_IOMMU_MAP_DMA: %s\" page=%u", strerror(error), index);
}

static void unmap(unsigned int index)
{
	int error = container_unmap(&container, iova_of(index), PAGE);

	if (error)
		fail("reason=\"VFIO_IOMMU_UNMAP_DMA: %s\" page=%u", strerror(error), index);
	if (testdev_move(&testdev, FROM_MEMORY, iova_of(index), 8))
		fail("reason=\"the device reads page %u, which is not mapped any more\"", index);
}

static int run(char **command)
{
	int status;
	pid_t child = fork();

	if (child == 0) {
		execvp(command[0], command);
		_exit(127);
	}
	if (child < 0 || waitpid(child, &status, 0) != child)
		fail("reason=\"%s could not be run\"", command[0]);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

int main(int argc, char **argv)
{
	unsigned int count = argc > 3 ? strtoul(argv[2], NULL, 0) : 0, i;
	int status;

	job = "vfio-tables";
	if (count == 0 || count > MAX_COUNT)
		fail("reason=\"viommu-vfio-tables DEVICE COUNT COMMAND…\"");
	container_open(&container, argv[1]);
	container_enable(&container);
	testdev_open(&testdev, &container);
	memory = mmap(NULL, count * TABLE_SPAN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (memory == MAP_FAILED || madvise(memory, count * TABLE_SPAN, MADV_NOHUGEPAGE))
		fail("reason=\"no memory\"");
	for (i = 0; i < count; i++)
		map(i);
	for (i = 0; i < count; i++)
		check(i, "before the command");
	say("state=mapped pages=%u", count);
	status = run(argv + 3);
	for (i = 0; i < count; i++)
		check(i, "behind the command");
	for (i = 0; i < count; i++)
		unmap(i);
	say("state=done command=%d", status);
	return status != 0;
}
