/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Answers to TRACK, which wait for vCPUs. Big lock. */
#ifndef VIOMMU_TRACK_ANSWERS_H
#define VIOMMU_TRACK_ANSWERS_H

typedef struct ViommuCore ViommuCore;

/** Answers the TRACK when every vCPU has heard of the change, which may be now. */
void viommu_track_answers_add(ViommuCore *core, uint32_t id);
/** Answers what waits, if no vCPU is in the middle of something. False: one is. */
bool viommu_track_answers_give(ViommuCore *core);

#endif
