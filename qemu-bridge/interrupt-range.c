/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A unit takes a requester's accesses without PASID to a range of addresses for
 * interrupts rather than DMA (VT-d: FEEx_xxxxh). An aligned write of four bytes is an
 * interrupt (interrupts.c). Any other access there is a translation request with its
 * size, by which the model tells that it is no interrupt. The access then goes where the
 * answer says. The IOxAPIC has such a range too, and nothing else: its address space is
 * the machine's way to tell it what to write to.
 *
 * QEMU cuts an access into powers of two, the largest first and at most eight bytes here,
 * without saying how much is to come. So a write of five to seven bytes begins like an
 * interrupt. What follows a refused piece is refused with it.
 */
#include "compat.h"
#include "ask.h"
#include "interrupt-range.h"
#include "interrupts.h"
#include "refusals.h"
#include "spaces.h"
#include "viommu-core.h"

#define INTERRUPT_BYTES 4
#define MAX_PIECE 8

static MemTxResult go_on(hwaddr address, uint64_t *data, unsigned size, uint32_t access,
                         MemTxAttrs attrs)
{
    uint8_t bytes[MAX_PIECE];
    MemTxResult result;

    stn_le_p(bytes, size, *data);
    result = address_space_rw(&address_space_memory, address, attrs, bytes, size,
                              access == IOTLB_WRITE);
    *data = ldn_le_p(bytes, size);
    return result;
}

static MemTxResult ask(ViommuSpace *space, hwaddr address, uint64_t *data, unsigned size,
                       uint32_t access, MemTxAttrs attrs)
{
    const ViommuRequest request = {
        .address = address,
        .pasid_plus_1 = space->pasid_plus_1,
        .access = access,
        .size = size,
    };
    ViommuAnswer answer = { .reply = viommu_TranslateReply_init_zero };
    const uint32_t *w = answer.spans.words;
    uint64_t mask;
    uint16_t rid;

    if (!viommu_ask(space, &request, &answer, &rid) ||
        !viommu_ask_allows(&answer, address, access)) {
        viommu_refusal_note(space, address, access, size);
        return MEMTX_DECODE_ERROR;
    }
    mask = w[4] >= 64 ? UINT64_MAX : (1ull << w[4]) - 1;
    return go_on(viommu_u64(w[2], w[3]) + (address & mask), data, size, access, attrs);
}

static bool is_interrupt(hwaddr address, unsigned size)
{
    return size == INTERRUPT_BYTES && address % INTERRUPT_BYTES == 0;
}

static MemTxResult interrupt(ViommuCore *core, ViommuSpace *space, hwaddr address,
                             uint64_t data)
{
    const ViommuMessage message = { .address = address, .data = data };

    /* As with a blocked interrupt of silicon, the device does not hear of it. */
    viommu_interrupts_send(core, space, message);
    return MEMTX_OK;
}

static MemTxResult interrupts_read(void *opaque, hwaddr offset, uint64_t *data,
                                   unsigned size, MemTxAttrs attrs)
{
    ViommuSpace *space = opaque;
    hwaddr address = space->core->msi_base + offset;

    *data = 0;
    if (viommu_refusal_goes_on(space, address, IOTLB_READ, size)) {
        return MEMTX_DECODE_ERROR;
    }
    return ask(space, address, data, size, IOTLB_READ, attrs);
}

static MemTxResult interrupts_write(void *opaque, hwaddr offset, uint64_t data,
                                    unsigned size, MemTxAttrs attrs)
{
    ViommuSpace *space = opaque;
    hwaddr address = space->core->msi_base + offset;

    if (viommu_refusal_goes_on(space, address, IOTLB_WRITE, size)) {
        return MEMTX_DECODE_ERROR;
    }
    if (is_interrupt(address, size)) {
        return interrupt(space->core, space, address, data);
    }
    return ask(space, address, &data, size, IOTLB_WRITE, attrs);
}

static const MemoryRegionOps interrupts_ops = {
    .read_with_attrs = interrupts_read,
    .write_with_attrs = interrupts_write,
    .endianness = DEVICE_LITTLE_ENDIAN,
    .valid = { .min_access_size = 1, .max_access_size = MAX_PIECE, .unaligned = true },
    .impl = { .min_access_size = 1, .max_access_size = MAX_PIECE, .unaligned = true },
};

static MemTxResult ioapic_read(void *opaque, hwaddr offset, uint64_t *data, unsigned size,
                               MemTxAttrs attrs)
{
    return MEMTX_DECODE_ERROR;
}

static MemTxResult ioapic_write(void *opaque, hwaddr offset, uint64_t data, unsigned size,
                                MemTxAttrs attrs)
{
    ViommuCore *core = opaque;

    return is_interrupt(offset, size) ?
               interrupt(core, NULL, core->msi_base + offset, data) :
               MEMTX_DECODE_ERROR;
}

static const MemoryRegionOps ioapic_ops = {
    .read_with_attrs = ioapic_read,
    .write_with_attrs = ioapic_write,
    .endianness = DEVICE_LITTLE_ENDIAN,
    .valid = { .min_access_size = INTERRUPT_BYTES, .max_access_size = INTERRUPT_BYTES },
};

/* A device may interrupt while the guest accesses the registers of the same owner. */
static void init_range(MemoryRegion *range, ViommuCore *core, const MemoryRegionOps *ops,
                       void *opaque, const char *name)
{
    memory_region_init_io(range, OBJECT(core->dev), ops, opaque, name, core->msi_size);
    range->disable_reentrancy_guard = true;
}

AddressSpace *viommu_interrupt_range_of_ioapic(ViommuCore *core, uint16_t source)
{
    ViommuInterrupts *in = &core->interrupts;

    in->ioapic = source;
    memory_region_init(&in->ioapic_root, OBJECT(core->dev), "viommu-ioapic", UINT64_MAX);
    init_range(&in->ioapic_range, core, &ioapic_ops, core, "viommu-ioapic-interrupts");
    memory_region_add_subregion(&in->ioapic_root, core->msi_base, &in->ioapic_range);
    address_space_init(&in->ioapic_as, &in->ioapic_root, "viommu-ioapic");
    return &in->ioapic_as;
}

void viommu_interrupt_range_cover(ViommuSpace *space, const char *name)
{
    ViommuCore *core = space->core;

    if (!core->msi_size) {
        return;
    }
    init_range(&space->interrupts, core, &interrupts_ops, space, name);
    memory_region_add_subregion_overlap(&space->root, core->msi_base, &space->interrupts,
                                        1);
}
