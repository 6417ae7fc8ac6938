/*
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Guest RAM and registers as a vCPU reaches them: each access to a register is one under the BQL.
 */
#ifndef VIOMMU_BENCH_GUEST_ACCESS_H
#define VIOMMU_BENCH_GUEST_ACCESS_H

#include "qemu/main-loop.h"
#include "exec/address-spaces.h"
#include "exec/memory.h"

static inline void guest_store(uint64_t address, uint64_t value, int size)
{
    address_space_write(&address_space_memory, address, MEMTXATTRS_UNSPECIFIED, &value, size);
}

static inline uint64_t guest_load(uint64_t address, int size)
{
    uint64_t value = 0;

    address_space_read(&address_space_memory, address, MEMTXATTRS_UNSPECIFIED, &value, size);
    return value;
}

static inline void guest_write(uint64_t address, uint64_t value, int size)
{
    bql_lock();
    guest_store(address, value, size);
    bql_unlock();
}

static inline uint64_t guest_read(uint64_t address, int size)
{
    bql_lock();
    uint64_t value = guest_load(address, size);
    bql_unlock();
    return value;
}

/* Polls a register for five seconds at most. */
static inline bool guest_wait(uint64_t address, int size, uint64_t mask, uint64_t value)
{
    int64_t deadline = g_get_monotonic_time() + 5 * G_TIME_SPAN_SECOND;

    while ((guest_read(address, size) & mask) != value) {
        if (g_get_monotonic_time() > deadline) {
            return false;
        }
    }
    return true;
}

#endif
