/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef VIOMMU_VTD_H
#define VIOMMU_VTD_H

extern const TypeInfo viommu_vtd_type;

#endif
