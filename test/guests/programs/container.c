/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>
#include "container.h"

const char *job = "vfio";

static void line(const char *format, va_list arguments)
{
	printf("VIOMMU-GUEST: %s ", job);
	vprintf(format, arguments);
	putchar('\n');
	fflush(stdout);
}

void say(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	line(format, arguments);
	va_end(arguments);
}

void fail(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	line(format, arguments);
	va_end(arguments);
	exit(1);
}

/* Number of the group that the kernel has put the device into. */
static int group_of(const char *device)
{
	char path[128], target[256];
	ssize_t length;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/iommu_group", device);
	length = readlink(path, target, sizeof(target) - 1);
	if (length < 0)
		fail("reason=\"%s: %s\"", path, strerror(errno));
	target[length] = 0;
	return atoi(strrchr(target, '/') + 1);
}

/* The capability chain of VFIO_IOMMU_GET_INFO says which input addresses there are. */
static void read_ranges(struct container *c)
{
	char memory[4096] __attribute__((aligned(8)));
	struct vfio_iommu_type1_info *info = (void *)memory;
	uint32_t at, i;

	memset(memory, 0, sizeof(memory));
	info->argsz = sizeof(memory);
	if (ioctl(c->fd, VFIO_IOMMU_GET_INFO, info) < 0)
		fail("reason=\"VFIO_IOMMU_GET_INFO: %s\"", strerror(errno));
	for (at = info->flags & VFIO_IOMMU_INFO_CAPS ? info->cap_offset : 0; at;) {
		struct vfio_info_cap_header *header = (void *)(memory + at);
		struct vfio_iommu_type1_info_cap_iova_range *list = (void *)header;

		at = header->next;
		if (header->id != VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE)
			continue;
		for (i = 0; i < list->nr_iovas && i < MAX_RANGES; i++)
			c->ranges[i] = (struct range){ list->iova_ranges[i].start, list->iova_ranges[i].end };
		c->range_count = i;
	}
	if (!c->range_count)
		fail("reason=\"the container names no input addresses\"");
}

void container_open(struct container *c, const char *device)
{
	struct vfio_group_status status = { .argsz = sizeof(status) };
	char path[64];
	int group;

	*c = (struct container){ .fd = open("/dev/vfio/vfio", O_RDWR) };
	snprintf(path, sizeof(path), "/dev/vfio/%d", group_of(device));
	group = open(path, O_RDWR);
	if (c->fd < 0 || group < 0)
		fail("reason=\"/dev/vfio/vfio, %s: %s\"", path, strerror(errno));
	if (ioctl(group, VFIO_GROUP_GET_STATUS, &status) < 0 || !(status.flags & VFIO_GROUP_FLAGS_VIABLE))
		fail("reason=\"%s is not viable\"", path);
	if (ioctl(group, VFIO_GROUP_SET_CONTAINER, &c->fd) < 0)
		fail("reason=\"VFIO_GROUP_SET_CONTAINER: %s\"", strerror(errno));
	if (ioctl(c->fd, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU) < 0)
		fail("reason=\"VFIO_SET_IOMMU: %s\"", strerror(errno));
	c->device = ioctl(group, VFIO_GROUP_GET_DEVICE_FD, device);
	if (c->device < 0)
		fail("reason=\"VFIO_GROUP_GET_DEVICE_FD: %s\"", strerror(errno));
	read_ranges(c);
}

void *container_region(const struct container *c, unsigned int index, size_t size)
{
	struct vfio_region_info info = { .argsz = sizeof(info), .index = index };
	void *mapped;

	if (ioctl(c->device, VFIO_DEVICE_GET_REGION_INFO, &info) < 0 || info.size < size)
		fail("reason=\"region %u has no %zu bytes\"", index, size);
	mapped = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, c->device, info.offset);
	if (mapped == MAP_FAILED)
		fail("reason=\"region %u: %s\"", index, strerror(errno));
	return mapped;
}

void container_enable(const struct container *c)
{
	struct vfio_region_info info = { .argsz = sizeof(info), .index = VFIO_PCI_CONFIG_REGION_INDEX };
	uint16_t command = PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;

	if (ioctl(c->device, VFIO_DEVICE_GET_REGION_INFO, &info) < 0 ||
	    pwrite(c->device, &command, sizeof(command), info.offset + PCI_COMMAND) != sizeof(command))
		fail("reason=\"configuration space: %s\"", strerror(errno));
}

int container_map(const struct container *c, uint64_t iova, void *memory, uint64_t size, int writable)
{
	struct vfio_iommu_type1_dma_map map = {
		.argsz = sizeof(map),
		.flags = VFIO_DMA_MAP_FLAG_READ | (writable ? VFIO_DMA_MAP_FLAG_WRITE : 0),
		.vaddr = (uintptr_t)memory,
		.iova = iova,
		.size = size,
	};

	return ioctl(c->fd, VFIO_IOMMU_MAP_DMA, &map) < 0 ? errno : 0;
}

int container_unmap(const struct container *c, uint64_t iova, uint64_t size)
{
	struct vfio_iommu_type1_dma_unmap unmap = { .argsz = sizeof(unmap), .iova = iova, .size = size };

	if (ioctl(c->fd, VFIO_IOMMU_UNMAP_DMA, &unmap) < 0)
		return errno;
	return unmap.size == size ? 0 : EIO;
}
