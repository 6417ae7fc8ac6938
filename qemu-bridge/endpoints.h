/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The devices of the bridge's own (endpoint.h): where they come and go, and what the
 * daemon says to them and to the notifiers of others' device TLBs.
 */
#ifndef VIOMMU_ENDPOINTS_H
#define VIOMMU_ENDPOINTS_H

#include "endpoint.h"
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
    uint32_t under_way;   /* requests between viommu_request_begin and _end */
    GArray *held_answers; /* ids of INVALIDATEs that wait for them */
} ViommuEndpoints;

void viommu_endpoints_init(ViommuCore *core);
/** Serves a RESUME, PAGE_RESPONSE or DEVICE_TLB. Backend thread. */
bool viommu_endpoints_serve(ViommuCore *core, const WireFrame *frame);
/**
 * Ends everything that endpoints wait for, and answers what is asked of them. Big lock.
 */
void viommu_endpoints_end_all(ViommuCore *core);

/**
 * From a device's realize. A device that is behind no IOMMU of the bridge becomes an
 * endpoint without features.
 */
void viommu_endpoint_attach(ViommuEndpoint *e, PCIDevice *device,
                            const ViommuEndpointOps *ops);
/** From a device's exit. What was to be answered later is answered now. */
void viommu_endpoint_detach(ViommuEndpoint *e);
/** What daemon and bridge have agreed on. */
bool viommu_endpoint_has_ats(const ViommuEndpoint *e);
bool viommu_endpoint_has_pri(const ViommuEndpoint *e);
bool viommu_endpoint_has_stalls(const ViommuEndpoint *e);
/** Answers every invalidation of this device that was to be answered later. */
void viommu_endpoint_dropped(ViommuEndpoint *e, ViommuDropResult result);

#endif
