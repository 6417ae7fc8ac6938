/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The host's objects beside a stand-in for the kernel: invalidation arrays, queues and
 * lists that are cut short. Prints what it did; exits 1 at the first difference. Needs
 * neither QEMU nor /dev/iommu.
 */
#include "iommufd-check.h"

static void test_arrays(void)
{
    uint8_t commands[16][16] = { { 0 } };
    uint32_t count = 16;
    HostDevice *device;
    IommufdHost host;

    begin(&host, NEWEST, IOMMU_HW_INFO_TYPE_ARM_SMMUV3);
    viommu_iommufd_host_add_device(&host, 0, FAKE_DEV_ID, FAKE_DEVICE, &device);
    viommu_iommufd_host_create_space(&host, 1, device, true);
    CHECK(viommu_iommufd_host_invalidate_viommu(&host, 1, 1, commands, 16, &count) == 0 &&
              count == 16,
          "all");
    fake.bad_entry = 6;
    CHECK(viommu_iommufd_host_invalidate_viommu(&host, 1, 1, commands, 16, &count) ==
                  -EIO &&
              count == 5,
          "%u of 16", count);
    fake.bad_entry = 1;
    CHECK(viommu_iommufd_host_invalidate_viommu(&host, 1, 1, commands, 16, &count) ==
                  -EIO &&
              count == 0,
          "%u of 5", count);
    fake.bad_entry = 0;
    count = 16;
    CHECK(viommu_iommufd_host_invalidate_viommu(&host, 1, 7, commands, 16, &count) ==
                  -EINVAL &&
              count == 0,
          "wrong type");
    count = 16;
    fake.fail_at = fake.calls + 1;
    fake.error = ENOTTY;
    CHECK(viommu_iommufd_host_invalidate_viommu(&host, 1, 1, commands, 16, &count) ==
                  -EOPNOTSUPP &&
              count == 0,
          "a call that the kernel does not know carries out nothing");
    end(&host, "arrays");
    printf("invalidation arrays: what was carried out is known, "
           "also of those that stop in the middle\n");
}

static void test_queues(void)
{
    struct iommufd_vevent_header header = { .sequence = 1 };
    struct iommu_vevent_arm_smmuv3 event = { { 0x10 } };
    const struct iommu_hwpt_pgfault stranger = {
        .flags = IOMMU_PGFAULT_FLAGS_LAST_PAGE, .dev_id = 99, .cookie = 1238,
    };
    HostDevice *device;
    IommufdHost host;
    int fds[4];

    begin(&host, NEWEST, IOMMU_HW_INFO_TYPE_ARM_SMMUV3);
    viommu_iommufd_host_add_device(&host, 0, FAKE_DEV_ID, FAKE_DEVICE, &device);
    viommu_iommufd_host_create_space(&host, 1, device, true);
    viommu_iommufd_host_attach_nested(&host, device, IOMMUFD_NO_PASID, 1, 2, tables, 16);
    CHECK(viommu_iommufd_host_descriptors(&host, fds, 4) == 2, "two queues");
    push_fault(0, 0, 4, 0);
    push_fault(IOMMU_PGFAULT_FLAGS_LAST_PAGE, 0, 4, 1234);
    CHECK(viommu_iommufd_host_poll(&host) == 0 && requests_seen == 2, "%u page requests",
          requests_seen);
    CHECK(viommu_iommufd_host_respond(&host, device, IOMMUFD_NO_PASID, 5, 0) == -ENOENT,
          "another group");
    CHECK(viommu_iommufd_host_respond(&host, device, IOMMUFD_NO_PASID, 4, 15) == 0,
          "response failure");
    CHECK(fake.last_cookie == 1234 && fake.last_code == IOMMUFD_PAGE_RESP_INVALID,
          "code %u", fake.last_code);
    CHECK(viommu_iommufd_host_respond(&host, device, IOMMUFD_NO_PASID, 4, 0) == -ENOENT,
          "answered already");
    /* Tables that are gone take their groups with them. */
    push_fault(IOMMU_PGFAULT_FLAGS_LAST_PAGE, 0, 6, 1235);
    viommu_iommufd_host_poll(&host);
    viommu_iommufd_host_attach(&host, device, IOMMUFD_NO_PASID, 1);
    CHECK(viommu_iommufd_host_respond(&host, device, IOMMUFD_NO_PASID, 6, 0) == -ENOENT,
          "gone with its tables");
    /* Also those with a PASID, when it is the tables of requests without that have it. */
    viommu_iommufd_host_attach_nested(&host, device, IOMMUFD_NO_PASID, 1, 2, tables, 16);
    push_fault(IOMMU_PGFAULT_FLAGS_PASID_VALID | IOMMU_PGFAULT_FLAGS_LAST_PAGE, 3, 8,
               1237);
    viommu_iommufd_host_poll(&host);
    viommu_iommufd_host_attach(&host, device, IOMMUFD_NO_PASID, 1);
    CHECK(viommu_iommufd_host_respond(&host, device, 3, 8, 0) == -ENOENT,
          "gone with the tables that had its PASID");
    /* Of a device that has gone in between: answered, and not told. */
    requests_seen = 0;
    push(&stranger, sizeof(stranger));
    CHECK(viommu_iommufd_host_poll(&host) == 0 && requests_seen == 0 &&
              fake.last_cookie == 1238,
          "a stranger's request");
    push_fault(IOMMU_PGFAULT_FLAGS_LAST_PAGE, 0, 7, 1236);
    fake.cut = 8;
    CHECK(viommu_iommufd_host_poll(&host) == -EIO, "a record that was cut");
    end(&host, "faults");

    begin(&host, NEWEST, IOMMU_HW_INFO_TYPE_ARM_SMMUV3);
    viommu_iommufd_host_add_device(&host, 0, FAKE_DEV_ID, FAKE_DEVICE, &device);
    device->abilities &= ~HOST_FAULT_QUEUE;
    viommu_iommufd_host_create_space(&host, 1, device, true);
    push(&header, sizeof(header));
    push(&event, sizeof(event));
    header.flags = IOMMU_VEVENTQ_FLAG_LOST_EVENTS;
    push(&header, sizeof(header));
    CHECK(viommu_iommufd_host_poll(&host) == 0 && events_seen == 1 && losses_seen == 1,
          "%u events, %u losses", events_seen, losses_seen);
    header.flags = 0;
    push(&header, sizeof(header));
    push(&event, sizeof(event));
    fake.cut = sizeof(header) + sizeof(event) - 4;
    CHECK(viommu_iommufd_host_poll(&host) == -EIO, "a header that was cut");
    end(&host, "events");
    printf("queues: groups, answers, events, losses; what is cut short is an error\n");
}

static void test_ranges(void)
{
    const Iommufd io = { .calls = &fake_calls, .fd = FAKE_IOMMUFD };
    struct iommu_iova_range ranges[4];
    uint32_t ioas, count;

    fake_reset(NEWEST, IOMMU_HW_INFO_TYPE_INTEL_VTD);
    CHECK(viommu_iommufd_ioas_alloc(&io, &ioas) == 0, "IOAS");
    CHECK(viommu_iommufd_ioas_ranges(&io, ioas, ranges, 4, &count) == 0 && count == 2,
          "%u ranges", count);
    CHECK(viommu_iommufd_ioas_ranges(&io, ioas, ranges, 1, &count) == 0 && count == 2,
          "more than fit");
    CHECK(viommu_iommufd_destroy(&io, ioas) == 0 &&
              viommu_iommufd_destroy(&io, ioas) == -ENOENT,
          "destroy");
    printf("ranges: as many as there are\n");
}

int main(void)
{
    test_arrays();
    test_queues();
    test_ranges();
    printf("iommufd-queues-test: all well\n");
    return 0;
}
