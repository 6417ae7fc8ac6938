/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The devices of the bridge's own (endpoint.h) as the session sees them: messages to them, and to the notifiers of
 * others' device TLBs (endpoints.c); their requests that are under way (requests.c).
 */
#ifndef VIOMMU_ENDPOINTS_H
#define VIOMMU_ENDPOINTS_H

#include "wire.h"

typedef struct ViommuCore ViommuCore;

typedef QTAILQ_HEAD(ViommuDeliveries, ViommuDelivery) ViommuDeliveries;

/* Those behind one IOMMU. */
typedef struct ViommuEndpoints {
    QLIST_HEAD(, ViommuEndpoint) list; /* big lock */
    ViommuDeliveries unanswered;       /* big lock */

    QemuMutex lock; /* the fields below */
    ViommuDeliveries queue;
    bool scheduled;
    uint32_t under_way;   /* requests between viommu_endpoint_begin and _end */
    GArray *held_answers; /* ids of INVALIDATEs that wait for them */
} ViommuEndpoints;

void viommu_endpoints_init(ViommuCore *core);
/** Takes a RESUME, PAGE_RESPONSE or DEVICE_TLB. False: it cannot be decoded. Backend thread. */
bool viommu_endpoints_serve(ViommuCore *core, const WireFrame *frame);
/** True: the answer to this INVALIDATE follows when the requests under way have ended. Backend thread. */
bool viommu_endpoints_hold_answer(ViommuCore *core, uint32_t id);
/** Ends everything that endpoints wait for, and answers what is asked of them. Big lock. */
void viommu_endpoints_end_all(ViommuCore *core);

#endif
