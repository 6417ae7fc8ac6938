/*
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Register offsets and bits: VT-d specification, chapter 11; structures: chapter 9.
 */
#include "qemu/osdep.h"

#include "guest-access.h"
#include "guest-tables.h"

#define UNIT 0xfed90000ull /* where the q35 machine puts its remapping unit */
#define ECAP 0x10
#define GCMD 0x18
#define GSTS 0x1c
#define RTADDR 0x20
#define CCMD 0x28

/* Guest RAM used; nothing runs there under -S. */
#define ROOT_TABLE 0x2000000ull
#define CONTEXT_TABLE 0x2001000ull
#define TABLE_4 0x2002000ull
#define TABLE_3 0x2003000ull
#define TABLE_2_DENSE 0x2005000ull
#define TABLE_1_DENSE 0x2006000ull
#define TABLE_2_SPARSE 0x2008000ull /* two of them: 1024 leaf tables */
#define TABLE_1_SPARSE 0x2100000ull
#define OUTPUT 0x4000000ull

static uint64_t iotlb_register;

static void write_register(int offset, uint64_t value, int size)
{
    guest_write(UNIT + offset, value, size);
}

static bool wait_for(int offset, int size, uint64_t mask, uint64_t value)
{
    return guest_wait(UNIT + offset, size, mask, value);
}

uint64_t guest_read_register(int offset, int size)
{
    return guest_read(UNIT + offset, size);
}

static void entry(uint64_t table, unsigned index, uint64_t value)
{
    guest_store(table + index * 8, value | 3, 8);
}

/* Second-stage tables: R and W at every level. */
static void build_stage(void)
{
    entry(TABLE_4, 0, TABLE_3); /* both regions lie below 512 GiB */
    entry(TABLE_3, (DENSE_IOVA >> 30) & 511, TABLE_2_DENSE);
    entry(TABLE_2_DENSE, (DENSE_IOVA >> 21) & 511, TABLE_1_DENSE);
    for (unsigned i = 0; i < DENSE_PAGES; i++) {
        entry(TABLE_1_DENSE, i, OUTPUT + (uint64_t)(i * 37 % DENSE_PAGES) * 4096);
    }
    for (unsigned i = 0; i < SPARSE_PAGES; i++) {
        uint64_t iova = SPARSE_IOVA + i * SPARSE_STRIDE;
        uint64_t leaf = TABLE_1_SPARSE + (uint64_t)i * 4096;
        uint64_t middle = TABLE_2_SPARSE + (uint64_t)(i / 512) * 4096;

        entry(TABLE_3, (iova >> 30) & 511, middle);
        entry(middle, (iova >> 21) & 511, leaf);
        entry(leaf, (iova >> 12) & 511, OUTPUT + (uint64_t)(i * 37 % SPARSE_PAGES) * 4096);
    }
}

const char *guest_tables_build(uint16_t rid, int levels)
{
    uint64_t top = levels == 4 ? TABLE_4 : TABLE_3;

    if (levels != 3 && levels != 4) {
        return "levels must be 3 or 4";
    }
    bql_lock();
    build_stage();
    guest_store(ROOT_TABLE + (rid >> 8) * 16, CONTEXT_TABLE | 1, 8);
    guest_store(CONTEXT_TABLE + (rid & 0xff) * 16, top | 1, 8);
    /* AW: 1 = 3 levels, 2 = 4 levels; domain 1. */
    guest_store(CONTEXT_TABLE + (rid & 0xff) * 16 + 8, (levels - 2) | 1 << 8, 8);
    bql_unlock();

    iotlb_register = ((guest_read_register(ECAP, 8) >> 8) & 0x3ff) * 16 + 8;
    write_register(RTADDR, ROOT_TABLE, 8);
    write_register(GCMD, 1u << 30, 4);
    if (!wait_for(GSTS, 4, 1u << 30, 1u << 30)) {
        return "the unit did not take the root table";
    }
    write_register(CCMD, 1ull << 63 | 1ull << 61, 8);
    if (!wait_for(CCMD, 8, 1ull << 63, 0)) {
        return "the context cache was not invalidated";
    }
    guest_invalidate_all();
    write_register(GCMD, 1u << 31, 4);
    if (!wait_for(GSTS, 4, 1u << 31, 1u << 31)) {
        return "translation was not enabled";
    }
    return NULL;
}

void guest_invalidate_all(void)
{
    write_register(iotlb_register, 1ull << 63 | 1ull << 60, 8);
    wait_for(iotlb_register, 8, 1ull << 63, 0);
}
