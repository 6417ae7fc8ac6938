// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A PASID with a domain of its own: what a driver does with PASIDs where addresses cannot be
 * shared.
 */
#include <linux/mm.h>
#include <linux/slab.h>
#include "internal.h"

int testdev_attach_domain(struct testdev_user *user, struct viommu_bind *bind)
{
	struct device *dev = &user->testdev->pdev->dev;
	struct iommu_domain *domain;
	int ret;

	bind->step = VIOMMU_STEP_DOMAIN;
	domain = iommu_paging_domain_alloc(dev);
	if (IS_ERR(domain))
		return PTR_ERR(domain);
	bind->step = VIOMMU_STEP_ATTACH;
	ret = iommu_attach_device_pasid(domain, dev, bind->pasid, NULL);
	if (ret) {
		iommu_domain_free(domain);
		return ret;
	}
	bind->step = VIOMMU_STEP_NONE;
	user->domain = domain;
	user->pasid = bind->pasid;
	return 0;
}

static void forget(struct testdev_user *user, struct testdev_map *map)
{
	iommu_unmap(user->domain, map->iova, (size_t)map->count << PAGE_SHIFT);
	unpin_user_pages(map->pages, map->count);
	list_del(&map->next);
	kfree(map);
}

void testdev_detach_domain(struct testdev_user *user)
{
	struct testdev_map *map, *next;

	iommu_detach_device_pasid(user->domain, &user->testdev->pdev->dev, user->pasid);
	list_for_each_entry_safe(map, next, &user->maps, next)
		forget(user, map);
	iommu_domain_free(user->domain);
	user->domain = NULL;
}

static int map_pages(struct testdev_user *user, struct testdev_map *map)
{
	unsigned int i;
	int ret;

	for (i = 0; i < map->count; i++) {
		ret = iommu_map(user->domain, map->iova + ((u64)i << PAGE_SHIFT), page_to_phys(map->pages[i]),
				PAGE_SIZE, IOMMU_READ | IOMMU_WRITE, GFP_KERNEL);
		if (ret) {
			if (i)
				iommu_unmap(user->domain, map->iova, (size_t)i << PAGE_SHIFT);
			return ret;
		}
	}
	return 0;
}

int testdev_map(struct testdev_user *user, const struct viommu_map *arg)
{
	unsigned int count = arg->length >> PAGE_SHIFT;
	struct testdev_map *map;
	int pinned, ret;

	if (!user->domain)
		return -ENODEV;
	if (!count || count > MAX_MAP_PAGES || ((arg->length | arg->iova | arg->memory) & ~PAGE_MASK))
		return -EINVAL;
	map = kzalloc(sizeof(*map), GFP_KERNEL);
	if (!map)
		return -ENOMEM;
	map->iova = arg->iova;
	pinned = pin_user_pages_fast(arg->memory, count, FOLL_WRITE | FOLL_LONGTERM, map->pages);
	if (pinned < 0) {
		kfree(map);
		return pinned;
	}
	map->count = pinned;
	ret = pinned == count ? map_pages(user, map) : -EFAULT;
	if (ret) {
		unpin_user_pages(map->pages, pinned);
		kfree(map);
		return ret;
	}
	list_add(&map->next, &user->maps);
	return 0;
}

int testdev_unmap(struct testdev_user *user, const struct viommu_map *arg)
{
	struct testdev_map *map;

	list_for_each_entry(map, &user->maps, next) {
		if (map->iova == arg->iova) {
			forget(user, map);
			return 0;
		}
	}
	return -ENOENT;
}
