/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The device TLB of viommu-testdev. */
#ifndef VIOMMU_TESTDEV_ATC_H
#define VIOMMU_TESTDEV_ATC_H

#include "testdev.h"

void viommu_testdev_atc_flush(TestdevAtc *atc);
uint32_t viommu_testdev_atc_count(const TestdevAtc *atc);
/** The translation that contains the address and allows `access`, or NULL. */
const ViommuTranslation *viommu_testdev_atc_find(const TestdevAtc *atc,
                                                 uint32_t pasid_plus_1, uint64_t address,
                                                 uint32_t access);
void viommu_testdev_atc_insert(TestdevAtc *atc, uint32_t pasid_plus_1,
                               const ViommuTranslation *t);
void viommu_testdev_atc_drop(TestdevAtc *atc, const ViommuDrop *drop);
/** Whether an invalidation concerns a translation that was made for this PASID. */
bool viommu_testdev_atc_concerns(const ViommuDrop *drop, uint32_t pasid_plus_1,
                                 const ViommuTranslation *t);

#endif
