/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Transfers of viommu-testdev. */
#ifndef VIOMMU_TESTDEV_DMA_H
#define VIOMMU_TESTDEV_DMA_H

#include "testdev.h"

extern const ViommuEndpointOps viommu_testdev_endpoint_ops;

/**
 * Goes on with a command that moves data or asks for pages, until it has ended or waits.
 */
void viommu_testdev_run(ViommuTestdev *d);

#endif
