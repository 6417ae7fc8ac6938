/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The requesters behind an IOMMU: their address spaces come, and they go. Big lock. */
#ifndef VIOMMU_REQUESTERS_H
#define VIOMMU_REQUESTERS_H

typedef struct ViommuCore ViommuCore;
typedef struct ViommuSpace ViommuSpace;

bool viommu_requesters_start(ViommuCore *core, Error **errp);
void viommu_requesters_stop(ViommuCore *core);
/** The address space of a requester, made at the first call. */
ViommuSpace *viommu_requesters_get(ViommuCore *core, PCIBus *bus, int devfn);
/**
 * The requester that this address space is of, behind any IOMMU of the bridge; or NULL.
 */
ViommuSpace *viommu_requesters_find(const AddressSpace *as);

#endif
