/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The register window of a unit. */
#ifndef VIOMMU_REGS_H
#define VIOMMU_REGS_H

typedef struct ViommuCore ViommuCore;

/** Makes core->registers; the device puts the region where its registers are. */
void viommu_regs_init(ViommuCore *core, const char *name);

#endif
