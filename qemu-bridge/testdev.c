/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * -device viommu-testdev: a PCI function that moves bytes between a buffer of its own and whatever device address
 * it is told, and says what became of it. For tests, and for people who test kernels. Its registers are described
 * in docs/testdev.md; the numbers here and there are one interface.
 */
#include "compat.h"
#include "hw/pci/msix.h"
#include "viommu-types.h"

OBJECT_DECLARE_SIMPLE_TYPE(ViommuTestdev, VIOMMU_TESTDEV)

/* 1234 is what QEMU's own educational devices use; no device of QEMU has this number under it. */
#define TESTDEV_VENDOR_ID 0x1234
#define TESTDEV_DEVICE_ID 0x10d0

#define TESTDEV_ID 0x544f4956u /* "VIOT" */
#define TESTDEV_VERSION 1u
#define BUFFER_SIZE (64 * KiB)
#define WINDOW_SIZE (4 * KiB)
/* A transfer goes in pieces that stay within one page, so that the first address that fails is known. */
#define PIECE 4096u

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
};

enum TestdevCommand { CMD_READ = 1, CMD_WRITE = 2, CMD_FILL = 3, CMD_CHECKSUM = 4 };
enum TestdevStatus { STATUS_IDLE = 0, STATUS_BUSY = 1, STATUS_DONE = 2, STATUS_FAULT = 3, STATUS_REJECTED = 4 };

#define CONTROL_INTERRUPT 1u
#define INTERRUPT_PENDING 1u

struct ViommuTestdev {
    PCIDevice parent;
    MemoryRegion registers;
    MemoryRegion buffer;
    QEMUBH *bh;

    uint64_t address;
    uint32_t length;
    uint32_t offset;
    uint32_t control;
    uint32_t command;
    uint32_t status;
    uint32_t result;
    uint32_t bytes_done;
    uint64_t fault_address;
    uint32_t seed;
    uint32_t checksum;
    uint32_t completed;
    uint32_t interrupt;
};

/* The CRC-32 of zip and `crc32` (reflected polynomial 0xedb88320). */
static uint32_t crc32_of(const uint8_t *data, uint32_t length)
{
    uint32_t crc = 0xffffffffu, i;
    int bit;

    for (i = 0; i < length; i++) {
        crc ^= data[i];
        for (bit = 0; bit < 8; bit++) {
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
        }
    }
    return ~crc;
}

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

static void transfer(ViommuTestdev *d, uint8_t *data, DMADirection direction)
{
    while (d->bytes_done < d->length) {
        uint64_t address = d->address + d->bytes_done;
        uint32_t size = MIN(d->length - d->bytes_done, PIECE - (address & (PIECE - 1)));

        d->result = pci_dma_rw(&d->parent, address, data + d->bytes_done, size, direction, MEMTXATTRS_UNSPECIFIED);
        if (d->result != MEMTX_OK) {
            d->fault_address = address;
            d->status = STATUS_FAULT;
            return;
        }
        d->bytes_done += size;
    }
}

static void complete(ViommuTestdev *d)
{
    d->completed++;
    if (d->control & CONTROL_INTERRUPT) {
        d->interrupt |= INTERRUPT_PENDING;
        if (msix_enabled(&d->parent)) {
            msix_notify(&d->parent, 0);
        }
    }
}

static void run_command(void *opaque)
{
    ViommuTestdev *d = opaque;
    uint8_t *data = (uint8_t *)memory_region_get_ram_ptr(&d->buffer) + d->offset;

    d->status = STATUS_DONE;
    switch (d->command) {
    case CMD_READ:
        transfer(d, data, DMA_DIRECTION_TO_DEVICE);
        memory_region_set_dirty(&d->buffer, d->offset, d->length);
        break;
    case CMD_WRITE:
        transfer(d, data, DMA_DIRECTION_FROM_DEVICE);
        break;
    case CMD_FILL:
        fill_pattern(data, d->length, d->seed);
        memory_region_set_dirty(&d->buffer, d->offset, d->length);
        d->bytes_done = d->length;
        break;
    case CMD_CHECKSUM:
        d->bytes_done = d->length;
        break;
    }
    d->checksum = crc32_of(data, d->bytes_done);
    complete(d);
}

static void start_command(ViommuTestdev *d, uint32_t command)
{
    if (d->status == STATUS_BUSY) {
        return;
    }
    d->command = command;
    d->result = MEMTX_OK;
    d->bytes_done = 0;
    d->fault_address = 0;
    d->checksum = 0;
    if (command < CMD_READ || command > CMD_CHECKSUM || !d->length || d->length > BUFFER_SIZE ||
        d->offset > BUFFER_SIZE - d->length) {
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
    case REG_BUFFER_SIZE:
        return BUFFER_SIZE;
    case REG_ADDRESS_LO:
        return (uint32_t)d->address;
    case REG_ADDRESS_HI:
        return d->address >> 32;
    case REG_LENGTH:
        return d->length;
    case REG_OFFSET:
        return d->offset;
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
        return d->completed;
    case REG_INTERRUPT:
        return d->interrupt;
    default: /* REG_FEATURES and REG_PASID are 0 in this version, and so is the rest. */
        return 0;
    }
}

static void testdev_write(void *opaque, hwaddr offset, uint64_t value, unsigned size)
{
    ViommuTestdev *d = opaque;

    /* A command in progress keeps what it was started with. */
    if (d->status == STATUS_BUSY && offset != REG_INTERRUPT) {
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
        d->control = value & CONTROL_INTERRUPT;
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

static void testdev_realize(PCIDevice *pci, Error **errp)
{
    ViommuTestdev *d = VIOMMU_TESTDEV(pci);

    if (!memory_region_init_ram(&d->buffer, OBJECT(d), "viommu-testdev-buffer", BUFFER_SIZE, errp)) {
        return;
    }
    memory_region_init_io(&d->registers, OBJECT(d), &testdev_ops, d, "viommu-testdev", WINDOW_SIZE);
    pci_register_bar(pci, BAR_REGISTERS, PCI_BASE_ADDRESS_SPACE_MEMORY, &d->registers);
    pci_register_bar(pci, BAR_BUFFER, PCI_BASE_ADDRESS_SPACE_MEMORY | PCI_BASE_ADDRESS_MEM_PREFETCH, &d->buffer);
    if (msix_init_exclusive_bar(pci, 1, BAR_MSIX, errp) < 0) {
        return;
    }
    msix_vector_use(pci, 0);
    d->bh = qemu_bh_new_guarded(run_command, d, &DEVICE(d)->mem_reentrancy_guard);
}

static void testdev_exit(PCIDevice *pci)
{
    ViommuTestdev *d = VIOMMU_TESTDEV(pci);

    qemu_bh_delete(d->bh);
    msix_uninit_exclusive_bar(pci);
}

static void testdev_reset_hold(Object *obj, ResetType type)
{
    ViommuTestdev *d = VIOMMU_TESTDEV(obj);

    qemu_bh_cancel(d->bh);
    d->address = 0;
    d->length = 0;
    d->offset = 0;
    d->control = 0;
    d->command = 0;
    d->status = STATUS_IDLE;
    d->result = MEMTX_OK;
    d->bytes_done = 0;
    d->fault_address = 0;
    d->seed = 0;
    d->checksum = 0;
    d->completed = 0;
    d->interrupt = 0;
}

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
        { },
    },
};
