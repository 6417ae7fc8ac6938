// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A process gives the device its own address space: the device reads and writes user memory by
 * virtual address, has pages faulted in, loses what the process unmaps, and stops when it is
 * unbound. One line per check, for the test.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "device.h"

#define PAGE 4096u
#define ATS_PRI (CONTROL_ATS | CONTROL_PRI)
/* BEHAVIOUR: the next invalidation request is not obeyed, and counts as not answered in time. */
#define NEVER_ONCE 0x10002u

static uint32_t pasid;

/*
 * Where the next mapping goes: between others in one 2 MiB block, so that munmap never frees a page
 * table. When it does, Linux flushes the whole address space at once. Its VT-d driver seems to ask
 * the Device-TLB for that without PASID then, which is none for the translations of a process: the
 * device kept them exactly where a buffer crossed a block's boundary.
 */
#define BLOCK (2u << 20)

static uint8_t *next_place(void)
{
	static uint8_t *next;

	if (!next) {
		void *memory = mmap(NULL, 2 * BLOCK, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (memory == MAP_FAILED)
			say("reason=\"mmap: %s\"", strerror(errno));
		next = (uint8_t *)(((uintptr_t)memory + BLOCK - 1) & ~(uintptr_t)(BLOCK - 1));
	}
	next += 2 * BUFFER_SIZE;
	return next - BUFFER_SIZE;
}

static uint8_t *map(uint8_t *where, int protection, int flags, int file)
{
	uint8_t *memory = mmap(where ? where : next_place(), BUFFER_SIZE, protection, flags | MAP_FIXED, file, 0);

	if (memory == MAP_FAILED)
		say("reason=\"mmap: %s\"", strerror(errno));
	return memory;
}

static uint8_t *anonymous(uint8_t *where)
{
	return map(where, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
}

static bool bind(void)
{
	struct viommu_bind b = { 0 };

	if (device_ioctl(VIOMMU_BIND_PROCESS, &b) < 0) {
		say("bind=failed step=%u errno=%d", b.step, errno);
		return false;
	}
	pasid = b.pasid;
	say("bind=done by=%s pasid=%u enabled=0x%x", b.by_hand ? "module" : "kernel", pasid, device_register(REG_ENABLED));
	return true;
}

/* Memory that has not been touched: every page comes by a page request. */
static uint8_t *write_untouched(void)
{
	uint32_t before = device_register(REG_PAGE_REQUESTS);
	uint8_t *memory = anonymous(NULL);
	struct viommu_transfer t;

	fill_buffer(1);
	t = transfer(CMD_WRITE, memory, pasid, ATS_PRI);
	say("check=write-untouched device_status=%u result=0x%x same=%d page_requests=%u", t.status, t.result,
	    is_pattern(memory, BUFFER_SIZE, 1), device_register(REG_PAGE_REQUESTS) - before);
	return memory;
}

/* A file's pages, mapped and not touched; the device may read them and no more. */
static void read_file(void)
{
	static uint8_t data[BUFFER_SIZE];
	int file = open("/tmp/pages", O_RDWR | O_CREAT | O_TRUNC, 0600);
	struct viommu_transfer t;
	uint8_t *memory;

	make_pattern(data, sizeof(data), 2);
	if (write(file, data, sizeof(data)) != sizeof(data))
		say("reason=\"/tmp/pages: %s\"", strerror(errno));
	memory = map(NULL, PROT_READ, MAP_PRIVATE, file);
	t = transfer(CMD_READ, memory, pasid, ATS_PRI);
	read_buffer(data);
	say("check=read-file device_status=%u result=0x%x same=%d", t.status, t.result,
	    is_pattern(data, sizeof(data), 2));
	check("write-read-only", CMD_WRITE, memory, 64, pasid, ATS_PRI, "");
	munmap(memory, BUFFER_SIZE);
	close(file);
}

/* What the process takes away, the device loses, though it kept the translations. */
static void unmap_and_protect(uint8_t *memory)
{
	uint32_t invalidations = device_register(REG_INVALIDATIONS);
	struct viommu_transfer t;
	char more[64];

	mprotect(memory, BUFFER_SIZE, PROT_READ);
	check("write-protected", CMD_WRITE, memory, 64, pasid, ATS_PRI, "");
	check("read-protected", CMD_READ, memory, 64, pasid, ATS_PRI, "");
	munmap(memory, BUFFER_SIZE);
	snprintf(more, sizeof(more), "invalidations=%u", device_register(REG_INVALIDATIONS) - invalidations);
	check("read-unmapped", CMD_READ, memory, 64, pasid, ATS_PRI, more);

	memory = anonymous(memory);
	fill_buffer(3);
	t = transfer(CMD_WRITE, memory, pasid, ATS_PRI);
	say("check=write-mapped-again device_status=%u result=0x%x same=%d", t.status, t.result,
	    is_pattern(memory, BUFFER_SIZE, 3));
}

/* Requests that are neither translated ahead nor asked for: what is not there is a fault. */
static void plain_requests(void)
{
	uint8_t *memory = anonymous(NULL);
	struct viommu_transfer t;

	make_pattern(memory, BUFFER_SIZE, 4);
	t = transfer(CMD_READ, memory, pasid, 0);
	say("check=read-plain device_status=%u result=0x%x", t.status, t.result);
	munmap(memory, BUFFER_SIZE);
	check("read-plain-unmapped", CMD_READ, memory, 64, pasid, 0, "");
	check("other-pasid", CMD_READ, memory, 64, pasid + 1, 0, "");
	check("other-pasid-ahead", CMD_READ, memory, 64, pasid + 1, ATS_PRI, "");
}

/* A device that does not answer once: the kernel must come out of it, and say so. */
static void not_answered(void)
{
	uint8_t *memory = anonymous(NULL);
	struct viommu_transfer t;

	transfer(CMD_WRITE, memory, pasid, ATS_PRI);
	device_set_register(REG_BEHAVIOUR, NEVER_ONCE);
	munmap(memory, BUFFER_SIZE);
	say("check=not-answered behaviour=0x%x atc_entries=%u", device_register(REG_BEHAVIOUR),
	    device_register(REG_ATC_ENTRIES));
	memory = anonymous(memory);
	fill_buffer(5);
	t = transfer(CMD_WRITE, memory, pasid, ATS_PRI);
	say("check=after-not-answered device_status=%u result=0x%x same=%d", t.status, t.result,
	    is_pattern(memory, BUFFER_SIZE, 5));
}

static void unbind(void)
{
	uint8_t *memory = anonymous(NULL);

	fill_buffer(6);
	transfer(CMD_WRITE, memory, pasid, ATS_PRI);
	if (device_ioctl(VIOMMU_UNBIND, NULL) < 0)
		say("reason=\"unbind: %s\"", strerror(errno));
	say("unbind=done atc_entries=%u", device_register(REG_ATC_ENTRIES));
	check("unbound-ahead", CMD_WRITE, memory, 64, pasid, CONTROL_ATS, "");
	check("unbound-plain", CMD_WRITE, memory, 64, pasid, 0, "");
	say("check=unbound same=%d", is_pattern(memory, BUFFER_SIZE, 6));
}

int main(int argc, char **argv)
{
	device_open("sva");
	if (!bind())
		return 0;
	unmap_and_protect(write_untouched());
	read_file();
	plain_requests();
	if (argc > 1 && !strcmp(argv[1], "not-answered"))
		not_answered();
	unbind();
	return 0;
}
