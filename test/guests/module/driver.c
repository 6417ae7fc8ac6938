// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A driver for viommu-testdev (docs/testdev.md) that gives programs the device: for tests of
 * PASIDs, shared virtual addressing and page requests in real kernels, and as an example of a
 * driver that uses them.
 */
#include <linux/interrupt.h>
#include <linux/io.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include "internal.h"

#define BAR_REGISTERS 0
#define BAR_BUFFER 1

static int testdev_open(struct inode *inode, struct file *file)
{
	struct testdev *testdev = container_of(file->private_data, struct testdev, misc);
	struct testdev_user *user = kzalloc(sizeof(*user), GFP_KERNEL);

	if (!user)
		return -ENOMEM;
	user->testdev = testdev;
	mutex_init(&user->lock);
	INIT_LIST_HEAD(&user->maps);
	file->private_data = user;
	return 0;
}

static int unbind(struct testdev_user *user)
{
	if (user->sva || user->shared)
		testdev_unbind_process(user);
	else if (user->domain)
		testdev_detach_domain(user);
	else
		return -ENODEV;
	return 0;
}

static int testdev_release(struct inode *inode, struct file *file)
{
	struct testdev_user *user = file->private_data;

	unbind(user);
	kfree(user);
	return 0;
}

static long bind(struct testdev_user *user, unsigned int command, void __user *argument)
{
	struct viommu_bind b;
	long ret;

	if (copy_from_user(&b, argument, sizeof(b)))
		return -EFAULT;
	if (user->sva || user->shared || user->domain)
		return -EBUSY;
	ret = command == VIOMMU_BIND_PROCESS ? testdev_bind_process(user, &b) : testdev_attach_domain(user, &b);
	return copy_to_user(argument, &b, sizeof(b)) ? -EFAULT : ret;
}

static long map(struct testdev_user *user, unsigned int command, void __user *argument)
{
	struct viommu_map m;

	if (copy_from_user(&m, argument, sizeof(m)))
		return -EFAULT;
	return command == VIOMMU_MAP ? testdev_map(user, &m) : testdev_unmap(user, &m);
}

static long transfer(struct testdev_user *user, void __user *argument)
{
	struct viommu_transfer t;
	long ret;

	if (copy_from_user(&t, argument, sizeof(t)))
		return -EFAULT;
	ret = testdev_transfer(user->testdev, &t);
	return copy_to_user(argument, &t, sizeof(t)) ? -EFAULT : ret;
}

static long dma_api(struct testdev_user *user, void __user *argument)
{
	struct viommu_dma dma;
	long ret;

	if (copy_from_user(&dma, argument, sizeof(dma)))
		return -EFAULT;
	ret = testdev_dma_api(user->testdev, &dma);
	return copy_to_user(argument, &dma, sizeof(dma)) ? -EFAULT : ret;
}

/* They are the program's until it frees them, or the machine is reset. */
static long paravirtual_pasid(struct testdev_user *user, unsigned int command, void __user *argument)
{
	struct substreams *substreams = &user->testdev->substreams;
	u32 pasid;
	long ret;

	if (command == VIOMMU_FREE_PASID)
		return get_user(pasid, (u32 __user *)argument) ? -EFAULT : substreams_free(substreams, pasid);
	ret = substreams_allocate(substreams, &pasid);
	if (!ret && put_user(pasid, (u32 __user *)argument)) {
		substreams_free(substreams, pasid);
		ret = -EFAULT;
	}
	return ret;
}

static long access_register(struct testdev_user *user, unsigned int command, void __user *argument)
{
	void __iomem *registers = user->testdev->registers;
	struct viommu_register r;

	if (copy_from_user(&r, argument, sizeof(r)))
		return -EFAULT;
	if (r.offset >= REG_WINDOW || r.offset % 4)
		return -EINVAL;
	if (command == VIOMMU_WRITE_REGISTER) {
		writel(r.value, registers + r.offset);
		return 0;
	}
	r.value = readl(registers + r.offset);
	return copy_to_user(argument, &r, sizeof(r)) ? -EFAULT : 0;
}

static long set_page_requests(struct testdev *testdev, void __user *argument)
{
	int pri = pci_find_ext_capability(testdev->pdev, PCI_EXT_CAP_ID_PRI);
	u32 most, on;

	if (get_user(on, (u32 __user *)argument))
		return -EFAULT;
	if (!pri)
		return -ENODEV;
	pci_read_config_dword(testdev->pdev, pri + PCI_PRI_MAX_REQ, &most);
	pci_write_config_dword(testdev->pdev, pri + PCI_PRI_ALLOC_REQ, most);
	pci_write_config_word(testdev->pdev, pri + PCI_PRI_CTRL, on ? PCI_PRI_CTRL_ENABLE : PCI_PRI_CTRL_RESET);
	return 0;
}

static long testdev_ioctl(struct file *file, unsigned int command, unsigned long value)
{
	struct testdev_user *user = file->private_data;
	void __user *argument = (void __user *)value;
	long ret;

	/* Not under the user's lock: they wait, and end by themselves. */
	if (command == VIOMMU_TRANSFER)
		return transfer(user, argument);
	if (command == VIOMMU_DMA)
		return dma_api(user, argument);
	if (command == VIOMMU_ALLOCATE_PASID || command == VIOMMU_FREE_PASID)
		return paravirtual_pasid(user, command, argument);
	if (command == VIOMMU_READ_REGISTER || command == VIOMMU_WRITE_REGISTER)
		return access_register(user, command, argument);

	mutex_lock(&user->lock);
	switch (command) {
	case VIOMMU_BIND_PROCESS:
	case VIOMMU_ATTACH_DOMAIN:
		ret = bind(user, command, argument);
		break;
	case VIOMMU_UNBIND:
		ret = unbind(user);
		break;
	case VIOMMU_PAGE_REQUESTS:
		ret = set_page_requests(user->testdev, argument);
		break;
	case VIOMMU_MAP:
	case VIOMMU_UNMAP:
		ret = map(user, command, argument);
		break;
	default:
		ret = -ENOTTY;
	}
	mutex_unlock(&user->lock);
	return ret;
}

/* The part of a file access that the buffer has, through a page of ordinary memory. */
static ssize_t access_buffer(struct testdev *testdev, char __user *to, const char __user *from, size_t size,
			     loff_t *position)
{
	loff_t at = *position;
	size_t part;
	void *page;

	if (at < 0 || at >= testdev->buffer_size)
		return 0;
	part = min3(size, (size_t)PAGE_SIZE, (size_t)(testdev->buffer_size - at));
	page = kmalloc(PAGE_SIZE, GFP_KERNEL);
	if (!page)
		return -ENOMEM;
	if (from && copy_from_user(page, from, part)) {
		kfree(page);
		return -EFAULT;
	}
	if (from)
		memcpy_toio(testdev->buffer + at, page, part);
	else
		memcpy_fromio(page, testdev->buffer + at, part);
	if (to && copy_to_user(to, page, part)) {
		kfree(page);
		return -EFAULT;
	}
	kfree(page);
	*position = at + part;
	return part;
}

static ssize_t testdev_read(struct file *file, char __user *to, size_t size, loff_t *position)
{
	return access_buffer(((struct testdev_user *)file->private_data)->testdev, to, NULL, size, position);
}

static ssize_t testdev_write(struct file *file, const char __user *from, size_t size, loff_t *position)
{
	return access_buffer(((struct testdev_user *)file->private_data)->testdev, NULL, from, size, position);
}

static const struct file_operations testdev_fops = {
	.owner = THIS_MODULE,
	.open = testdev_open,
	.release = testdev_release,
	.unlocked_ioctl = testdev_ioctl,
	.read = testdev_read,
	.write = testdev_write,
	.llseek = default_llseek,
};

static irqreturn_t testdev_interrupt(int irq, void *opaque)
{
	struct testdev *testdev = opaque;

	writel(1, testdev->registers + REG_INTERRUPT);
	wake_up_all(&testdev->ended);
	return IRQ_HANDLED;
}

static int start_interrupt(struct testdev *testdev)
{
	struct pci_dev *pdev = testdev->pdev;
	int ret = pci_alloc_irq_vectors(pdev, 1, 1, PCI_IRQ_MSIX);

	if (ret < 0)
		return ret;
	ret = request_irq(pci_irq_vector(pdev, 0), testdev_interrupt, 0, "viommu-testdev", testdev);
	if (ret)
		pci_free_irq_vectors(pdev);
	return ret;
}

static void stop_interrupt(struct testdev *testdev)
{
	free_irq(pci_irq_vector(testdev->pdev, 0), testdev);
	pci_free_irq_vectors(testdev->pdev);
}

static int testdev_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct testdev *testdev = devm_kzalloc(&pdev->dev, sizeof(*testdev), GFP_KERNEL);
	int ret;

	if (!testdev)
		return -ENOMEM;
	testdev->pdev = pdev;
	mutex_init(&testdev->lock);
	mutex_init(&testdev->buffer_lock);
	init_waitqueue_head(&testdev->ended);
	ret = pcim_enable_device(pdev);
	if (ret)
		return ret;
	testdev->registers = pcim_iomap(pdev, BAR_REGISTERS, REG_WINDOW);
	testdev->buffer = pcim_iomap(pdev, BAR_BUFFER, 0);
	if (!testdev->registers || !testdev->buffer)
		return -ENOMEM;
	if (readl(testdev->registers + REG_ID) != TESTDEV_ID)
		return -ENODEV;
	testdev->buffer_size = readl(testdev->registers + REG_BUFFER_SIZE);
	ret = dma_set_mask_and_coherent(&pdev->dev, DMA_BIT_MASK(64));
	if (ret)
		return ret;
	pci_set_master(pdev);
	ret = start_interrupt(testdev);
	if (ret)
		return ret;
	ret = substreams_find(&testdev->substreams, &pdev->dev);
	if (ret && ret != -ENODEV)
		pci_warn(pdev, "no SubstreamIDs: %d\n", ret);
	testdev->misc = (struct miscdevice) {
		.minor = MISC_DYNAMIC_MINOR,
		.name = "viommu-testdev",
		.fops = &testdev_fops,
		.parent = &pdev->dev,
		.mode = 0600,
	};
	ret = misc_register(&testdev->misc);
	if (ret) {
		stop_interrupt(testdev);
		return ret;
	}
	pci_set_drvdata(pdev, testdev);
	pci_info(pdev, "viommu-testdev, features 0x%x\n", readl(testdev->registers + REG_FEATURES));
	return 0;
}

static void testdev_remove(struct pci_dev *pdev)
{
	struct testdev *testdev = pci_get_drvdata(pdev);

	misc_deregister(&testdev->misc);
	stop_interrupt(testdev);
}

static const struct pci_device_id testdev_ids[] = {
	{ PCI_DEVICE(0x1234, 0x10d0) },
	{ }
};
MODULE_DEVICE_TABLE(pci, testdev_ids);

/*
 * Open files keep the module, and an unbound device would take theirs away: it is not to be unbound
 * by hand.
 */
static struct pci_driver testdev_driver = {
	.name = "viommu-testdev",
	.id_table = testdev_ids,
	.probe = testdev_probe,
	.remove = testdev_remove,
	.driver = { .suppress_bind_attrs = true },
};
module_pci_driver(testdev_driver);

MODULE_DESCRIPTION("viommu's DMA test device");
MODULE_LICENSE("GPL");
