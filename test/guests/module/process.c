// SPDX-License-Identifier: GPL-2.0-or-later
/* Shared virtual addressing: the device uses a process's addresses, under a PASID. */
#include <linux/sched.h>
#include "internal.h"

static void disable_features(struct testdev *testdev)
{
	struct device *dev = &testdev->pdev->dev;

	if (testdev->features_enabled & BIT(IOMMU_DEV_FEAT_SVA))
		iommu_dev_disable_feature(dev, IOMMU_DEV_FEAT_SVA);
	if (testdev->features_enabled & BIT(IOMMU_DEV_FEAT_IOPF))
		iommu_dev_disable_feature(dev, IOMMU_DEV_FEAT_IOPF);
	testdev->features_enabled = 0;
}

static int enable(struct testdev *testdev, enum iommu_dev_features feature)
{
	int ret = iommu_dev_enable_feature(&testdev->pdev->dev, feature);

	if (!ret)
		testdev->features_enabled |= BIT(feature);
	return ret;
}

/* Page requests first: without them the IOMMU driver may refuse to share addresses. */
static int enable_features(struct testdev *testdev, u32 *step)
{
	int ret;

	*step = VIOMMU_STEP_FAULTS;
	ret = enable(testdev, IOMMU_DEV_FEAT_IOPF);
	if (ret)
		return ret;
	*step = VIOMMU_STEP_SHARING;
	ret = enable(testdev, IOMMU_DEV_FEAT_SVA);
	if (ret)
		disable_features(testdev);
	return ret;
}

static int bind(struct testdev_user *user, struct viommu_bind *b)
{
	struct iommu_sva *sva = iommu_sva_bind_device(&user->testdev->pdev->dev, current->mm);

	b->by_hand = PTR_ERR_OR_ZERO(sva) == -EOPNOTSUPP;
	if (b->by_hand)
		return testdev_share(user, current->mm);
	if (IS_ERR(sva))
		return PTR_ERR(sva);
	user->sva = sva;
	user->pasid = iommu_sva_get_pasid(sva);
	return 0;
}

int testdev_bind_process(struct testdev_user *user, struct viommu_bind *b)
{
	struct testdev *testdev = user->testdev;
	int ret = 0;

	mutex_lock(&testdev->lock);
	if (!testdev->bound)
		ret = enable_features(testdev, &b->step);
	if (ret)
		goto out;
	b->step = VIOMMU_STEP_BIND;
	ret = bind(user, b);
	if (ret) {
		if (!testdev->bound)
			disable_features(testdev);
		goto out;
	}
	testdev->bound++;
	b->step = VIOMMU_STEP_NONE;
	b->pasid = user->pasid;
out:
	mutex_unlock(&testdev->lock);
	return ret;
}

void testdev_unbind_process(struct testdev_user *user)
{
	struct testdev *testdev = user->testdev;

	mutex_lock(&testdev->lock);
	if (user->sva)
		iommu_sva_unbind_device(user->sva);
	else
		testdev_unshare(user);
	user->sva = NULL;
	if (!--testdev->bound)
		disable_features(testdev);
	mutex_unlock(&testdev->lock);
}
