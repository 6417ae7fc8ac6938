/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the checks of the host's objects share: releases of Linux, a host's begin and end. */
#ifndef VIOMMU_IOMMUFD_CHECK_H
#define VIOMMU_IOMMUFD_CHECK_H

#include "compat.h"
#include "iommufd-attach.h"
#include "iommufd-devices.h"
#include "iommufd-queues.h"
#include "iommufd-spaces.h"
#include "iommufd-vdevices.h"
#include "iommufd-kernel.h"

#define CHECK(condition, ...) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, __FILE__ ": " __VA_ARGS__); \
            fprintf(stderr, " (line %d: %s)\n", __LINE__, #condition); \
            exit(1); \
        } \
    } while (0)

/* By the Linux that has it. */
static const FakeRelease releases[] = {
    { "6.2" },
    { "6.6", .hw_info = true },
    { "6.8", .hw_info = true, .nesting = true, .invalidate = true },
    { "6.11", .hw_info = true, .nesting = true, .invalidate = true, .faults = true },
    { "6.13", .hw_info = true, .nesting = true, .invalidate = true, .faults = true,
      .viommu = true },
    { "6.15", .hw_info = true, .nesting = true, .invalidate = true, .faults = true,
      .viommu = true, .events = true, .pasids = true },
};
#define NEWEST (&releases[ARRAY_SIZE(releases) - 1])
static const uint32_t hw_types[] = { IOMMU_HW_INFO_TYPE_INTEL_VTD,
                                     IOMMU_HW_INFO_TYPE_ARM_SMMUV3 };

static unsigned requests_seen, events_seen, losses_seen;
static uint8_t tables[24];

static void see_request(void *opaque, const HostDevice *device,
                        const struct iommu_hwpt_pgfault *fault)
{
    requests_seen++;
}

static void see_event(void *opaque, uint32_t space, const void *record, uint32_t size,
                      bool lost)
{
    events_seen += size > 0;
    losses_seen += lost;
}

static const HostSink sink = { .page_request = see_request, .event = see_event };

static void begin(IommufdHost *host, const FakeRelease *release, uint32_t hw_type)
{
    fake_reset(release, hw_type);
    requests_seen = events_seen = losses_seen = 0;
    viommu_iommufd_host_init(host, &fake_calls, FAKE_IOMMUFD, &sink);
}

static void end(IommufdHost *host, const char *what)
{
    fake.fail_at = 0;
    viommu_iommufd_host_close(host);
    CHECK(fake_objects() == 0, "%s: %u objects are left", what, fake_objects());
    CHECK(fake_attachments() == 0, "%s: %u attachments are left", what,
          fake_attachments());
    CHECK(fake_open_queues() == 0, "%s: %u queues are open", what, fake_open_queues());
}

static void push(const void *data, size_t size)
{
    memcpy(fake.pending + fake.pending_size, data, size);
    fake.pending_size += size;
}

static void push_fault(uint32_t flags, uint32_t pasid, uint32_t group, uint32_t cookie)
{
    const struct iommu_hwpt_pgfault fault = {
        .flags = flags,
        .dev_id = FAKE_DEV_ID,
        .pasid = pasid,
        .grpid = group,
        .cookie = cookie,
    };

    push(&fault, sizeof(fault));
}

#endif
