/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The daemon's table of guest RAM (MEM_ADD, MEM_REMOVE). Big lock. */
#ifndef VIOMMU_MEMORY_TABLE_H
#define VIOMMU_MEMORY_TABLE_H

typedef struct ViommuCore ViommuCore;

/* A piece of RAM in the table. Big lock, or host_lock to look. */
typedef struct ViommuRegion {
    uint32_t id;
    MemoryRegion *mr;
    uint64_t gpa;
    uint64_t size;
    uint64_t offset;
    bool readonly;
    QTAILQ_ENTRY(ViommuRegion) next;
} ViommuRegion;

void viommu_memory_table_start(ViommuCore *core);
void viommu_memory_table_stop(ViommuCore *core);

#endif
