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
#define IQT 0x88
#define IQA 0x90

#define TE (1u << 31)
#define QIE (1u << 26)

/* Guest RAM used; nothing runs there under -S. */
#define ROOT_TABLE 0x2000000ull
#define CONTEXT_TABLE 0x2001000ull
#define TABLE_4 0x2002000ull
#define TABLE_3 0x2003000ull
#define TABLE_2_DENSE 0x2005000ull
#define TABLE_1_DENSE 0x2006000ull
#define TABLE_2_SPARSE 0x2008000ull /* two of them: 1024 leaf tables */
#define TABLE_1_SPARSE 0x2100000ull
#define QUEUE 0x2010000ull /* 256 descriptors of 16 bytes */
#define STATUS 0x2011000ull
#define OUTPUT 0x4000000ull
/* Of guest_tables_map_ram. */
#define RAM_TABLES_3 0x2003000ull
#define RAM_TABLES_2 0x3000000ull /* one for each GiB */
#define RAM_TABLES 0x4000000ull   /* 512 for each GiB */
#define SCATTER 1664525ull

/* The q35 machine has 2 GiB of its RAM below 4 GiB where it does not fit there as a whole. */
#define LOW_RAM (2ull << 30)
#define HIGH_RAM (4ull << 30)

#define DOMAIN 1ull

#define QUEUE_BYTES 4096
#define DESCRIPTOR_BYTES 16
/*
 * Page-selective invalidation of the IOTLB: AM is 0. An invalidation wait that writes its status.
 */
#define IOTLB_PAGE (DOMAIN << 16 | 3u << 4 | 2u)
#define WAIT_STATUS (1u << 5 | 5u)

static uint64_t iotlb_register;
/* As IQT has it: the offset of the next descriptor. */
static uint32_t queue_tail;
static uint32_t status;

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

/* Points the unit at the tables of one requester and switches translation on. */
static const char *enable(uint16_t rid, uint64_t top, int levels)
{
    bql_lock();
    guest_store(ROOT_TABLE + (rid >> 8) * 16, CONTEXT_TABLE | 1, 8);
    guest_store(CONTEXT_TABLE + (rid & 0xff) * 16, top | 1, 8);
    /* AW: 1 = 3 levels, 2 = 4 levels. */
    guest_store(CONTEXT_TABLE + (rid & 0xff) * 16 + 8, (levels - 2) | DOMAIN << 8, 8);
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
    write_register(GCMD, TE, 4);
    if (!wait_for(GSTS, 4, TE, TE)) {
        return "translation was not enabled";
    }
    return NULL;
}

const char *guest_tables_build(uint16_t rid, int levels)
{
    if (levels != 3 && levels != 4) {
        return "levels must be 3 or 4";
    }
    bql_lock();
    build_stage();
    bql_unlock();
    return enable(rid, levels == 4 ? TABLE_4 : TABLE_3, levels);
}

/*
 * Where the machine has put a page of its RAM, counted from 1 GiB: the first has holes, and the
 * tables.
 */
static uint64_t ram_page(uint64_t page)
{
    uint64_t at = (1ull << 30) + page * 4096;

    return at < LOW_RAM ? at : at - LOW_RAM + HIGH_RAM;
}

const char *guest_tables_map_ram(uint16_t rid, int gib, bool scattered)
{
    const uint64_t leaf_tables = (uint64_t)gib * 512;
    bool begun = guest_load(TABLE_4, 8) != 0;
    uint64_t entries[512], page = 0;

    if (gib < 0 || gib > RAM_GIB_AT_MOST) {
        return "that much RAM is not mapped";
    }
    bql_lock();
    for (uint64_t i = 0; i < leaf_tables; i++) {
        for (int at = 0; at < 512; at++, page++) {
            /* An odd factor: every page once. */
            uint64_t shown = scattered ? page * SCATTER % (leaf_tables * 512) : page;

            entries[at] = cpu_to_le64(ram_page(shown) | 3);
        }
        address_space_write(&address_space_memory, RAM_TABLES + i * 4096, MEMTXATTRS_UNSPECIFIED, entries,
                            sizeof(entries));
        entry(RAM_TABLES_2, i, RAM_TABLES + i * 4096);
    }
    for (int i = 0; i < RAM_GIB_AT_MOST; i++) {
        guest_store(RAM_TABLES_3 + ((RAM_IOVA >> 30) + i) * 8, i < gib ? (RAM_TABLES_2 + i * 4096) | 3 : 0, 8);
    }
    entry(TABLE_4, 0, RAM_TABLES_3);
    bql_unlock();
    return begun ? NULL : enable(rid, TABLE_4, 4);
}

void guest_change_ram_page(bool mapped)
{
    bql_lock();
    guest_store(RAM_TABLES, mapped ? ram_page(0) | 3 : 0, 8);
    bql_unlock();
    write_register(iotlb_register - 8, RAM_IOVA, 8);
    write_register(iotlb_register, 1ull << 63 | 3ull << 60 | DOMAIN << 32, 8);
    wait_for(iotlb_register, 8, 1ull << 63, 0);
}

void guest_invalidate_domain(void)
{
    write_register(iotlb_register, 1ull << 63 | 2ull << 60 | DOMAIN << 32, 8);
    wait_for(iotlb_register, 8, 1ull << 63, 0);
}

void guest_invalidate_all(void)
{
    write_register(iotlb_register, 1ull << 63 | 1ull << 60, 8);
    wait_for(iotlb_register, 8, 1ull << 63, 0);
}

/* Registers that invalidate are not to be used while the queue is on. */
const char *guest_use_queue(bool on)
{
    if (on) {
        queue_tail = 0;
        write_register(IQT, 0, 8);
        write_register(IQA, QUEUE, 8);
    }
    write_register(GCMD, TE | (on ? QIE : 0), 4);
    if (!wait_for(GSTS, 4, QIE, on ? QIE : 0)) {
        return "the invalidation queue was not switched";
    }
    return NULL;
}

static void queue(uint64_t low, uint64_t high)
{
    guest_store(QUEUE + queue_tail, low, 8);
    guest_store(QUEUE + queue_tail + 8, high, 8);
    queue_tail = (queue_tail + DESCRIPTOR_BYTES) % QUEUE_BYTES;
}

bool guest_invalidate_page(uint64_t iova)
{
    int64_t deadline = g_get_monotonic_time() + 5 * G_TIME_SPAN_SECOND;

    queue(IOTLB_PAGE, iova);
    queue(WAIT_STATUS | (uint64_t)++status << 32, STATUS);
    write_register(IQT, queue_tail, 8);
    /* A guest looks into its memory, which takes no lock. */
    while ((uint32_t)guest_load(STATUS, 4) != status) {
        if (g_get_monotonic_time() > deadline) {
            return false;
        }
    }
    return true;
}
