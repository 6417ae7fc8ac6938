/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A device of the bridge's own, and what it may do beyond ordinary DMA: requests with a
 * PASID, requests that the IOMMU may stall, translations that the device keeps itself
 * (PCI Express ATS) and page requests (PRI). endpoints.h has the device's life,
 * requests.h its requests.
 *
 * Everything happens on the main loop with the big lock held, the callbacks too. A device
 * that is not behind an IOMMU of the bridge has no features, and must not ask.
 */
#ifndef VIOMMU_ENDPOINT_H
#define VIOMMU_ENDPOINT_H

#include "iotlb.h"

typedef struct ViommuSpace ViommuSpace;
typedef struct ViommuEndpoint ViommuEndpoint;

/* As on the wire (Translate.kind). */
typedef enum ViommuKind {
    VIOMMU_UNTRANSLATED = 0,
    VIOMMU_TRANSLATION_REQUEST = 1,
    VIOMMU_TRANSLATED = 2,
} ViommuKind;

typedef struct ViommuRequest {
    uint64_t address;
    uint32_t pasid_plus_1; /* 0 = without PASID */
    uint32_t access;       /* IOTLB_READ, IOTLB_WRITE; 0 = records no fault */
    uint32_t size;         /* bytes; 0 = not known */
    ViommuKind kind;
    bool may_stall;
} ViommuRequest;

/* As on the wire (TranslateReply.status), and what the wire cannot say. */
typedef enum ViommuOutcome {
    VIOMMU_TRANSLATION = 0,
    VIOMMU_REFUSED = 1,         /* to a translation request: Unsupported Request */
    VIOMMU_STALLED = 2,
    VIOMMU_COMPLETER_ABORT = 3,
    VIOMMU_GONE,                /* no daemon */
} ViommuOutcome;

/* What an answer to a translation request says beside IOTLB_READ and IOTLB_WRITE. */
#define VIOMMU_GLOBAL 16u
#define VIOMMU_UNTRANSLATED_ONLY 32u

/* The block that contains the address asked for; with VIOMMU_STALLED only `stall`. */
typedef struct ViommuTranslation {
    uint64_t input;
    uint64_t output;
    uint32_t log2_size; /* 12 … 64 */
    uint32_t access;
    uint32_t stall;
} ViommuTranslation;

/* An ATS invalidation request. */
typedef struct ViommuDrop {
    uint32_t pasid_plus_1;
    uint64_t address;   /* aligned to the size */
    uint32_t log2_size; /* 64 and above: all addresses */
    bool global;        /* whatever the PASID */
} ViommuDrop;

/* As on the wire (DeviceTlbReply.result, Resume.action). */
typedef enum ViommuDropResult {
    VIOMMU_DROP_DONE = 0,
    VIOMMU_DROP_TIMEOUT = 1,
    VIOMMU_DROP_NO_DEVICE = 2,
    VIOMMU_DROP_LATER, /* viommu_endpoint_dropped follows */
} ViommuDropResult;

typedef enum ViommuAction {
    VIOMMU_RETRY = 0,
    VIOMMU_ABORT = 1,
    VIOMMU_READ_ZERO = 2
} ViommuAction;

/* Codes of a page response, as PCI Express numbers them. */
#define VIOMMU_PAGE_SUCCESS 0u
#define VIOMMU_PAGE_INVALID 1u
#define VIOMMU_PAGE_FAILURE 15u

typedef struct ViommuEndpointOps {
    /*
     * Drops translations; the answer is "done" when no request that used them is under
     * way.
     */
    ViommuDropResult (*drop)(ViommuEndpoint *e, const ViommuDrop *drop);
    void (*page_response)(ViommuEndpoint *e, uint32_t pasid_plus_1, uint32_t group,
                          uint32_t code);
    /* True: the stalled request was this device's. */
    bool (*resume)(ViommuEndpoint *e, uint32_t stall, ViommuAction action);
    /*
     * The IOMMU was reset, or its daemon is gone: nothing that is waited for will come,
     * and nothing that is kept is valid.
     */
    void (*ended)(ViommuEndpoint *e);
} ViommuEndpointOps;

struct ViommuEndpoint {
    const ViommuEndpointOps *ops;
    ViommuSpace *space; /* NULL: not behind an IOMMU of the bridge */
    QLIST_ENTRY(ViommuEndpoint) next;
};

#endif
