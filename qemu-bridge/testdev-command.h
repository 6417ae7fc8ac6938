/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A command of viommu-testdev: what it needs, and how it ends. */
#ifndef VIOMMU_TESTDEV_COMMAND_H
#define VIOMMU_TESTDEV_COMMAND_H

#include "testdev.h"

/**
 * What has to be switched on for the command that the registers describe. FEATURE bits.
 */
uint32_t viommu_testdev_needs(const ViommuTestdev *d, uint32_t command);
/** Lets go of what BEHAVIOUR no longer holds back. */
void viommu_testdev_settle(ViommuTestdev *d);
/** The command is over: counts, interrupts. */
void viommu_testdev_complete(ViommuTestdev *d, uint32_t status);
/** Ends the command that is under way, if there is one, as a fault. */
void viommu_testdev_abandon(ViommuTestdev *d, uint32_t result);

#endif
