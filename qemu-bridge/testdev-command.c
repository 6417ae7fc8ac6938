/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "compat.h"
#include "hw/pci/msix.h"
#include "endpoints.h"
#include "testdev.h"
#include "testdev-command.h"

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

uint32_t viommu_testdev_needs(const ViommuTestdev *d, uint32_t command)
{
    uint32_t needs = d->pasid & PASID_VALID ? FEATURE_PASID : 0;

    switch (command) {
    case CMD_READ:
    case CMD_WRITE:
        return needs | (d->control & CONTROL_ATS ? FEATURE_ATS : 0) |
               (d->control & CONTROL_PRI ? FEATURE_ATS | FEATURE_PRI : 0) |
               (d->control & CONTROL_STALL ? FEATURE_STALLS : 0);
    case CMD_REQUEST_PAGES:
    case CMD_STOP_MARKER:
        return needs | FEATURE_PRI;
    default:
        return 0;
    }
}

void viommu_testdev_settle(ViommuTestdev *d)
{
    uint32_t mode = d->behaviour & BEHAVIOUR_DROP;

    if (d->transfer.wait == WAIT_RELEASE && !(d->behaviour & BEHAVIOUR_HOLD)) {
        d->transfer.wait = WAIT_NOTHING;
        d->transfer.released = true;
        qemu_bh_schedule(d->bh);
    }
    if (mode != BEHAVIOUR_DROP_LATER && d->transfer.wait != WAIT_RELEASE &&
        !d->transfer.released) {
        viommu_endpoint_dropped(&d->endpoint, mode == BEHAVIOUR_DROP_NEVER ?
                                                  VIOMMU_DROP_TIMEOUT :
                                                  VIOMMU_DROP_DONE);
    }
}

void viommu_testdev_complete(ViommuTestdev *d, uint32_t status)
{
    uint8_t *data = (uint8_t *)memory_region_get_ram_ptr(&d->buffer) + d->offset;

    qemu_bh_cancel(d->bh);
    d->generation++;
    d->transfer = (TestdevTransfer) { 0 };
    d->status = status;
    if (status == STATUS_DONE) {
        d->bytes_done = d->length;
    }
    if (d->command == CMD_READ || d->command == CMD_FILL) {
        memory_region_set_dirty(&d->buffer, d->offset, d->length);
    }
    d->checksum = crc32_of(data, d->bytes_done);
    d->counters.completed++;
    viommu_testdev_settle(d);
    if (d->control & CONTROL_INTERRUPT) {
        d->interrupt |= INTERRUPT_PENDING;
        if (msix_enabled(&d->parent)) {
            msix_notify(&d->parent, 0);
        }
    }
}

void viommu_testdev_abandon(ViommuTestdev *d, uint32_t result)
{
    if (d->status == STATUS_BUSY) {
        d->result = result;
        d->fault_address = d->address + d->bytes_done;
        viommu_testdev_complete(d, STATUS_FAULT);
    }
}
