/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The host's objects beside a stand-in for the kernel: lifetimes, every release of Linux
 * that lacks something, every call failing with every error. Prints what it did; exits 1
 * at the first difference. Needs neither QEMU nor /dev/iommu.
 */
#include "iommufd-check.h"

/* A guest's whole life. Returns the number of operations that were refused. */
static unsigned live(IommufdHost *host)
{
    uint8_t commands[4][16] = { { 0 } };
    uint32_t count = ARRAY_SIZE(commands);
    HostDevice *device[FAKE_DEVICES] = { NULL };
    unsigned i, refused = 0;

    for (i = 0; i < FAKE_DEVICES; i++) {
        refused += viommu_iommufd_host_add_device(host, i, FAKE_DEV_ID + i,
                                                  FAKE_DEVICE + i, &device[i]) != 0;
    }
    for (i = 0; i < FAKE_DEVICES; i++) {
        if (device[i]) {
            refused += viommu_iommufd_host_identify(host, device[i], 0x100 + i) != 0;
        }
    }
    if (!device[0]) {
        return refused;
    }
    refused += viommu_iommufd_host_create_space(host, 1, device[0], false) != 0;
    refused += viommu_iommufd_host_create_space(host, 2, device[0], true) != 0;
    refused += viommu_iommufd_host_map(host, 2, 0, tables, 4096, 3) != 0;
    refused += viommu_iommufd_host_attach(host, device[0], IOMMUFD_NO_PASID, 1) != 0;
    refused += viommu_iommufd_host_attach(host, device[0], 5, 1) != 0;
    refused += viommu_iommufd_host_attach_nested(host, device[0], IOMMUFD_NO_PASID, 2, 1,
                                                 tables, sizeof(tables)) != 0;
    refused += viommu_iommufd_host_attach_nested(host, device[0], 3, 2, 1, tables,
                                                 sizeof(tables)) != 0;
    refused += viommu_iommufd_host_attach_nested(host, device[0], 3, 2, 1, tables,
                                                 sizeof(tables)) != 0;
    refused +=
        viommu_iommufd_host_invalidate_viommu(host, 2,
                                              IOMMU_VIOMMU_INVALIDATE_DATA_ARM_SMMUV3,
                                              commands, 16, &count) != 0;
    count = 2;
    refused += viommu_iommufd_host_invalidate_tables(host, device[0], 3,
                                                     IOMMU_HWPT_INVALIDATE_DATA_VTD_S1,
                                                     commands, 24, &count) != 0;
    push_fault(IOMMU_PGFAULT_FLAGS_PASID_VALID | IOMMU_PGFAULT_FLAGS_LAST_PAGE, 3, 9, 77);
    refused += viommu_iommufd_host_poll(host) != 0;
    refused += viommu_iommufd_host_respond(host, device[0], 3, 9, 0) != 0;
    fake.pending_size = 0;
    refused += viommu_iommufd_host_identify(host, device[0], 0x200) != 0;
    refused += viommu_iommufd_host_detach(host, device[0], 3) != 0;
    refused += viommu_iommufd_host_detach(host, device[0], 5) != 0;
    refused += viommu_iommufd_host_unmap(host, 2, 0, 4096) != 0;
    refused += viommu_iommufd_host_destroy_space(host, 1) != 0;
    return refused;
}

static const int errors[] = {
    EINVAL, ENOTTY, EOPNOTSUPP, EBUSY, EFAULT, ENOSPC, ENOMEM, ENOENT, EIO
};

/* What ends an object's or attachment's life: when the kernel refuses that, it stays. */
static bool takes_away(unsigned long request)
{
    return request == IOMMU_DESTROY || request == VFIO_DEVICE_DETACH_IOMMUFD_PT;
}

static void test_every_failure(uint32_t hw_type)
{
    IommufdHost host;
    unsigned at, calls, error, lives = 0, kept = 0;

    begin(&host, NEWEST, hw_type);
    live(&host);
    calls = fake.calls;
    end(&host, "a life without failures");
    for (at = 1; at <= calls; at++) {
        for (error = 0; error < ARRAY_SIZE(errors); error++) {
            begin(&host, NEWEST, hw_type);
            fake.fail_at = at;
            fake.error = errors[error];
            live(&host);
            fake.fail_at = 0;
            viommu_iommufd_host_close(&host);
            lives++;
            if (takes_away(fake.failed_request)) {
                kept++;
                continue;
            }
            CHECK(
                fake_objects() == 0 && fake_attachments() == 0 && fake_open_queues() == 0,
                "call %u (request 0x%lx) failing with %s leaves %u objects, "
                  "%u attachments",
                at, fake.failed_request, strerror(errors[error]), fake_objects(),
                fake_attachments());
        }
    }
    printf("type %u: %u lives, one for each of %u calls and %zu errors; "
           "in %u the kernel kept something itself\n",
           hw_type, lives, calls, ARRAY_SIZE(errors), kept);
}

static void test_interruptions(void)
{
    IommufdHost host;
    unsigned at, calls, refused;

    begin(&host, NEWEST, IOMMU_HW_INFO_TYPE_ARM_SMMUV3);
    refused = live(&host);
    calls = fake.calls;
    end(&host, "a life");
    for (at = 1; at <= calls; at++) {
        begin(&host, NEWEST, IOMMU_HW_INFO_TYPE_ARM_SMMUV3);
        fake.interrupt_at = at;
        CHECK(live(&host) == refused, "a signal in call %u changes what is refused", at);
        end(&host, "an interrupted life");
    }
    printf("interruptions: each of %u calls is repeated\n", calls);
}

/*
 * What a release of Linux lacks is a missing ability, never an error that means something
 * else.
 */
static void test_releases(void)
{
    static const uint32_t expected[][ARRAY_SIZE(hw_types)] = {
        { 0, 0 },
        { 0, 0 },
        { HOST_NEST_PARENT, HOST_NEST_PARENT },
        { HOST_NEST_PARENT | HOST_FAULT_QUEUE, HOST_NEST_PARENT | HOST_FAULT_QUEUE },
        { HOST_NEST_PARENT | HOST_FAULT_QUEUE,
          HOST_NEST_PARENT | HOST_FAULT_QUEUE | HOST_VIOMMU },
        { HOST_NEST_PARENT | HOST_FAULT_QUEUE | HOST_PASIDS,
          HOST_NEST_PARENT | HOST_FAULT_QUEUE | HOST_VIOMMU | HOST_VEVENTQ |
              HOST_PASIDS },
    };
    HostDevice *device;
    IommufdHost host;
    unsigned i, type;

    for (i = 0; i < ARRAY_SIZE(releases); i++) {
        for (type = 0; type < ARRAY_SIZE(hw_types); type++) {
            const char *name = releases[i].name;

            begin(&host, &releases[i], hw_types[type]);
            CHECK(viommu_iommufd_host_add_device(&host, 0, FAKE_DEV_ID, FAKE_DEVICE,
                                                 &device) == 0,
                  "%s", name);
            CHECK(device->abilities == expected[i][type], "%s, type %u: abilities 0x%x",
                  name, hw_types[type], device->abilities);
            CHECK(fake_objects() == 0, "%s: trying out leaves objects", name);
            CHECK(viommu_iommufd_host_create_space(&host, 1, device, false) == 0, "%s",
                  name);
            CHECK(viommu_iommufd_host_attach(&host, device, IOMMUFD_NO_PASID, 1) == 0,
                  "%s", name);
            CHECK(viommu_iommufd_host_attach(&host, device, 2, 1) ==
                      (releases[i].pasids ? 0 : -EOPNOTSUPP),
                  "%s", name);
            CHECK(viommu_iommufd_host_create_space(&host, 2, device, true) ==
                      (releases[i].nesting ? 0 : -EOPNOTSUPP),
                  "%s", name);
            end(&host, name);
        }
    }
    printf("releases: %zu, each with %zu kinds of IOMMU\n", ARRAY_SIZE(releases),
           ARRAY_SIZE(hw_types));
}

static void test_lifetimes(void)
{
    HostDevice *device;
    IommufdHost host;

    begin(&host, NEWEST, IOMMU_HW_INFO_TYPE_ARM_SMMUV3);
    CHECK(viommu_iommufd_host_add_device(&host, 7, FAKE_DEV_ID, FAKE_DEVICE, &device) ==
              0,
          "add");
    CHECK(device->info.size == sizeof(struct iommu_hw_info_arm_smmuv3) &&
              device->info.data[0] == 0x5a,
          "info");
    CHECK(viommu_iommufd_host_add_device(&host, 7, FAKE_DEV_ID, FAKE_DEVICE, &device) ==
              -EEXIST,
          "the same number again");
    CHECK(viommu_iommufd_host_create_space(&host, 1, device, true) == 0, "parent");
    CHECK(viommu_iommufd_host_create_space(&host, 1, device, false) == -EEXIST,
          "the same number again");
    CHECK(viommu_iommufd_host_map(&host, 9, 0, tables, 4096, 3) == -ENOENT,
          "no such space");
    CHECK(viommu_iommufd_host_identify(&host, device, 0x10) == 0, "identify");
    CHECK(viommu_iommufd_host_attach_nested(&host, device, IOMMUFD_NO_PASID, 1, 2, tables,
                                            16) == 0,
          "nested");
    CHECK(fake_attached(0, IOMMUFD_NO_PASID) == FAKE_NESTED, "attached to guest tables");
    CHECK(viommu_iommufd_host_destroy_space(&host, 1) == -EBUSY, "in use");
    CHECK(fake_objects() == 7,
          "%u objects: IOAS, parent, vIOMMU, vDEVICE, two queues, tables",
          fake_objects());
    /* New tables in the place of old ones: the old ones are gone. */
    CHECK(viommu_iommufd_host_attach_nested(&host, device, IOMMUFD_NO_PASID, 1, 2, tables,
                                            16) == 0,
          "again");
    CHECK(fake_objects() == 7, "%u objects", fake_objects());
    CHECK(viommu_iommufd_host_attach(&host, device, IOMMUFD_NO_PASID, 1) == 0,
          "pass-through on the parent");
    CHECK(fake_attached(0, IOMMUFD_NO_PASID) == FAKE_PARENT && fake_objects() == 6,
          "the tables are gone");
    CHECK(viommu_iommufd_host_detach(&host, device, IOMMUFD_NO_PASID) == 0, "detach");
    CHECK(viommu_iommufd_host_detach(&host, device, IOMMUFD_NO_PASID) == -ENOENT,
          "twice");
    CHECK(viommu_iommufd_host_destroy_space(&host, 1) == 0 && fake_objects() == 0,
          "destroy");
    end(&host, "lifetimes");
    printf("lifetimes: every object goes after those that need it\n");
}

/* A refused table leaves the device where it was. */
static void test_refused_tables(void)
{
    HostDevice *device;
    IommufdHost host;

    begin(&host, NEWEST, IOMMU_HW_INFO_TYPE_INTEL_VTD);
    viommu_iommufd_host_add_device(&host, 0, FAKE_DEV_ID, FAKE_DEVICE, &device);
    viommu_iommufd_host_create_space(&host, 1, device, true);
    CHECK(viommu_iommufd_host_attach(&host, device, IOMMUFD_NO_PASID, 1) == 0, "parent");
    CHECK(viommu_iommufd_host_attach_nested(&host, device, IOMMUFD_NO_PASID, 1, 1, tables,
                                            0) == -EINVAL,
          "no data");
    CHECK(fake_attached(0, IOMMUFD_NO_PASID) == FAKE_PARENT, "still where it was");
    /*
     * A device that cannot ask for pages is refused a fault queue, and gets its tables
     * without.
     */
    fake.page_requests = false;
    CHECK(viommu_iommufd_host_attach_nested(&host, device, IOMMUFD_NO_PASID, 1, 1, tables,
                                            24) == 0,
          "without a queue");
    CHECK(!(device->abilities & HOST_FAULT_QUEUE), "and it is known from now on");
    end(&host, "refused tables");
    printf("refused tables: the device stays where it was\n");
}

int main(void)
{
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(hw_types); i++) {
        test_every_failure(hw_types[i]);
    }
    test_interruptions();
    test_releases();
    test_lifetimes();
    test_refused_tables();
    printf("iommufd-test: all well\n");
    return 0;
}
