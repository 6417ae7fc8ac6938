/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Reading and writing guest RAM. RAM only; any thread. */
#ifndef VIOMMU_GUEST_MEMORY_H
#define VIOMMU_GUEST_MEMORY_H

/** 0, or a non-zero code when some byte is not RAM. */
uint32_t viommu_guest_read(uint64_t gpa, void *data, uint32_t size);
uint32_t viommu_guest_write(uint64_t gpa, const void *data, uint32_t size);
/** Compares and swaps an aligned little-endian word; `found` is what was there. */
uint32_t viommu_guest_cas(uint64_t gpa, uint32_t expected, uint32_t value,
                          uint32_t *found);
/** Whether viommu_guest_store works there: an aligned word of RAM. */
bool viommu_guest_can_store(uint64_t gpa);
/**
 * Stores a little-endian word, whole, behind everything that was stored before. False: it
 * is not RAM.
 */
bool viommu_guest_store(uint64_t gpa, uint32_t value);
/** Aligned little-endian quadwords of RAM, each whole. rcu_read_lock held. */
bool viommu_guest_read_entries(uint64_t gpa, uint64_t *values, uint32_t count);

#endif
