// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Paravirtual PASIDs: SubstreamIDs from the SMMUv3 itself, where it has the registers of
 * docs/pv-pasid.md. A driver of a device that is shared with other guests has its PASIDs from here,
 * not from the kernel's allocator.
 */
#include <linux/iopoll.h>
#include <linux/platform_device.h>
#include "internal.h"

/*
 * The part of page 0 that is IMPLEMENTATION DEFINED; the kernel's driver for the SMMU does not
 * claim it.
 */
#define SPACE_OFFSET	0xe00
#define SPACE_SIZE	0x100

enum {
	VCID0 = 0x00,
	VCID1 = 0x04,
	VCCAP = 0x08,
	VCMD = 0x10,
	VCRSP = 0x14,
};

#define SIGNATURE0	0x6d6f6976	/* "viom" */
#define SIGNATURE1	0x5650756d	/* "muPV" */
#define VCCAP_PAS	BIT(8)
#define SSID_SHIFT	12
#define CMD_ALLOCATE	1
#define CMD_FREE	2
#define VCRSP_BUSY	BIT(0)
#define POLL_US		10

enum {
	SC_SUCCESS = 0,
	SC_NO_SUBSTREAMID = 16,
	SC_NOT_OWNED = 17,
};

/*
 * Registers of the SMMUv3 that translates for a device: by device tree or IORT, it is a platform
 * device.
 */
static struct resource *smmu_of(struct device *dev)
{
	struct device *smmu;

	if (!dev->iommu || !dev->iommu->iommu_dev || !dev->iommu->iommu_dev->dev)
		return NULL;
	smmu = dev->iommu->iommu_dev->dev->parent;
	if (!smmu || !smmu->driver || strcmp(smmu->driver->name, "arm-smmu-v3"))
		return NULL;
	return platform_get_resource(to_platform_device(smmu), IORESOURCE_MEM, 0);
}

static bool is_there(const void __iomem *base)
{
	return readl(base + VCID0) == SIGNATURE0 && readl(base + VCID1) == SIGNATURE1 &&
	       readl(base + VCCAP) & VCCAP_PAS;
}

int substreams_find(struct substreams *s, struct device *dev)
{
	struct resource *smmu = smmu_of(dev);
	resource_size_t at;

	if (!smmu)
		return -ENODEV;
	at = smmu->start + SPACE_OFFSET;
	if (!devm_request_mem_region(dev, at, SPACE_SIZE, "viommu-substreams"))
		return -EBUSY;
	s->base = devm_ioremap(dev, at, SPACE_SIZE);
	if (s->base && is_there(s->base)) {
		mutex_init(&s->lock);
		dev_info(dev, "SubstreamIDs of the SMMU at %pa, version %u\n", &smmu->start,
			 readl(s->base + VCCAP) & 0xff);
		return 0;
	}
	if (s->base)
		devm_iounmap(dev, s->base);
	devm_release_mem_region(dev, at, SPACE_SIZE);
	s->base = NULL;
	return -ENODEV;
}

/*
 * One command; what VCRSP says when it has ended. There is no giving up: it cannot be taken back.
 */
static u32 command(struct substreams *s, u32 code, u32 ssid)
{
	u32 response;

	mutex_lock(&s->lock);
	writel(code | ssid << SSID_SHIFT, s->base + VCMD);
	readl_poll_timeout(s->base + VCRSP, response, !(response & VCRSP_BUSY), POLL_US, 0);
	mutex_unlock(&s->lock);
	return response;
}

static int result_of(u32 response)
{
	switch (response >> 1 & 0x7f) {
	case SC_SUCCESS:
		return 0;
	case SC_NO_SUBSTREAMID:
		return -ENOSPC;
	case SC_NOT_OWNED:
		return -EPERM;
	default:
		return -EIO;
	}
}

int substreams_allocate(struct substreams *s, u32 *ssid)
{
	u32 response;

	if (!s->base)
		return -ENODEV;
	response = command(s, CMD_ALLOCATE, 0);
	*ssid = response >> SSID_SHIFT;
	return result_of(response);
}

/*
 * Its user has stopped, and its domain is detached, which has invalidated what the SMMU and the
 * device kept.
 */
int substreams_free(struct substreams *s, u32 ssid)
{
	if (!s->base)
		return -ENODEV;
	return ssid >> 20 ? -EINVAL : result_of(command(s, CMD_FREE, ssid));
}
