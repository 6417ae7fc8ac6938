/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef VIOMMU_TESTDEV_INTERNAL_H
#define VIOMMU_TESTDEV_INTERNAL_H

#include <linux/iommu.h>
#include <linux/miscdevice.h>
#include <linux/mutex.h>
#include <linux/pci.h>
#include "viommu-testdev.h"

/* Registers and numbers of docs/testdev.md. */
enum {
	REG_ID = 0x00,
	REG_FEATURES = 0x08,
	REG_BUFFER_SIZE = 0x0c,
	REG_ADDRESS_LO = 0x10,
	REG_ADDRESS_HI = 0x14,
	REG_LENGTH = 0x18,
	REG_OFFSET = 0x1c,
	REG_PASID = 0x20,
	REG_CONTROL = 0x24,
	REG_COMMAND = 0x28,
	REG_STATUS = 0x2c,
	REG_RESULT = 0x30,
	REG_BYTES_DONE = 0x34,
	REG_FAULT_LO = 0x38,
	REG_FAULT_HI = 0x3c,
	REG_SEED = 0x40,
	REG_CHECKSUM = 0x44,
	REG_INTERRUPT = 0x4c,
	REG_ENABLED = 0x58,
	REG_WINDOW = 0x1000,
};

#define TESTDEV_ID	0x544f4956
#define PASID_VALID	BIT(31)
#define CONTROL_INTERRUPT BIT(0)
#define CONTROL_ATS	BIT(1)
#define ENABLED_ATS	BIT(1)
#define CMD_READ	1
#define CMD_WRITE	2
#define CMD_CANCEL	7
#define STATUS_BUSY	1
#define STATUS_DONE	2

#define MAX_MAP_PAGES	16

/* Where SubstreamIDs come from; no base: nowhere. */
struct substreams {
	void __iomem *base;
	struct mutex lock;		/* one command at a time */
};

struct testdev {
	struct pci_dev *pdev;
	void __iomem *registers;
	void __iomem *buffer;
	u32 buffer_size;
	struct miscdevice misc;
	struct mutex lock;		/* one transfer at a time */
	struct mutex buffer_lock;	/* outside of it: what is in the buffer belongs to one at a time */
	wait_queue_head_t ended;
	u32 features_enabled;		/* bit per enum iommu_dev_features that is in use */
	unsigned int bound;		/* processes; under lock */
	struct substreams substreams;
};

/* One mapping of user memory in a domain. */
struct testdev_map {
	struct list_head next;
	u64 iova;
	unsigned int count;
	struct page *pages[MAX_MAP_PAGES];
};

struct testdev_user {
	struct testdev *testdev;
	struct mutex lock;		/* the fields below */
	struct iommu_sva *sva;		/* a process, by iommu_sva_bind_device */
	struct iommu_domain *shared;	/* or by hand */
	struct iommu_attach_handle handle;
	struct iommu_domain *domain;	/* a domain of the file's own */
	u32 pasid;
	struct list_head maps;
};

/* substreams.c: paravirtual PASIDs of an SMMUv3 */
int substreams_find(struct substreams *s, struct device *dev);
int substreams_allocate(struct substreams *s, u32 *ssid);
int substreams_free(struct substreams *s, u32 ssid);

/* process.c: a process's address space on a PASID */
int testdev_bind_process(struct testdev_user *user, struct viommu_bind *bind);
void testdev_unbind_process(struct testdev_user *user);

/* sharing.c: the same by hand, where iommu_sva_bind_device refuses */
int testdev_share(struct testdev_user *user, struct mm_struct *mm);
void testdev_unshare(struct testdev_user *user);

/* domain.c: a domain of the file's own on a PASID */
int testdev_attach_domain(struct testdev_user *user, struct viommu_bind *bind);
void testdev_detach_domain(struct testdev_user *user);
int testdev_map(struct testdev_user *user, const struct viommu_map *map);
int testdev_unmap(struct testdev_user *user, const struct viommu_map *map);

/* dma-api.c: what an ordinary driver does, for a while */
long testdev_dma_api(struct testdev *testdev, struct viommu_dma *counts);

/* transfer.c */
int testdev_transfer(struct testdev *testdev, struct viommu_transfer *transfer);

#endif
