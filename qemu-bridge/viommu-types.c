/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "compat.h"
#include "qemu/module.h"
#include "testdev.h"
#include "translate.h"
#include "viommu-types.h"
#ifdef VIOMMU_HAVE_SMMUV3
#include "viommu-smmuv3.h"
#endif
#ifdef VIOMMU_HAVE_VTD
#include "viommu-vtd.h"
#endif

void viommu_register_types(void)
{
    type_register_static(&viommu_iommu_memory_region_type);
    type_register_static(&viommu_testdev_type);
#ifdef VIOMMU_HAVE_VTD
    type_register_static(&viommu_vtd_type);
#endif
#ifdef VIOMMU_HAVE_SMMUV3
    type_register_static(&viommu_smmuv3_type);
#endif
}

#ifndef VIOMMU_PRELOAD
type_init(viommu_register_types)
#endif
