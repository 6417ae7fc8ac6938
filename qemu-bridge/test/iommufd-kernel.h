/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A stand-in for the kernel at the boundary of system calls: iommufd's objects with their
 * lifetime rules, and VFIO devices that are attached to them. It can be an older kernel
 * than today's, and any call can be made to fail.
 */
#ifndef VIOMMU_TEST_IOMMUFD_KERNEL_H
#define VIOMMU_TEST_IOMMUFD_KERNEL_H

#include "iommufd.h"

/* Descriptors. */
#define FAKE_IOMMUFD 100
#define FAKE_DEVICE 200 /* + index */
#define FAKE_DEVICES 2
#define FAKE_QUEUE 1000 /* + object */
/* iommufd's number of a device. */
#define FAKE_DEV_ID 40 /* + index */
#define FAKE_PASIDS 8

typedef enum FakeType {
    FAKE_GONE,
    FAKE_IOAS,
    FAKE_PARENT,
    FAKE_HWPT,
    FAKE_NESTED,
    FAKE_VIOMMU,
    FAKE_VDEVICE,
    FAKE_FAULTS,
    FAKE_EVENTS,
} FakeType;

/* A kernel's abilities, by the release that brought them. */
typedef struct FakeRelease {
    const char *name;
    bool hw_info, nesting, invalidate, faults, viommu, events, pasids;
} FakeRelease;

typedef struct FakeKernel {
    const FakeRelease *release;
    uint32_t hw_type;          /* of the devices' IOMMU */
    uint32_t max_pasid_log2;
    bool page_requests;        /* the devices ask for pages */
    /* The call with this number, from 1 on, fails with this error; also which it was. */
    unsigned fail_at;
    int error;
    unsigned long failed_request;
    unsigned calls;
    unsigned interrupt_at;     /* the same with EINTR, once */
    unsigned bad_entry;        /* of an invalidation array; those before it succeed */
    int cut;                   /* bytes that the next read lacks */
    unsigned mapped;           /* IOAS mappings of 4 KiB pages */
    unsigned responses, last_code, last_cookie;
    uint8_t pending[1024];     /* what the next read of a queue gives */
    size_t pending_size;
} FakeKernel;

extern FakeKernel fake;
extern const IommufdCalls fake_calls;

void fake_reset(const FakeRelease *release, uint32_t hw_type);
/** Objects that there are, and attachments. */
unsigned fake_objects(void);
unsigned fake_attachments(void);
/** Type of what a device or PASID is attached to. */
FakeType fake_attached(unsigned device, int32_t pasid);
/** Descriptors of queues that are open. */
unsigned fake_open_queues(void);

#endif
