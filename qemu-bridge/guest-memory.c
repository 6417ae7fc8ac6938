/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is not RAM is refused, so that a guest cannot point a table at the registers of a
 * device. No lock is taken, so that a vCPU that waits never delays an answer.
 */
#include "compat.h"
#include "guest-memory.h"

/*
 * NOT_MEMORY of the error table (docs/protocol.md): the address is not memory, or not
 * writable.
 */
#define CODE_NOT_RAM 40

/* The RAM behind an address, and how much of it goes on there. */
static MemoryRegion *ram_at(uint64_t gpa, hwaddr *offset, hwaddr *length)
{
    return address_space_translate(&address_space_memory, gpa, offset, length, false,
                                   MEMTXATTRS_UNSPECIFIED);
}

/*
 * RAM, or ROM that reads as memory. Never the registers of a device, which QEMU may have
 * mapped too (the BAR of a host device).
 */
static bool is_readable_ram(MemoryRegion *mr)
{
    return (memory_region_is_ram(mr) || memory_region_is_romd(mr)) &&
           !memory_region_is_ram_device(mr);
}

uint32_t viommu_guest_read(uint64_t gpa, void *data, uint32_t size)
{
    RCU_READ_LOCK_GUARD();

    while (size) {
        hwaddr offset, length = size;
        MemoryRegion *mr = ram_at(gpa, &offset, &length);

        if (!is_readable_ram(mr)) {
            return CODE_NOT_RAM;
        }
        memcpy(data, (uint8_t *)memory_region_get_ram_ptr(mr) + offset, length);
        gpa += length;
        data = (uint8_t *)data + length;
        size -= length;
    }
    return 0;
}

bool viommu_guest_read_entries(uint64_t gpa, uint64_t *values, uint32_t count)
{
    hwaddr offset, length = count * sizeof(uint64_t);
    MemoryRegion *mr = ram_at(gpa, &offset, &length);
    const uint64_t *from;
    uint32_t i;

    if (gpa % sizeof(uint64_t) || length < count * sizeof(uint64_t) ||
        !is_readable_ram(mr)) {
        return false;
    }
    from = (const uint64_t *)((const uint8_t *)memory_region_get_ram_ptr(mr) + offset);
    for (i = 0; i < count; i++) {
        values[i] = le64_to_cpu(qatomic_read__nocheck(from + i));
    }
    return true;
}

static bool is_writable_ram(MemoryRegion *mr)
{
    return memory_region_is_ram(mr) && !memory_region_is_rom(mr) &&
           !memory_region_is_ram_device(mr);
}

static bool range_is_writable(uint64_t gpa, uint64_t size)
{
    while (size) {
        hwaddr offset, length = size;

        if (!is_writable_ram(ram_at(gpa, &offset, &length)) || !length) {
            return false;
        }
        gpa += length;
        size -= length;
    }
    return true;
}

uint32_t viommu_guest_write(uint64_t gpa, const void *data, uint32_t size)
{
    RCU_READ_LOCK_GUARD();

    if (!range_is_writable(gpa, size)) {
        return CODE_NOT_RAM;
    }
    while (size) {
        hwaddr offset, length = size;
        MemoryRegion *mr = ram_at(gpa, &offset, &length);

        memcpy((uint8_t *)memory_region_get_ram_ptr(mr) + offset, data, length);
        memory_region_set_dirty(mr, offset, length);
        gpa += length;
        data = (const uint8_t *)data + length;
        size -= length;
    }
    return 0;
}

/* The word at an address, in RAM that can be written; NULL otherwise. */
static uint32_t *word_at(uint64_t gpa, MemoryRegion **mr, hwaddr *offset)
{
    hwaddr length = sizeof(uint32_t);

    *mr = ram_at(gpa, offset, &length);
    if (gpa % sizeof(uint32_t) || length < sizeof(uint32_t) || !is_writable_ram(*mr)) {
        return NULL;
    }
    return (uint32_t *)((uint8_t *)memory_region_get_ram_ptr(*mr) + *offset);
}

bool viommu_guest_can_store(uint64_t gpa)
{
    MemoryRegion *mr;
    hwaddr offset;

    RCU_READ_LOCK_GUARD();
    return word_at(gpa, &mr, &offset);
}

bool viommu_guest_store(uint64_t gpa, uint32_t value)
{
    MemoryRegion *mr;
    hwaddr offset;
    uint32_t *word;

    RCU_READ_LOCK_GUARD();
    word = word_at(gpa, &mr, &offset);
    if (!word) {
        return false;
    }
    qatomic_store_release(word, cpu_to_le32(value));
    memory_region_set_dirty(mr, offset, sizeof(uint32_t));
    return true;
}

uint32_t viommu_guest_cas(uint64_t gpa, uint32_t expected, uint32_t value,
                          uint32_t *found)
{
    MemoryRegion *mr;
    uint32_t *word, old;
    hwaddr offset;

    RCU_READ_LOCK_GUARD();
    word = word_at(gpa, &mr, &offset);
    if (!word) {
        return CODE_NOT_RAM;
    }
    old = qatomic_cmpxchg(word, cpu_to_le32(expected), cpu_to_le32(value));
    *found = le32_to_cpu(old);
    if (*found == expected) {
        memory_region_set_dirty(mr, offset, sizeof(uint32_t));
    }
    return 0;
}
