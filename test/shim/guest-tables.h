/*
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What a guest driver would have done: tables in guest RAM and the unit switched on. VT-d:
 * legacy-mode tables.
 */
#ifndef VIOMMU_BENCH_GUEST_TABLES_H
#define VIOMMU_BENCH_GUEST_TABLES_H

/* Consecutive pages in one leaf table whose outputs are shuffled, so that no two can be merged. */
#define DENSE_IOVA 0x40000000ull
#define DENSE_PAGES 512

/* Pages that are each alone in their leaf table: a walk finds nothing worth keeping beside them. */
#define SPARSE_IOVA 0x4000000000ull
#define SPARSE_STRIDE 0x200000ull
#define SPARSE_PAGES 1024

/*
 * Builds the tables for one requester and switches translation on. Without the BQL. NULL or a
 * complaint.
 */
const char *guest_tables_build(uint16_t rid, int levels);

/*
 * VT-d only. The same for one requester through whose tables `gib` GiB of RAM are mapped in pages
 * of 4 KiB from RAM_IOVA on (none: tables with nothing in them): in order, or with `scattered` so
 * that no two neighbours can be joined. Replaces what an earlier call has mapped there and leaves
 * it to the caller to invalidate. Without the BQL. NULL or a complaint.
 */
#define RAM_IOVA 0x4000000000ull
/* The machine has to have one GiB more. */
#define RAM_GIB_AT_MOST 16
const char *guest_tables_map_ram(uint16_t rid, int gib, bool scattered);

/*
 * VT-d only. Unmaps the first page of what guest_tables_map_ram has mapped, or maps it again, and
 * invalidates it.
 */
void guest_change_ram_page(bool mapped);

/* VT-d only. Invalidates the IOTLB for the one domain there is. Without the BQL. */
void guest_invalidate_domain(void);

/*
 * Invalidates the whole IOTLB through the registers and waits for the unit to say so. Without the
 * BQL.
 */
void guest_invalidate_all(void);

/*
 * Invalidates one page by the queue, as a driver in strict mode does: by page-selective IOTLB
 * invalidation and invalidation wait, or CMD_TLBI_NH_VA and CMD_SYNC. False when it is not complete
 * in five seconds. The queue is switched on before and off after, since the other functions go by
 * registers where a unit has those. All without the BQL.
 */
const char *guest_use_queue(bool on);
bool guest_invalidate_page(uint64_t iova);

/* Reads a register of the unit. Without the BQL. */
uint64_t guest_read_register(int offset, int size);

#endif
