// SPDX-License-Identifier: GPL-2.0-or-later
/* One command of the device, from its registers to its end. */
#include <linux/io-64-nonatomic-lo-hi.h>
#include <linux/sched/signal.h>
#include <linux/wait.h>
#include "internal.h"

/* Longer than any page takes to come; what is not there by then was lost. */
#define TRANSFER_TIMEOUT (20 * HZ)

static void describe(struct testdev *testdev, const struct viommu_transfer *t)
{
	void __iomem *r = testdev->registers;

	writel(lower_32_bits(t->address), r + REG_ADDRESS_LO);
	writel(upper_32_bits(t->address), r + REG_ADDRESS_HI);
	writel(t->length, r + REG_LENGTH);
	writel(t->offset, r + REG_OFFSET);
	writel(t->pasid == VIOMMU_NO_PASID ? 0 : PASID_VALID | t->pasid, r + REG_PASID);
	writel(t->control | CONTROL_INTERRUPT, r + REG_CONTROL);
	writel(t->seed, r + REG_SEED);
}

static bool is_busy(struct testdev *testdev)
{
	return readl(testdev->registers + REG_STATUS) == STATUS_BUSY;
}

int testdev_transfer(struct testdev *testdev, struct viommu_transfer *t)
{
	void __iomem *r = testdev->registers;
	long left;

	if (mutex_lock_interruptible(&testdev->lock))
		return -EINTR;
	describe(testdev, t);
	writel(t->command, r + REG_COMMAND);
	left = wait_event_killable_timeout(testdev->ended, !is_busy(testdev), TRANSFER_TIMEOUT);
	if (left <= 0)
		writel(CMD_CANCEL, r + REG_COMMAND);
	t->status = readl(r + REG_STATUS);
	t->result = readl(r + REG_RESULT);
	t->bytes_done = readl(r + REG_BYTES_DONE);
	t->checksum = readl(r + REG_CHECKSUM);
	t->fault_address = lo_hi_readq(r + REG_FAULT_LO);
	mutex_unlock(&testdev->lock);
	if (left == 0)
		return -ETIMEDOUT;
	return left < 0 ? left : 0;
}
