/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef VIOMMU_SMMUV3_H
#define VIOMMU_SMMUV3_H

extern const TypeInfo viommu_smmuv3_type;

#endif
