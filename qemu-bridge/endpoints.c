/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The daemon tells devices that a stalled request goes on (RESUME), that a page request
 * is answered (PAGE_RESPONSE), that they have to drop translations that they keep
 * (DEVICE_TLB). The backend thread queues the message; devices get it on the main loop. A
 * device of QEMU's own (virtio) keeps its translations through an IOMMU notifier, or
 * keeps none.
 */
#include "compat.h"
#include "backend.h"
#include "endpoint.h"
#include "endpoints.h"
#include "notify.h"
#include "requesters.h"
#include "spaces.h"
#include "viommu-core.h"
#include "wire.h"

/* A message for a device of the bridge's own, on its way to the main loop. */
typedef struct ViommuDelivery {
    uint32_t type; /* viommu_MessageType: RESUME, PAGE_RESPONSE or DEVICE_TLB */
    uint32_t id;
    union {
        viommu_Resume resume;
        viommu_PageResponse page_response;
        viommu_DeviceTlb device_tlb;
    };
    ViommuEndpoint *later; /* the one that answers this DEVICE_TLB later; big lock */
    QTAILQ_ENTRY(ViommuDelivery) next;
} ViommuDelivery;

void viommu_endpoints_init(ViommuCore *core)
{
    ViommuEndpoints *e = &core->endpoints;

    QLIST_INIT(&e->list);
    QTAILQ_INIT(&e->unanswered);
    QTAILQ_INIT(&e->queue);
    qemu_mutex_init(&e->lock);
    e->held_answers = g_array_new(false, false, sizeof(uint32_t));
}

void viommu_endpoint_attach(ViommuEndpoint *e, PCIDevice *device,
                            const ViommuEndpointOps *ops)
{
    e->ops = ops;
    e->space = viommu_requesters_find(pci_device_iommu_address_space(device));
    if (e->space) {
        QLIST_INSERT_HEAD(&e->space->core->endpoints.list, e, next);
    }
}

void viommu_endpoint_detach(ViommuEndpoint *e)
{
    if (e->space) {
        viommu_endpoint_dropped(e, VIOMMU_DROP_NO_DEVICE);
        QLIST_REMOVE(e, next);
        e->space = NULL;
    }
}

static bool has(const ViommuEndpoint *e, viommu_Feature feature)
{
    return e->space && viommu_core_has(e->space->core, feature);
}

bool viommu_endpoint_has_ats(const ViommuEndpoint *e)
{
    return has(e, viommu_Feature_FEATURE_ATS);
}

bool viommu_endpoint_has_pri(const ViommuEndpoint *e)
{
    return has(e, viommu_Feature_FEATURE_PRI);
}

bool viommu_endpoint_has_stalls(const ViommuEndpoint *e)
{
    return has(e, viommu_Feature_FEATURE_STALLS);
}

static void answer_drop(ViommuCore *core, ViommuDelivery *d, ViommuDropResult result)
{
    viommu_DeviceTlbReply reply = { .result = result };

    viommu_backend_reply(core, viommu_MessageType_DEVICE_TLB, d->id,
                         viommu_DeviceTlbReply_fields, &reply);
    g_free(d);
}

void viommu_endpoint_dropped(ViommuEndpoint *e, ViommuDropResult result)
{
    ViommuDelivery *d, *next;
    ViommuCore *core;

    if (!e->space) {
        return;
    }
    core = e->space->core;
    QTAILQ_FOREACH_SAFE(d, &core->endpoints.unanswered, next, next) {
        if (d->later == e) {
            QTAILQ_REMOVE(&core->endpoints.unanswered, d, next);
            answer_drop(core, d, result);
        }
    }
}

static ViommuEndpoint *endpoint_of(const ViommuCore *core, uint32_t rid)
{
    ViommuEndpoint *e;

    QLIST_FOREACH(e, &core->endpoints.list, next) {
        if (viommu_space_rid(e->space) == rid) {
            break;
        }
    }
    return e;
}

/* Whether the guest has switched ATS on in the function. */
static bool has_ats_on(const ViommuSpace *space)
{
    PCIDevice *device = space->bus ? space->bus->devices[space->devfn] : NULL;

    return device && device->exp.ats_cap &&
           (pci_get_word(device->config + device->exp.ats_cap + PCI_ATS_CTRL) &
            PCI_ATS_CTRL_ENABLE);
}

/*
 * IOMMU notifiers keep translations for a device. An emulated device without them keeps
 * none.
 */
static ViommuDropResult drop_of_others(ViommuCore *core, uint32_t rid,
                                       const ViommuDrop *drop)
{
    ViommuDropResult result = VIOMMU_DROP_NO_DEVICE;
    ViommuSpace *space;

    QLIST_FOREACH_RCU(space, &core->spaces, next) {
        if (viommu_space_rid(space) == rid && has_ats_on(space)) {
            result = VIOMMU_DROP_DONE;
            if (!drop->pasid_plus_1 || drop->global) {
                viommu_notify_device_tlb(space, drop->address, drop->log2_size);
            }
        }
    }
    return result;
}

static void deliver_device_tlb(ViommuCore *core, ViommuDelivery *d)
{
    const viommu_DeviceTlb *msg = &d->device_tlb;
    ViommuEndpoint *e = endpoint_of(core, msg->rid);
    ViommuDropResult result;
    ViommuDrop drop = {
        .pasid_plus_1 = msg->pasid,
        .address = viommu_u64(msg->lo, msg->hi),
        .log2_size = MAX(msg->log2_size, VIOMMU_PAGE_BITS),
        .global = msg->global,
    };

    if (drop.log2_size < 64) {
        drop.address &= ~0ull << drop.log2_size;
    }
    result = drop_of_others(core, msg->rid, &drop);
    if (e) {
        result = e->ops->drop(e, &drop);
    }
    if (result == VIOMMU_DROP_LATER) {
        d->later = e;
        QTAILQ_INSERT_TAIL(&core->endpoints.unanswered, d, next);
    } else {
        answer_drop(core, d, result);
    }
}

static void deliver_resume(ViommuCore *core, const viommu_Resume *msg)
{
    ViommuAction action = msg->action <= VIOMMU_READ_ZERO ? msg->action : VIOMMU_ABORT;
    ViommuEndpoint *e;

    QLIST_FOREACH(e, &core->endpoints.list, next) {
        if (e->ops->resume(e, msg->stall, action)) {
            return;
        }
    }
}

static void deliver_page_response(ViommuCore *core, const viommu_PageResponse *msg)
{
    ViommuEndpoint *e = endpoint_of(core, msg->rid);

    if (e) {
        e->ops->page_response(e, msg->pasid, msg->group, msg->code);
    }
}

static void deliver(ViommuCore *core, ViommuDelivery *d)
{
    switch (d->type) {
    case viommu_MessageType_DEVICE_TLB:
        deliver_device_tlb(core, d);
        return;
    case viommu_MessageType_RESUME:
        deliver_resume(core, &d->resume);
        break;
    case viommu_MessageType_PAGE_RESPONSE:
        deliver_page_response(core, &d->page_response);
        break;
    }
    g_free(d);
}

/*
 * The oldest message. NULL: there is none, and the next one schedules the main loop
 * again.
 */
static ViommuDelivery *take(ViommuEndpoints *e)
{
    ViommuDelivery *d;

    qemu_mutex_lock(&e->lock);
    d = QTAILQ_FIRST(&e->queue);
    if (d) {
        QTAILQ_REMOVE(&e->queue, d, next);
    } else {
        e->scheduled = false;
    }
    qemu_mutex_unlock(&e->lock);
    return d;
}

static void deliver_bh(void *opaque)
{
    ViommuCore *core = opaque;
    ViommuDelivery *d;

    while ((d = take(&core->endpoints))) {
        deliver(core, d);
    }
    object_unref(OBJECT(core->dev));
}

void viommu_endpoints_end_all(ViommuCore *core)
{
    ViommuEndpoint *e;
    ViommuDelivery *d;

    while ((d = take(&core->endpoints))) {
        if (d->type == viommu_MessageType_DEVICE_TLB) {
            answer_drop(core, d, VIOMMU_DROP_DONE);
        } else {
            g_free(d);
        }
    }
    QLIST_FOREACH(e, &core->endpoints.list, next) {
        e->ops->ended(e);
        viommu_endpoint_dropped(e, VIOMMU_DROP_DONE);
    }
}

static bool decode(const WireFrame *frame, ViommuDelivery *d)
{
    switch (frame->type) {
    case viommu_MessageType_RESUME:
        return viommu_wire_decode(frame, viommu_Resume_fields, &d->resume);
    case viommu_MessageType_PAGE_RESPONSE:
        return viommu_wire_decode(frame, viommu_PageResponse_fields, &d->page_response);
    default:
        return viommu_wire_decode(frame, viommu_DeviceTlb_fields, &d->device_tlb);
    }
}

bool viommu_endpoints_serve(ViommuCore *core, const WireFrame *frame)
{
    ViommuEndpoints *e = &core->endpoints;
    ViommuDelivery *d = g_new0(ViommuDelivery, 1);
    bool wake;

    d->type = frame->type;
    d->id = frame->id;
    if (!decode(frame, d)) {
        g_free(d);
        return false;
    }
    qemu_mutex_lock(&e->lock);
    QTAILQ_INSERT_TAIL(&e->queue, d, next);
    wake = !e->scheduled;
    e->scheduled = true;
    qemu_mutex_unlock(&e->lock);
    if (wake) {
        viommu_core_schedule(core, deliver_bh);
    }
    return true;
}
