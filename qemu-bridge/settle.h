/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Waiting until host mappings are what the guest's tables say (HOST_SETTLE). */
#ifndef VIOMMU_SETTLE_H
#define VIOMMU_SETTLE_H

typedef struct ViommuCore ViommuCore;

/**
 * Returns when host mappings are what the guest's tables say. The caller waits, and runs
 * the notices that are needed for it. False: everything is done except TRACKs that vCPUs
 * have to hear of; when they have, the daemon looks again. Big lock, without front.lock.
 */
bool viommu_settle(ViommuCore *core);
/** The same for everything that completions wait for, with or without such mappings. */
bool viommu_settle_all(ViommuCore *core);

#endif
