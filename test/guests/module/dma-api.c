// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A driver that maps and unmaps all the time through the kernel's DMA API: memory of many sizes, in
 * pieces, as scatterlists and as coherent memory, in all directions. The device must reach what is
 * mapped, as its direction says, byte by byte. It must not reach what is unmapped, at once or,
 * where the kernel flushes lazily, a moment later. Where the kernel has switched ATS on, the device
 * translates ahead, and keeps a translation until it is invalidated. Several tasks may do this at
 * once. An address that one has unmapped may then be mapped by another.
 */
#include <linux/delay.h>
#include <linux/dma-mapping.h>
#include <linux/prandom.h>
#include <linux/scatterlist.h>
#include <linux/slab.h>
#include "internal.h"

#define SLOTS		64
#define MAX_SINGLE	(128u << 10)
#define MAX_COHERENT	(256u << 10)
#define MAX_LIST_PAGES	16
/* Longer than the kernel lets an unmapped address wait for its flush. */
#define FLUSHED_MS	200

enum kind { KIND_NONE, KIND_SINGLE, KIND_COHERENT, KIND_LIST };

struct slot {
	enum kind kind;
	enum dma_data_direction direction;
	unsigned int size;
	u8 *memory;		/* single, coherent */
	dma_addr_t address;	/* of its first byte for the device */
	struct page *pages[MAX_LIST_PAGES];
	struct sg_table list;
};

struct run {
	struct testdev *testdev;
	struct viommu_dma *counts;
	struct rnd_state random;
	u8 *bytes;		/* what is compared, as much as the buffer has */
	struct slot slots[SLOTS];
	dma_addr_t gone[SLOTS];	/* addresses that were unmapped */
	unsigned int gone_count;
	bool ats;		/* the device has it, and the kernel has switched it on */
};

static u32 below(struct run *run, u32 n)
{
	return prandom_u32_state(&run->random) % n;
}

static struct device *device_of(struct run *run)
{
	return &run->testdev->pdev->dev;
}

static int wrong(struct run *run, const char *what, u64 address)
{
	strscpy(run->counts->wrong, what, sizeof(run->counts->wrong));
	run->counts->address = address;
	return -EIO;
}

/* Moves bytes between buffer and device address: 1 done, 0 a fault. */
static int move_as(struct run *run, u32 command, dma_addr_t address, u32 length, bool ahead)
{
	struct viommu_transfer t = {
		.address = address,
		.length = length,
		.pasid = VIOMMU_NO_PASID,
		.control = ahead ? CONTROL_ATS : 0,
		.command = command,
	};
	int ret = testdev_transfer(run->testdev, &t);

	run->counts->ahead += ahead;
	return ret ? ret : t.status == STATUS_DONE;
}

static int move(struct run *run, u32 command, dma_addr_t address, u32 length)
{
	return move_as(run, command, address, length, run->ats);
}

/* The device reads into its buffer, and it is compared with memory. */
static int compare_read(struct run *run, const u8 *memory, dma_addr_t address, u32 length)
{
	int ret;

	mutex_lock(&run->testdev->buffer_lock);
	ret = move(run, CMD_READ, address, length);
	memcpy_fromio(run->bytes, run->testdev->buffer, length);
	mutex_unlock(&run->testdev->buffer_lock);
	if (ret < 0)
		return ret;
	if (!ret)
		return wrong(run, "the device cannot read", address);
	run->counts->bytes += length;
	return memcmp(run->bytes, memory, length) ? wrong(run, "the device has read wrong bytes", address) : 0;
}

/* The device reads a piece. What it may only write, Linux's VT-d driver lets it read as well. */
static int check_read(struct run *run, const struct slot *slot, u8 *memory, dma_addr_t address, u32 length)
{
	if (slot->direction == DMA_FROM_DEVICE)
		return 0;
	prandom_bytes_state(&run->random, memory, length);
	if (slot->kind == KIND_SINGLE)
		dma_sync_single_for_device(device_of(run), address, length, slot->direction);
	return compare_read(run, memory, address, length);
}

/* The device writes a piece, or must not. */
static int check_write(struct run *run, const struct slot *slot, u8 *memory, dma_addr_t address, u32 length)
{
	bool allowed = slot->direction != DMA_TO_DEVICE;
	int ret;

	prandom_bytes_state(&run->random, run->bytes, length);
	mutex_lock(&run->testdev->buffer_lock);
	memcpy_toio(run->testdev->buffer, run->bytes, length);
	ret = move(run, CMD_WRITE, address, length);
	mutex_unlock(&run->testdev->buffer_lock);
	if (ret < 0)
		return ret;
	if (ret != allowed)
		return wrong(run, allowed ? "the device cannot write" : "the device writes what it may only read", address);
	run->counts->refused += !allowed;
	if (!allowed)
		return 0;
	if (slot->kind == KIND_SINGLE)
		dma_sync_single_for_cpu(device_of(run), address, length, slot->direction);
	run->counts->bytes += length;
	return memcmp(run->bytes, memory, length) ? wrong(run, "the device has written wrong bytes", address) : 0;
}

static int check_piece(struct run *run, const struct slot *slot, u8 *memory, dma_addr_t address, u32 size)
{
	u32 at, length;
	int ret;

	for (at = 0; at < size; at += length) {
		length = min(size - at, run->testdev->buffer_size);
		ret = check_read(run, slot, memory + at, address + at, length);
		if (!ret)
			ret = check_write(run, slot, memory + at, address + at, length);
		if (ret)
			return ret;
	}
	return 0;
}

/*
 * The segments of a list need not be its pages: contiguous ones are joined, and addresses always
 * are.
 */
static int check_list(struct run *run, const struct slot *slot)
{
	unsigned int i;
	int ret = 0;

	for (i = 0; i < slot->size / PAGE_SIZE && !ret; i++)
		ret = check_piece(run, slot, page_address(slot->pages[i]), slot->address + i * PAGE_SIZE, PAGE_SIZE);
	return ret;
}

static int check(struct run *run, const struct slot *slot)
{
	return slot->kind == KIND_LIST ? check_list(run, slot)
				       : check_piece(run, slot, slot->memory, slot->address, slot->size);
}

static int map_single(struct run *run, struct slot *slot)
{
	slot->size = 1 + below(run, below(run, 4) ? 2 * PAGE_SIZE : MAX_SINGLE);
	slot->memory = kmalloc(slot->size, GFP_KERNEL);
	if (!slot->memory)
		return -ENOMEM;
	slot->address = dma_map_single(device_of(run), slot->memory, slot->size, slot->direction);
	if (!dma_mapping_error(device_of(run), slot->address))
		return 0;
	kfree(slot->memory);
	return -ENOSPC;
}

static int map_coherent(struct run *run, struct slot *slot)
{
	slot->size = 1 + below(run, MAX_COHERENT);
	slot->direction = DMA_BIDIRECTIONAL;
	slot->memory = dma_alloc_coherent(device_of(run), slot->size, &slot->address, GFP_KERNEL);
	return slot->memory ? 0 : -ENOMEM;
}

static void free_pages_of(struct slot *slot)
{
	unsigned int i;

	for (i = 0; i < slot->size / PAGE_SIZE; i++)
		__free_page(slot->pages[i]);
	slot->size = 0;
}

static int map_list(struct run *run, struct slot *slot)
{
	unsigned int count = 1 + below(run, MAX_LIST_PAGES);
	int ret = 0;

	for (slot->size = 0; slot->size < count * PAGE_SIZE; slot->size += PAGE_SIZE) {
		struct page *page = alloc_page(GFP_KERNEL);

		if (!page) {
			free_pages_of(slot);
			return -ENOMEM;
		}
		slot->pages[slot->size / PAGE_SIZE] = page;
	}
	ret = sg_alloc_table_from_pages(&slot->list, slot->pages, count, 0, slot->size, GFP_KERNEL);
	if (!ret) {
		ret = dma_map_sgtable(device_of(run), &slot->list, slot->direction, 0);
		if (ret)
			sg_free_table(&slot->list);
	}
	if (ret)
		free_pages_of(slot);
	else
		slot->address = sg_dma_address(slot->list.sgl);
	return ret;
}

static int acquire(struct run *run, struct slot *slot)
{
	static const enum dma_data_direction directions[] = { DMA_BIDIRECTIONAL, DMA_TO_DEVICE, DMA_FROM_DEVICE };
	enum kind kind = KIND_SINGLE + below(run, 3);
	int ret;

	slot->direction = directions[below(run, ARRAY_SIZE(directions))];
	ret = kind == KIND_SINGLE ? map_single(run, slot)
	    : kind == KIND_COHERENT ? map_coherent(run, slot) : map_list(run, slot);
	if (ret)
		return wrong(run, "nothing can be mapped", ret);
	slot->kind = kind;
	run->counts->maps++;
	run->counts->coherent += kind == KIND_COHERENT;
	run->counts->lists += kind == KIND_LIST;
	return check(run, slot);
}

/*
 * Nothing is reached any more: neither by a plain access nor, with ATS, by one that may find what
 * the device has kept.
 */
static int check_gone(struct run *run, dma_addr_t address, bool lazily)
{
	int ret;

	if (run->counts->together)
		return 0;
	mutex_lock(&run->testdev->buffer_lock);
	ret = move_as(run, CMD_READ, address, 1, false);
	if (!ret && run->ats)
		ret = move_as(run, CMD_READ, address, 1, true);
	mutex_unlock(&run->testdev->buffer_lock);

	if (ret < 0)
		return ret;
	if (ret && !lazily)
		return wrong(run, "the device reads what is unmapped", address);
	run->counts->stale += ret;
	run->counts->refused += !ret;
	return 0;
}

static void unmap(struct run *run, struct slot *slot)
{
	switch (slot->kind) {
	case KIND_SINGLE:
		dma_unmap_single(device_of(run), slot->address, slot->size, slot->direction);
		break;
	case KIND_LIST:
		dma_unmap_sgtable(device_of(run), &slot->list, slot->direction, 0);
		sg_free_table(&slot->list);
		break;
	default:
		dma_free_coherent(device_of(run), slot->size, slot->memory, slot->address);
	}
}

static int release(struct run *run, struct slot *slot)
{
	dma_addr_t last = slot->address + slot->size - 1;
	int ret = check(run, slot);

	unmap(run, slot);
	if (!ret)
		ret = check_gone(run, slot->address, run->counts->lazy);
	if (!ret)
		ret = check_gone(run, last, run->counts->lazy);
	/* A device that still reaches it has not read anybody else's. */
	if (slot->kind == KIND_SINGLE)
		kfree(slot->memory);
	else if (slot->kind == KIND_LIST)
		free_pages_of(slot);
	slot->kind = KIND_NONE;
	run->gone[run->gone_count++ % SLOTS] = slot->address;
	run->counts->unmaps++;
	return ret;
}

static int check_all_gone(struct run *run)
{
	unsigned int i;
	int ret = 0;

	msleep(FLUSHED_MS);
	for (i = 0; i < min_t(unsigned int, run->gone_count, SLOTS) && !ret; i++)
		ret = check_gone(run, run->gone[i], false);
	return ret;
}

long testdev_dma_api(struct testdev *testdev, struct viommu_dma *counts)
{
	struct run *run = kzalloc(sizeof(*run), GFP_KERNEL);
	unsigned int i;
	int ret = 0;

	if (!run)
		return -ENOMEM;
	run->testdev = testdev;
	run->counts = counts;
	run->ats = readl(testdev->registers + REG_ENABLED) & ENABLED_ATS;
	run->bytes = kmalloc(testdev->buffer_size, GFP_KERNEL);
	prandom_seed_state(&run->random, counts->seed);
	if (!run->bytes)
		ret = -ENOMEM;
	for (i = 0; i < counts->steps && !ret; i++) {
		struct slot *slot = &run->slots[below(run, SLOTS)];

		ret = slot->kind == KIND_NONE ? acquire(run, slot) : release(run, slot);
	}
	for (i = 0; i < SLOTS; i++) {
		int error = run->slots[i].kind == KIND_NONE ? 0 : release(run, &run->slots[i]);

		ret = ret ? ret : error;
	}
	if (!ret)
		ret = check_all_gone(run);
	kfree(run->bytes);
	kfree(run);
	return ret;
}
