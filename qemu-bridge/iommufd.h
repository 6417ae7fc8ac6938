/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The calls of iommufd and of VFIO's character devices that assignment needs, one
 * function each. Built against the uAPI headers of Linux 6.15 or newer. A kernel that
 * lacks a call gives -EOPNOTSUPP here, whatever error it returns itself.
 *
 * Functions return 0 or a negative errno. Interrupted calls are repeated.
 */
#ifndef VIOMMU_IOMMUFD_H
#define VIOMMU_IOMMUFD_H

#include <linux/iommufd.h>
#include <linux/vfio.h>

#if !defined(IOMMU_VEVENTQ_ALLOC) || !defined(VFIO_DEVICE_ATTACH_PASID)
#error "npm run setup: linux/iommufd.h and vfio.h of Linux 6.15 or newer are needed"
#endif

/* The system calls, so that a test can stand in for the kernel. */
typedef struct IommufdCalls {
    int (*ioctl)(int fd, unsigned long request, void *argument);
    ssize_t (*read)(int fd, void *data, size_t size);
    ssize_t (*write)(int fd, const void *data, size_t size);
    int (*close)(int fd);
} IommufdCalls;

extern const IommufdCalls viommu_iommufd_kernel;

/* An open /dev/iommu, which belongs to the caller. */
typedef struct Iommufd {
    const IommufdCalls *calls;
    int fd;
} Iommufd;

#define IOMMUFD_NO_PASID (-1)

/*
 * Bytes that are kept of what an IOMMU says of itself. The kernel's structures have 24
 * and 40 so far.
 */
#define IOMMUFD_HW_INFO_BYTES 64

typedef struct IommufdHwInfo {
    uint32_t type;           /* enum iommu_hw_info_type; 0: the driver says nothing */
    uint32_t size;           /* of data */
    uint32_t max_pasid_log2; /* 0: no PASIDs */
    uint64_t capabilities;   /* enum iommufd_hw_capabilities */
    uint8_t data[IOMMUFD_HW_INFO_BYTES];
} IommufdHwInfo;

/* What HWPT_ALLOC is asked for; `data` is opaque to the bridge. */
typedef struct IommufdHwpt {
    uint32_t dev_id;
    uint32_t pt_id;     /* IOAS, nest parent or vIOMMU */
    uint32_t flags;     /* enum iommufd_hwpt_alloc_flags, without FAULT_ID_VALID */
    uint32_t data_type;
    uint32_t size;
    const void *data;
    uint32_t fault_id;  /* 0: none */
} IommufdHwpt;

/* An object with a descriptor to read from: a fault queue, a vEVENTQ. */
typedef struct IommufdQueue {
    uint32_t id; /* 0: there is none */
    int fd;
} IommufdQueue;

int viommu_iommufd_get_hw_info(const Iommufd *io, uint32_t dev_id, IommufdHwInfo *info);
int viommu_iommufd_destroy(const Iommufd *io, uint32_t id);

int viommu_iommufd_ioas_alloc(const Iommufd *io, uint32_t *id);
/** Fills at most `most` [first, last] pairs; `count` is how many there are. */
int viommu_iommufd_ioas_ranges(const Iommufd *io, uint32_t ioas,
                               struct iommu_iova_range *ranges, uint32_t most,
                               uint32_t *count);
/** Pins and maps memory of this process. `rights`: bit 0 read, bit 1 write. */
int viommu_iommufd_ioas_map(const Iommufd *io, uint32_t ioas, uint64_t iova,
                            const void *memory, uint64_t size, uint32_t rights);
/** What is not mapped is no error; `unmapped` counts bytes. */
int viommu_iommufd_ioas_unmap(const Iommufd *io, uint32_t ioas, uint64_t iova,
                              uint64_t size, uint64_t *unmapped);

int viommu_iommufd_hwpt_alloc(const Iommufd *io, const IommufdHwpt *what, uint32_t *id);
/**
 * Entries of `size` bytes each. `count` becomes how many were carried out, also after an
 * error.
 */
int viommu_iommufd_hwpt_invalidate(const Iommufd *io, uint32_t id, uint32_t type,
                                   uint32_t size, const void *entries, uint32_t *count);
int viommu_iommufd_viommu_alloc(const Iommufd *io, uint32_t type, uint32_t dev_id,
                                uint32_t hwpt, uint32_t *id);
int viommu_iommufd_vdevice_alloc(const Iommufd *io, uint32_t viommu, uint32_t dev_id,
                                 uint64_t virtual_id, uint32_t *id);
int viommu_iommufd_fault_queue_alloc(const Iommufd *io, IommufdQueue *queue);
int viommu_iommufd_veventq_alloc(const Iommufd *io, uint32_t viommu, uint32_t type,
                                 uint32_t depth, IommufdQueue *queue);
/** Closes the descriptor and destroys the object, if there is one. */
int viommu_iommufd_queue_free(const Iommufd *io, IommufdQueue *queue);

/**
 * Reads whole records. Returns their number, 0 when none waits; -EIO when the kernel cuts
 * one.
 */
int viommu_iommufd_read_faults(const Iommufd *io, const IommufdQueue *queue,
                               struct iommu_hwpt_pgfault *faults, uint32_t most);
int viommu_iommufd_respond(const Iommufd *io, const IommufdQueue *queue, uint32_t cookie,
                           uint32_t code);
/**
 * Reads one event of at most `size` bytes. Returns the bytes of its data. 0: none waits,
 * or the event only says that others were lost, as `lost` then does.
 */
int viommu_iommufd_read_event(const Iommufd *io, const IommufdQueue *queue, void *data,
                              uint32_t size, bool *lost);

/**
 * Attaches a device, or one of its PASIDs, to an IOAS or HWPT, and replaces what was
 * there. `device_fd` is VFIO's.
 */
int viommu_iommufd_attach(const Iommufd *io, int device_fd, int32_t pasid,
                          uint32_t pt_id);
int viommu_iommufd_detach(const Iommufd *io, int device_fd, int32_t pasid);
/** Whether this kernel attaches PASIDs (Linux 6.15). Changes nothing. */
bool viommu_iommufd_attaches_pasids(const Iommufd *io, int device_fd);

#endif
