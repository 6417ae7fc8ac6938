/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What programs ask of /dev/viommu-testdev. An open file is one user of the device: it has at most
 * one PASID, either its process's address space or a domain of its own, and loses it when it is
 * closed.
 *
 * pread and pwrite reach the device's buffer. The register map is docs/testdev.md's.
 */
#ifndef VIOMMU_TESTDEV_H
#define VIOMMU_TESTDEV_H

#include <linux/ioctl.h>
#include <linux/types.h>

/* How far a binding came, where it failed. */
enum viommu_step {
	VIOMMU_STEP_NONE,
	VIOMMU_STEP_FAULTS,	/* iommu_dev_enable_feature(IOMMU_DEV_FEAT_IOPF) */
	VIOMMU_STEP_SHARING,	/* iommu_dev_enable_feature(IOMMU_DEV_FEAT_SVA) */
	VIOMMU_STEP_BIND,	/* iommu_sva_bind_device */
	VIOMMU_STEP_DOMAIN,	/* iommu_paging_domain_alloc */
	VIOMMU_STEP_ATTACH,	/* iommu_attach_device_pasid */
};

struct viommu_bind {
	__u32 pasid;		/* of a process: out; of a domain: in */
	__u32 step;		/* out: enum viommu_step that failed */
	__u32 by_hand;		/* out: iommu_sva_bind_device refuses, and the module did its work */
};

/* Maps the pages of a piece of user memory into the file's domain. */
struct viommu_map {
	__u64 iova;
	__u64 memory;
	__u64 length;		/* whole pages, at most 64 KiB */
};

#define VIOMMU_NO_PASID 0xffffffffu

struct viommu_transfer {
	__u64 address;
	__u32 length;
	__u32 offset;		/* into the buffer */
	__u32 pasid;		/* VIOMMU_NO_PASID: none */
	__u32 control;		/* CONTROL */
	__u32 command;		/* COMMAND */
	__u32 seed;		/* SEED */
	/* out */
	__u32 status;
	__u32 result;
	__u32 bytes_done;
	__u32 checksum;
	__u64 fault_address;
};

struct viommu_register {
	__u32 offset;
	__u32 value;
};

/* Maps and unmaps at random through the kernel's DMA API, and checks what the device reaches. */
struct viommu_dma {
	__u32 steps;
	__u32 seed;
	__u32 lazy;		/* what is unmapped may be reached for a moment */
	/* out */
	__u32 maps;
	__u32 coherent;		/* of these */
	__u32 lists;		/* of these */
	__u32 unmaps;
	__u32 refused;		/* accesses that failed as they had to */
	__u32 stale;		/* accesses that reached what was unmapped; without `lazy` the first is an error */
	__u32 ahead;		/* accesses whose addresses the device had translated ahead: ATS is on */
	__u32 together;		/* in: others do the same, so what is unmapped here may be mapped there */
	__u64 bytes;		/* that were compared */
	__u64 address;		/* where something was wrong, and what: EIO */
	char wrong[56];
};

#define VIOMMU_BIND_PROCESS	_IOWR('V', 1, struct viommu_bind)
#define VIOMMU_UNBIND		_IO('V', 2)
#define VIOMMU_ATTACH_DOMAIN	_IOWR('V', 3, struct viommu_bind)
#define VIOMMU_MAP		_IOW('V', 4, struct viommu_map)
#define VIOMMU_UNMAP		_IOW('V', 5, struct viommu_map)
#define VIOMMU_TRANSFER		_IOWR('V', 6, struct viommu_transfer)
#define VIOMMU_READ_REGISTER	_IOWR('V', 7, struct viommu_register)
#define VIOMMU_WRITE_REGISTER	_IOW('V', 8, struct viommu_register)
/* Page requests on or off in configuration space, for kernels whose IOMMU driver does not do it. */
#define VIOMMU_PAGE_REQUESTS	_IOW('V', 9, __u32)
#define VIOMMU_DMA		_IOWR('V', 10, struct viommu_dma)
/*
 * A PASID from the IOMMU (docs/pv-pasid.md). ENOSPC: none is left; EPERM: not one that this guest
 * has.
 */
#define VIOMMU_ALLOCATE_PASID	_IOR('V', 11, __u32)
#define VIOMMU_FREE_PASID	_IOW('V', 12, __u32)

#endif
