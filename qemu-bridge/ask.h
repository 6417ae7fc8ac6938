/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A translation that the daemon is asked for (TRANSLATE). Any thread. */
#ifndef VIOMMU_ASK_H
#define VIOMMU_ASK_H

#include "endpoint.h"
#include "wire.h"

typedef struct ViommuSpace ViommuSpace;

/* The answer, on the stack of the thread that asked. */
typedef struct ViommuAnswer {
    viommu_TranslateReply reply;
    uint32_t own; /* newest of ViommuCore.own when it was asked for */
    WireSpans spans;
} ViommuAnswer;

/**
 * False: the daemon is gone. `rid` is the requester id that the request was sent with.
 */
bool viommu_ask(ViommuSpace *space, const ViommuRequest *request, ViommuAnswer *answer,
                uint16_t *rid);
/** Whether an answer is about this address, and lets all of `access` through. */
bool viommu_ask_allows(const ViommuAnswer *answer, uint64_t address, uint32_t access);

#endif
