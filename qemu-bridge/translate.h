/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Translation of DMA: the IOMMU memory region of a requester. */
#ifndef VIOMMU_TRANSLATE_H
#define VIOMMU_TRANSLATE_H

extern const TypeInfo viommu_iommu_memory_region_type;

#endif
