/*
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What a guest driver would have done: tables in guest RAM and the unit switched on. VT-d: legacy-mode tables.
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

/* Builds the tables for one requester and switches translation on. Without the BQL. NULL or a complaint. */
const char *guest_tables_build(uint16_t rid, int levels);

/* Invalidates the whole IOTLB through the registers and waits for the unit to say so. Without the BQL. */
void guest_invalidate_all(void);

/* Reads a register of the unit. Without the BQL. */
uint64_t guest_read_register(int offset, int size);

#endif
