/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Requests of the bridge's own devices (endpoint.h). Big lock, unless it says otherwise.
 */
#ifndef VIOMMU_REQUESTS_H
#define VIOMMU_REQUESTS_H

#include "endpoint.h"

typedef struct ViommuCore ViommuCore;

/**
 * Around a translation and the accesses that use it: an invalidation that comes in
 * between is answered at the end. Nothing may be waited for in between but the daemon's
 * answer.
 */
void viommu_request_begin(ViommuEndpoint *e);
void viommu_request_end(ViommuEndpoint *e);
/** Asks the daemon; the bridge's cache is neither looked at nor filled. */
ViommuOutcome viommu_request_translation(ViommuEndpoint *e, const ViommuRequest *request,
                                         ViommuTranslation *t);
/**
 * Sends a Page Request Message; access 0 with `last` is a Stop Marker. False: no daemon.
 */
bool viommu_request_page(ViommuEndpoint *e, uint32_t pasid_plus_1, uint32_t access,
                         uint64_t address, uint32_t group, bool last);
/**
 * True: the answer to this INVALIDATE follows when the requests in flight have ended.
 * Backend thread.
 */
bool viommu_requests_hold_answer(ViommuCore *core, uint32_t id);

#endif
