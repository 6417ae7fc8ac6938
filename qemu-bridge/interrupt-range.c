/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A unit takes a requester's accesses without PASID to a range of addresses for
 * interrupts rather than DMA (VT-d: FEEx_xxxxh). An aligned write of four bytes is an
 * interrupt: it goes on as it is, without asking the daemon, which remaps none. Any other
 * access there is a translation request with its size, by which the model tells that it
 * is no interrupt. The access then goes where the answer says.
 *
 * QEMU cuts an access into powers of two, the largest first and at most eight bytes here,
 * without saying how much is to come. So a write of five to seven bytes begins like an
 * interrupt. What follows a refused piece is refused with it.
 */
#include "compat.h"
#include "ask.h"
#include "interrupt-range.h"
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
    if (size == INTERRUPT_BYTES && address % INTERRUPT_BYTES == 0) {
        return go_on(address, &data, size, IOTLB_WRITE, attrs);
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

void viommu_interrupt_range_cover(ViommuSpace *space, const char *name)
{
    ViommuCore *core = space->core;

    if (!core->msi_size) {
        return;
    }
    memory_region_init_io(&space->interrupts, OBJECT(core->dev), &interrupts_ops, space,
                          name, core->msi_size);
    /*
     * A device may interrupt while the guest accesses the registers of the unit, which
     * have the same owner.
     */
    space->interrupts.disable_reentrancy_guard = true;
    memory_region_add_subregion_overlap(&space->root, core->msi_base, &space->interrupts,
                                        1);
}
