/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The range of addresses that a unit takes for interrupts. */
#ifndef VIOMMU_INTERRUPT_RANGE_H
#define VIOMMU_INTERRUPT_RANGE_H

typedef struct ViommuCore ViommuCore;
typedef struct ViommuSpace ViommuSpace;

/**
 * Lays the range over a requester's address space, if the unit has one (msi_size). Big
 * lock.
 */
void viommu_interrupt_range_cover(ViommuSpace *space, const char *name);
/**
 * The address space that the machine's IOxAPIC writes its messages to, with its
 * source-id. Once; big lock.
 */
AddressSpace *viommu_interrupt_range_of_ioapic(ViommuCore *core, uint16_t source);

#endif
