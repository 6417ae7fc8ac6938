/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * -device viommu-testdev: a PCI function that moves bytes between a buffer of its own and
 * any device address, and says how the transfer ended. For tests, and for people who test
 * kernels. docs/testdev.md describes its registers; the numbers here and there are one
 * interface. This file has registers and commands.
 */
#include "compat.h"
#include "hw/pci/msix.h"
#include "endpoints.h"
#include "requests.h"
#include "testdev.h"
#include "testdev-assigned.h"
#include "testdev-atc.h"
#include "testdev-command.h"
#include "testdev-dma.h"
#include "testdev-pci.h"

#define TESTDEV_ID 0x544f4956u /* "VIOT" */
#define WINDOW_SIZE (4 * KiB)

enum TestdevBar { BAR_REGISTERS = 0, BAR_BUFFER = 1, BAR_MSIX = 2 };

enum TestdevRegister {
    REG_ID = 0x00,
    REG_VERSION = 0x04,
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
    REG_COMPLETED = 0x48,
    REG_INTERRUPT = 0x4c,
    REG_BEHAVIOUR = 0x50,
    REG_WAITING = 0x54,
    REG_ENABLED = 0x58,
    REG_TRANSLATION_REQUESTS = 0x60,
    REG_ATC_HITS = 0x64,
    REG_ATC_ENTRIES = 0x68,
    REG_INVALIDATIONS = 0x6c,
    REG_PAGE_REQUESTS = 0x70,
    REG_PAGE_RESPONSES = 0x74,
    REG_PAGE_CODE = 0x78,
    REG_STALLS = 0x7c,
    REG_HOST_MAPS = 0x80,
    REG_HOST_UNMAPS = 0x84,
};

#define CONTROL_BITS (CONTROL_INTERRUPT | CONTROL_ATS | CONTROL_PRI | CONTROL_STALL)
#define BEHAVIOUR_BITS (BEHAVIOUR_DROP | BEHAVIOUR_HOLD | ~0u << BEHAVIOUR_COUNT_SHIFT)

/* xorshift32, one byte a step: what a guest can compute in three lines of C. */
static void fill_pattern(uint8_t *data, uint32_t length, uint32_t seed)
{
    uint32_t x = seed ? seed : 1, i;

    for (i = 0; i < length; i++) {
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        data[i] = x;
    }
}

static void run_command(void *opaque)
{
    ViommuTestdev *d = opaque;
    uint8_t *data = (uint8_t *)memory_region_get_ram_ptr(&d->buffer) + d->offset;

    switch (d->command) {
    case CMD_FILL:
        fill_pattern(data, d->length, d->seed);
        viommu_testdev_complete(d, STATUS_DONE);
        break;
    case CMD_CHECKSUM:
        viommu_testdev_complete(d, STATUS_DONE);
        break;
    case CMD_STOP_MARKER:
        viommu_request_page(&d->endpoint, viommu_testdev_pasid_plus_1(d), 0, 0, 0, true);
        viommu_testdev_complete(d, STATUS_DONE);
        break;
    default:
        viommu_testdev_run(d);
    }
}

/* What was switched on decides what the function may send. */
static bool may_start(const ViommuTestdev *d, uint32_t command)
{
    uint64_t first = d->address / TESTDEV_PIECE;
    uint64_t last = (d->address + d->length - 1) / TESTDEV_PIECE;

    if (command < CMD_READ || command > CMD_STOP_MARKER || !d->length ||
        d->length > TESTDEV_BUFFER_SIZE || d->offset > TESTDEV_BUFFER_SIZE - d->length) {
        return false;
    }
    if (viommu_testdev_needs(d, command) & ~viommu_testdev_pci_enabled(d)) {
        return false;
    }
    switch (command) {
    case CMD_READ:
    case CMD_WRITE:
        /* Page requests are for pages that a translation request did not find. */
        return (d->control & (CONTROL_ATS | CONTROL_PRI)) != CONTROL_PRI;
    case CMD_REQUEST_PAGES:
        return last >= first && last - first < viommu_testdev_pci_page_requests(d);
    case CMD_STOP_MARKER:
        return d->pasid & PASID_VALID;
    default:
        return true;
    }
}

static void start_command(ViommuTestdev *d, uint32_t command)
{
    d->command = command;
    d->result = MEMTX_OK;
    d->bytes_done = 0;
    d->fault_address = 0;
    d->checksum = 0;
    if (!may_start(d, command)) {
        d->status = STATUS_REJECTED;
        return;
    }
    d->status = STATUS_BUSY;
    qemu_bh_schedule(d->bh);
}

static uint64_t testdev_read(void *opaque, hwaddr offset, unsigned size)
{
    ViommuTestdev *d = opaque;

    switch (offset) {
    case REG_ID:
        return TESTDEV_ID;
    case REG_VERSION:
        return TESTDEV_VERSION;
    case REG_FEATURES:
        return viommu_testdev_pci_features(d);
    case REG_BUFFER_SIZE:
        return TESTDEV_BUFFER_SIZE;
    case REG_ADDRESS_LO:
        return (uint32_t)d->address;
    case REG_ADDRESS_HI:
        return d->address >> 32;
    case REG_LENGTH:
        return d->length;
    case REG_OFFSET:
        return d->offset;
    case REG_PASID:
        return d->pasid;
    case REG_CONTROL:
        return d->control;
    case REG_COMMAND:
        return d->command;
    case REG_STATUS:
        return d->status;
    case REG_RESULT:
        return d->result;
    case REG_BYTES_DONE:
        return d->bytes_done;
    case REG_FAULT_LO:
        return (uint32_t)d->fault_address;
    case REG_FAULT_HI:
        return d->fault_address >> 32;
    case REG_SEED:
        return d->seed;
    case REG_CHECKSUM:
        return d->checksum;
    case REG_COMPLETED:
        return d->counters.completed;
    case REG_INTERRUPT:
        return d->interrupt;
    case REG_BEHAVIOUR:
        return d->behaviour;
    case REG_WAITING:
        return d->transfer.wait;
    case REG_ENABLED:
        return viommu_testdev_pci_enabled(d);
    case REG_TRANSLATION_REQUESTS:
        return d->counters.translation_requests;
    case REG_ATC_HITS:
        return d->counters.atc_hits;
    case REG_ATC_ENTRIES:
        return viommu_testdev_atc_count(&d->atc);
    case REG_INVALIDATIONS:
        return d->counters.invalidations;
    case REG_PAGE_REQUESTS:
        return d->counters.page_requests;
    case REG_PAGE_RESPONSES:
        return d->counters.page_responses;
    case REG_PAGE_CODE:
        return d->page_code;
    case REG_STALLS:
        return d->counters.stalls;
    case REG_HOST_MAPS:
        return d->assigned.maps;
    case REG_HOST_UNMAPS:
        return d->assigned.unmaps;
    default:
        return 0;
    }
}

static void testdev_write(void *opaque, hwaddr offset, uint64_t value, unsigned size)
{
    ViommuTestdev *d = opaque;

    /* A command in progress keeps what it was started with. */
    if (d->status == STATUS_BUSY && offset != REG_INTERRUPT && offset != REG_BEHAVIOUR) {
        if (offset == REG_COMMAND && value == CMD_CANCEL) {
            viommu_testdev_abandon(d, RESULT_CANCELLED);
        }
        return;
    }
    switch (offset) {
    case REG_ADDRESS_LO:
        d->address = deposit64(d->address, 0, 32, value);
        break;
    case REG_ADDRESS_HI:
        d->address = deposit64(d->address, 32, 32, value);
        break;
    case REG_LENGTH:
        d->length = value;
        break;
    case REG_OFFSET:
        d->offset = value;
        break;
    case REG_CONTROL:
        d->control = value & CONTROL_BITS;
        break;
    case REG_PASID:
        d->pasid = value & (PASID_VALID | PASID_NUMBER);
        break;
    case REG_BEHAVIOUR:
        d->behaviour = value & BEHAVIOUR_BITS;
        viommu_testdev_settle(d);
        break;
    case REG_COMMAND:
        start_command(d, value);
        break;
    case REG_SEED:
        d->seed = value;
        break;
    case REG_INTERRUPT:
        d->interrupt &= ~(uint32_t)value;
        break;
    }
}

static const MemoryRegionOps testdev_ops = {
    .read = testdev_read,
    .write = testdev_write,
    .endianness = DEVICE_LITTLE_ENDIAN,
    .valid = { .min_access_size = 4, .max_access_size = 8 },
    .impl = { .min_access_size = 4, .max_access_size = 4 },
};

static DeviceRealize parent_realize;

static void testdev_realize(PCIDevice *pci, Error **errp)
{
    ViommuTestdev *d = VIOMMU_TESTDEV(pci);

    if (d->assigned.on) {
        /* VFIO passes none of these on. */
        d->offer_pasid = d->offer_ats = d->offer_pri = false;
    }
    if (!memory_region_init_ram(&d->buffer, OBJECT(d), "viommu-testdev-buffer",
                                TESTDEV_BUFFER_SIZE, errp)) {
        return;
    }
    memory_region_init_io(&d->registers, OBJECT(d), &testdev_ops, d, "viommu-testdev",
                          WINDOW_SIZE);
    pci_register_bar(pci, BAR_REGISTERS, PCI_BASE_ADDRESS_SPACE_MEMORY, &d->registers);
    pci_register_bar(pci, BAR_BUFFER,
                     PCI_BASE_ADDRESS_SPACE_MEMORY | PCI_BASE_ADDRESS_MEM_PREFETCH,
                     &d->buffer);
    if (msix_init_exclusive_bar(pci, 1, BAR_MSIX, errp) < 0) {
        return;
    }
    msix_vector_use(pci, 0);
    d->bh = aio_bh_new_guarded(qemu_get_aio_context(), run_command, d,
                               &DEVICE(d)->mem_reentrancy_guard);
    viommu_endpoint_attach(&d->endpoint, pci, &viommu_testdev_endpoint_ops);
    viommu_testdev_pci_init(d, errp);
    viommu_testdev_assigned_start(d, errp);
}

/* On a conventional bus there is no room for extended capabilities. */
static void testdev_device_realize(DeviceState *dev, Error **errp)
{
    PCIDevice *pci = PCI_DEVICE(dev);

    if (pci_bus_is_express(PCI_BUS(qdev_get_parent_bus(dev)))) {
        pci->cap_present |= QEMU_PCI_CAP_EXPRESS;
    }
    parent_realize(dev, errp);
}

static void testdev_exit(PCIDevice *pci)
{
    ViommuTestdev *d = VIOMMU_TESTDEV(pci);

    viommu_testdev_assigned_stop(d);
    viommu_endpoint_detach(&d->endpoint);
    qemu_bh_delete(d->bh);
    msix_uninit_exclusive_bar(pci);
}

static void testdev_reset_hold(Object *obj, ResetType type)
{
    ViommuTestdev *d = VIOMMU_TESTDEV(obj);

    qemu_bh_cancel(d->bh);
    d->generation++;
    d->transfer = (TestdevTransfer) { 0 };
    d->address = 0;
    d->length = 0;
    d->offset = 0;
    d->pasid = 0;
    d->control = 0;
    d->command = 0;
    d->status = STATUS_IDLE;
    d->result = MEMTX_OK;
    d->bytes_done = 0;
    d->fault_address = 0;
    d->seed = 0;
    d->checksum = 0;
    d->interrupt = 0;
    d->behaviour = 0;
    d->page_code = 0;
    d->next_group = 0;
    d->counters = (TestdevCounters) { 0 };
    viommu_testdev_atc_flush(&d->atc);
    bitmap_zero(d->groups, TESTDEV_GROUPS);
    viommu_testdev_pci_reset(d);
    viommu_testdev_settle(d);
}

static const Property testdev_properties[] = {
    DEFINE_PROP_BOOL("pasid", ViommuTestdev, offer_pasid, true),
    DEFINE_PROP_BOOL("ats", ViommuTestdev, offer_ats, true),
    DEFINE_PROP_BOOL("pri", ViommuTestdev, offer_pri, true),
    DEFINE_PROP_BOOL("assigned", ViommuTestdev, assigned.on, false),
    DEFINE_PROP_UINT32("mapping-limit", ViommuTestdev, assigned.limit, 65535),
    DEFINE_PROP_UINT32("fail-every", ViommuTestdev, assigned.fail_every, 0),
};

static const VMStateDescription testdev_vmstate = {
    .name = TYPE_VIOMMU_TESTDEV,
    .unmigratable = 1,
};

static void testdev_class_init(ObjectClass *klass, VIOMMU_CLASS_DATA *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);
    PCIDeviceClass *pc = PCI_DEVICE_CLASS(klass);

    pc->realize = testdev_realize;
    pc->exit = testdev_exit;
    pc->vendor_id = TESTDEV_VENDOR_ID;
    pc->device_id = TESTDEV_DEVICE_ID;
    pc->revision = TESTDEV_VERSION;
    pc->class_id = PCI_CLASS_OTHERS;
    pc->config_write = viommu_testdev_pci_write_config;
    device_class_set_parent_realize(dc, testdev_device_realize, &parent_realize);
    device_class_set_props(dc, testdev_properties);
    object_class_property_set_description(
        klass, "assigned",
        "DMA reaches what IOMMU notifiers have mapped, as "
        "with a device of the host");
    object_class_property_set_description(klass, "mapping-limit",
                                          "assigned: most mappings");
    object_class_property_set_description(klass, "fail-every",
                                          "assigned: every so many mappings one fails");
    object_class_property_set_description(
        klass, "pasid", "PASID capability, where the IOMMU is viommu's");
    object_class_property_set_description(
        klass, "ats",
        "Address Translation Services, where daemon and bridge "
        "have them");
    object_class_property_set_description(klass, "pri",
                                          "Page Request Interface, likewise");
    RESETTABLE_CLASS(klass)->phases.hold = testdev_reset_hold;
    dc->vmsd = &testdev_vmstate;
    dc->desc = "DMA test device (viommu docs/testdev.md)";
    set_bit(DEVICE_CATEGORY_MISC, dc->categories);
}

const TypeInfo viommu_testdev_type = {
    .name = TYPE_VIOMMU_TESTDEV,
    .parent = TYPE_PCI_DEVICE,
    .instance_size = sizeof(ViommuTestdev),
    .class_init = testdev_class_init,
    .interfaces = (VIOMMU_INTERFACES) {
        { INTERFACE_CONVENTIONAL_PCI_DEVICE },
        { INTERFACE_PCIE_DEVICE },
        { },
    },
};
