/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Overlays over tracked RAM, which bring vCPUs' stores to us. Big lock. */
#ifndef VIOMMU_OVERLAYS_H
#define VIOMMU_OVERLAYS_H

typedef struct ViommuCore ViommuCore;

/**
 * Makes the overlays what tracked pages and today's RAM ask for, in one memory
 * transaction.
 */
void viommu_overlays_apply(ViommuCore *core);

#endif
