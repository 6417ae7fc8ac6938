/*
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The same for an Arm SMMUv3 of the virt machine: a linear stream table, one context descriptor,
 * stage-1 tables with
 * 4 KiB granule. Registers: IHI 0070, chapter 6; structures: chapter 5; commands: chapter 4.
 */
#include "qemu/osdep.h"

#include "guest-access.h"
#include "guest-tables.h"

#define UNIT 0x09050000ull /* where the virt machine has its SMMU */
#define CR0 (UNIT + 0x20)
#define CR0ACK (UNIT + 0x24)
#define STRTAB_BASE (UNIT + 0x80)
#define STRTAB_BASE_CFG (UNIT + 0x88)
#define CMDQ_BASE (UNIT + 0x90)
#define CMDQ_PROD (UNIT + 0x98)
#define CMDQ_CONS (UNIT + 0x9c)

#define CR0_SMMUEN 1u
#define CR0_CMDQEN 8u

/* Guest RAM used; nothing runs there under -S. */
#define RAM 0x40000000ull
#define STREAM_TABLE (RAM + 0x2000000ull)
#define CONTEXT (RAM + 0x2010000ull)
#define COMMANDS (RAM + 0x2020000ull)
#define TABLE_0 (RAM + 0x2030000ull)
#define TABLE_1 (RAM + 0x2031000ull)
#define TABLE_2_DENSE (RAM + 0x2032000ull)
#define TABLE_3_DENSE (RAM + 0x2033000ull)
#define TABLE_2_SPARSE (RAM + 0x2034000ull) /* two of them: 1024 leaf tables */
#define TABLE_3_SPARSE (RAM + 0x2100000ull)
#define OUTPUT (RAM + 0x4000000ull)

#define STREAMS_LOG2 8
#define STREAM_BYTES 64
#define COMMANDS_LOG2 8
#define COMMAND_BYTES 16

#define CMD_CFGI_ALL 0x04u /* CMD_CFGI_STE_RANGE with Range 31 */
#define CMD_TLBI_NH_VA 0x12u
#define CMD_TLBI_NSNH_ALL 0x30u
#define CMD_SYNC 0x46u

/* Of the one context descriptor. */
#define ASID 1ull
#define COMMAND_ASID (ASID << 48)
#define LEAF 1ull

/* Valid, a table or a page; AF, inner shareable, AP 0b01, nG as Linux sets it. */
#define TABLE 3ull
#define PAGE (3ull | 1ull << 11 | 1ull << 10 | 3ull << 8 | 1ull << 6)

/* Of CMDQ_PROD: index and wrap bit. */
static uint32_t produced;

static void entry(uint64_t table, unsigned index, uint64_t value)
{
    guest_store(table + index * 8, value, 8);
}

static void build_stage(void)
{
    entry(TABLE_0, 0, TABLE_1 | TABLE); /* both regions lie below 512 GiB */
    entry(TABLE_1, (DENSE_IOVA >> 30) & 511, TABLE_2_DENSE | TABLE);
    entry(TABLE_2_DENSE, (DENSE_IOVA >> 21) & 511, TABLE_3_DENSE | TABLE);
    for (unsigned i = 0; i < DENSE_PAGES; i++) {
        entry(TABLE_3_DENSE, i, (OUTPUT + (uint64_t)(i * 37 % DENSE_PAGES) * 4096) | PAGE);
    }
    for (unsigned i = 0; i < SPARSE_PAGES; i++) {
        uint64_t iova = SPARSE_IOVA + i * SPARSE_STRIDE;
        uint64_t leaf = TABLE_3_SPARSE + (uint64_t)i * 4096;
        uint64_t middle = TABLE_2_SPARSE + (uint64_t)(i / 512) * 4096;

        entry(TABLE_1, (iova >> 30) & 511, middle | TABLE);
        entry(middle, (iova >> 21) & 511, leaf | TABLE);
        entry(leaf, (iova >> 12) & 511, (OUTPUT + (uint64_t)(i * 37 % SPARSE_PAGES) * 4096) | PAGE);
    }
}

/*
 * STE: V, Config 0b101. CD: T0SZ 16, EPD1, V, IPS 40 bits, AA64, R, A, ASET, ASID; MAIR is of no
 * account.
 */
static void build_stream(uint16_t rid)
{
    uint64_t ste = STREAM_TABLE + (uint64_t)rid * STREAM_BYTES;

    guest_store(ste, CONTEXT | 5u << 1 | 1u, 8);
    guest_store(CONTEXT, 16ull | 1ull << 30 | 1ull << 31 | 2ull << 32 | 1ull << 41 | 1ull << 45 | 1ull << 46 |
                1ull << 47 | ASID << 48, 8);
    guest_store(CONTEXT + 8, TABLE_0, 8);
}

static void command(uint64_t first, uint64_t second)
{
    uint64_t slot = COMMANDS + (uint64_t)(produced & ((1u << COMMANDS_LOG2) - 1)) * COMMAND_BYTES;

    guest_store(slot, first, 8);
    guest_store(slot + 8, second, 8);
    produced = (produced + 1) & ((2u << COMMANDS_LOG2) - 1);
}

/* Rings the doorbell and waits until everything has been consumed. */
static bool consume(void)
{
    guest_write(CMDQ_PROD, produced, 4);
    return guest_wait(CMDQ_CONS, 4, 0xffffffffu, produced);
}

static bool enable(uint32_t bits)
{
    guest_write(CR0, bits, 4);
    return guest_wait(CR0ACK, 4, 0xffffffffu, bits);
}

const char *guest_tables_build(uint16_t rid, int levels)
{
    if (levels != 4 || rid >> STREAMS_LOG2) {
        return "levels must be 4, and the requester on bus 0";
    }
    bql_lock();
    build_stage();
    build_stream(rid);
    bql_unlock();
    produced = 0;
    guest_write(STRTAB_BASE, STREAM_TABLE, 8);
    guest_write(STRTAB_BASE_CFG, STREAMS_LOG2, 4);
    guest_write(CMDQ_BASE, COMMANDS | COMMANDS_LOG2, 8);
    guest_write(CMDQ_PROD, 0, 4);
    guest_write(CMDQ_CONS, 0, 4);
    if (!enable(CR0_CMDQEN)) {
        return "the command queue was not enabled";
    }
    command(CMD_CFGI_ALL, 31);
    command(CMD_TLBI_NSNH_ALL, 0);
    command(CMD_SYNC, 0);
    if (!consume()) {
        return "the configuration cache was not invalidated";
    }
    return enable(CR0_CMDQEN | CR0_SMMUEN) ? NULL : "translation was not enabled";
}

void guest_invalidate_all(void)
{
    command(CMD_TLBI_NSNH_ALL, 0);
    command(CMD_SYNC, 0);
    consume();
}

/* The queue is how this unit is told of everything. */
const char *guest_use_queue(bool on)
{
    return NULL;
}

bool guest_invalidate_page(uint64_t iova)
{
    command(CMD_TLBI_NH_VA | COMMAND_ASID, iova | LEAF);
    command(CMD_SYNC, 0);
    return consume();
}

uint64_t guest_read_register(int offset, int size)
{
    return guest_read(UNIT + offset, size);
}
