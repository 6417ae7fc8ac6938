// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A PASID (to an SMMUv3: a SubstreamID) with a domain of its own, into which the program maps
 * memory: what works in kernels whose driver cannot share a process's address space. One line per
 * check, for the test.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include "device.h"

#define PASID 5u
/* An address that no process has by accident. */
#define IOVA 0x40000000ull

static const void *at(uint64_t iova)
{
	return (const void *)(uintptr_t)iova;
}

/* A page request to a driver that has no use for one: the device must be told no. */
static void ask_for_page(void)
{
	uint32_t on = 1, before = device_register(REG_PAGE_RESPONSES);

	if (device_ioctl(VIOMMU_PAGE_REQUESTS, &on) < 0) {
		say("reason=\"page requests: %s\"", strerror(errno));
		return;
	}
	check("page-request", CMD_READ, at(IOVA + BUFFER_SIZE), 64, PASID, CONTROL_ATS | CONTROL_PRI, "");
	say("page_responses=%u page_code=%u", device_register(REG_PAGE_RESPONSES) - before,
	    device_register(REG_PAGE_CODE));
	on = 0;
	device_ioctl(VIOMMU_PAGE_REQUESTS, &on);
}

int main(int argc, char **argv)
{
	struct viommu_bind b = { .pasid = PASID };
	struct viommu_map m = { .iova = IOVA, .length = BUFFER_SIZE };
	uint8_t *memory = mmap(NULL, BUFFER_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint32_t ahead;

	device_open("domain");
	if (device_ioctl(VIOMMU_ATTACH_DOMAIN, &b) < 0) {
		say("attach=failed step=%u errno=%d", b.step, errno);
		return 0;
	}
	ahead = device_register(REG_ENABLED) & ENABLED_ATS ? CONTROL_ATS : 0;
	say("attach=done pasid=%u enabled=0x%x", PASID, device_register(REG_ENABLED));
	m.memory = (uintptr_t)memory;
	if (device_ioctl(VIOMMU_MAP, &m) < 0)
		say("reason=\"map: %s\"", strerror(errno));
	both_ways("plain", memory, at(IOVA), 10, PASID, 0);
	if (ahead)
		both_ways("ahead", memory, at(IOVA), 20, PASID, ahead);
	check("beside", CMD_READ, at(IOVA + BUFFER_SIZE), 64, PASID, 0, "");
	check("other-pasid", CMD_READ, at(IOVA), 64, PASID + 1, 0, "");
	/* Four bytes are one access of QEMU's memory API, and so one fault. */
	check("no-pasid", CMD_READ, at(IOVA), 4, VIOMMU_NO_PASID, 0, "");
	if (argc > 1 && !strcmp(argv[1], "pages"))
		ask_for_page();
	if (device_ioctl(VIOMMU_UNMAP, &m) < 0)
		say("reason=\"unmap: %s\"", strerror(errno));
	say("unmap=done atc_entries=%u", device_register(REG_ATC_ENTRIES));
	check("unmapped", CMD_WRITE, at(IOVA), 64, PASID, 0, "");
	if (ahead)
		check("unmapped-ahead", CMD_WRITE, at(IOVA), 64, PASID, ahead, "");
	device_ioctl(VIOMMU_UNBIND, NULL);
	check("detached", CMD_WRITE, at(IOVA), 64, PASID, 0, "");
	return 0;
}
