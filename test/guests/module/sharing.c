// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * iommu_sva_bind_device by hand. Stable x86 kernels have that function refuse (-EOPNOTSUPP) while
 * their IOMMU drivers can do it all the same: it could leave kernel addresses in IOMMU caches that
 * the kernel has reused for something else. In a machine for tests that is no harm, and the
 * driver's part of the work is what the tests are about.
 */
#include <linux/mm.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include "internal.h"

static enum iommu_page_response_code bring_page(const struct iommu_fault_page_request *request, struct mm_struct *mm)
{
	unsigned int flags = request->perm & IOMMU_FAULT_PERM_WRITE ? FAULT_FLAG_WRITE : 0;
	bool unlocked;
	int ret;

	if (!(request->flags & IOMMU_FAULT_PAGE_REQUEST_PASID_VALID) || !mmget_not_zero(mm))
		return IOMMU_PAGE_RESP_INVALID;
	mmap_read_lock(mm);
	ret = fixup_user_fault(mm, request->addr, flags, &unlocked);
	mmap_read_unlock(mm);
	mmput(mm);
	return ret ? IOMMU_PAGE_RESP_INVALID : IOMMU_PAGE_RESP_SUCCESS;
}

static void bring_pages(struct work_struct *work)
{
	struct iopf_group *group = container_of(work, struct iopf_group, work);
	enum iommu_page_response_code code = IOMMU_PAGE_RESP_SUCCESS;
	struct iopf_fault *fault;

	list_for_each_entry(fault, &group->faults, list) {
		if (code == IOMMU_PAGE_RESP_SUCCESS)
			code = bring_page(&fault->fault.prm, group->attach_handle->domain->mm);
	}
	iopf_group_response(group, code);
	iopf_free_group(group);
}

/* On the queue that the IOMMU driver waits for before it takes the PASID away. */
static int handle_group(struct iopf_group *group)
{
	INIT_WORK(&group->work, bring_pages);
	return queue_work(group->fault_param->queue->wq, &group->work) ? 0 : -EBUSY;
}

static struct iommu_domain *alloc_domain(struct device *dev, struct mm_struct *mm)
{
	const struct iommu_ops *ops = dev->iommu->iommu_dev->ops;
	struct iommu_domain *domain;

	if (!ops->domain_alloc_sva)
		return ERR_PTR(-EOPNOTSUPP);
	domain = ops->domain_alloc_sva(dev, mm);
	if (IS_ERR(domain))
		return domain;
	domain->type = IOMMU_DOMAIN_SVA;
	mmgrab(mm); /* iommu_domain_free gives it back */
	domain->mm = mm;
	domain->owner = ops;
	domain->iopf_handler = handle_group;
	return domain;
}

int testdev_share(struct testdev_user *user, struct mm_struct *mm)
{
	struct device *dev = &user->testdev->pdev->dev;
	struct iommu_domain *domain = alloc_domain(dev, mm);
	ioasid_t pasid;
	int ret;

	if (IS_ERR(domain))
		return PTR_ERR(domain);
	pasid = iommu_alloc_global_pasid(dev);
	if (pasid == IOMMU_PASID_INVALID) {
		iommu_domain_free(domain);
		return -ENOSPC;
	}
	ret = iommu_attach_device_pasid(domain, dev, pasid, &user->handle);
	if (ret) {
		iommu_free_global_pasid(pasid);
		iommu_domain_free(domain);
		return ret;
	}
	user->shared = domain;
	user->pasid = pasid;
	return 0;
}

void testdev_unshare(struct testdev_user *user)
{
	iommu_detach_device_pasid(user->shared, &user->testdev->pdev->dev, user->pasid);
	iommu_domain_free(user->shared);
	iommu_free_global_pasid(user->pasid);
	user->shared = NULL;
}
