/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Notifiers hear of every invalidation that concerns them as UNMAP of aligned
 * power-of-two blocks. Those for MAP events then hear of what is mapped there, which the
 * daemon enumerates (REPLAY).
 */
#include "compat.h"
#include "system/dma.h"
#include "front.h"
#include "iotlb.h"
#include "memory-table.h"
#include "notify.h"
#include "spaces.h"
#include "viommu-core.h"
#include "wire.h"

/*
 * A larger block covers more than RAM (pass-through, most often): RAM regions are
 * reported one by one.
 */
#define MAX_PLAIN_BITS 30

typedef struct Interval {
    uint64_t first;
    uint64_t last;
} Interval;

static bool intersect(Interval *r, uint64_t first, uint64_t last)
{
    r->first = MAX(r->first, first);
    r->last = MIN(r->last, last);
    return r->first <= r->last;
}

static uint64_t last_of_block(uint64_t first, uint32_t log2_size)
{
    return log2_size >= 64 ? UINT64_MAX : first | ((1ull << log2_size) - 1);
}

/* The part of a notifier's range that the input addresses of this IOMMU reach. */
static bool notifier_range(const ViommuSpace *space, const IOMMUNotifier *n, Interval *r)
{
    *r = (Interval) { n->start, n->end };
    return intersect(r, 0, last_of_block(0, space->core->aw_bits));
}

static void emit(ViommuSpace *space, IOMMUNotifier *n, IOMMUNotifierFlag type, Interval r,
                 uint64_t translated, IOMMUAccessFlags perm)
{
    uint64_t first = r.first;

    for (;;) {
        IOMMUTLBEvent event = { .type = type };
        /* The whole of 64 bits has a size that no event can say: two halves. */
        uint64_t mask = dma_aligned_pow2_mask(first, r.last,
                                              MIN(space->core->aw_bits, 63));

        event.entry.target_as = &address_space_memory;
        event.entry.iova = first;
        event.entry.translated_addr = type == IOMMU_NOTIFIER_MAP ?
                                          translated + (first - r.first) :
                                          0;
        event.entry.addr_mask = mask;
        event.entry.perm = perm;
        memory_region_notify_iommu_one(n, &event);
        if (r.last - first <= mask) {
            return;
        }
        first += mask + 1;
    }
}

static void unmap_range(ViommuSpace *space, IOMMUNotifier *n, uint64_t first,
                        uint64_t last)
{
    Interval r;

    if (notifier_range(space, n, &r) && intersect(&r, first, last)) {
        emit(space, n, IOMMU_NOTIFIER_UNMAP, r, 0, IOMMU_NONE);
    }
}

/*
 * Both are aligned to the span, so pieces of the one are aligned like pieces of the
 * other.
 */
static void map_span(ViommuSpace *space, IOMMUNotifier *n, Interval r, const uint32_t *w)
{
    uint64_t input = viommu_u64(w[0], w[1]), output = viommu_u64(w[2], w[3]);
    IOMMUAccessFlags perm = w[5] & IOMMU_RW;
    ViommuRegion *region;

    if (!intersect(&r, input, last_of_block(input, w[4])) || perm == IOMMU_NONE) {
        return;
    }
    if (w[4] <= MAX_PLAIN_BITS) {
        emit(space, n, IOMMU_NOTIFIER_MAP, r, output + (r.first - input), perm);
        return;
    }
    QTAILQ_FOREACH(region, &space->core->regions, next) {
        uint64_t first = region->gpa - output + input;
        Interval part = r;

        if (region->gpa >= output && !region->readonly &&
            intersect(&part, first, first + region->size - 1)) {
            emit(space, n, IOMMU_NOTIFIER_MAP, part, output + (part.first - input), perm);
        }
    }
}

/* One page of the enumeration, from `at` on. Returns where the next one begins, or 0. */
static uint64_t replay_page(ViommuSpace *space, IOMMUNotifier *n, Interval r, uint64_t at)
{
    ViommuCore *core = space->core;
    viommu_Replay msg = { .pasid = space->pasid_plus_1, .lo = at, .hi = at >> 32 };
    viommu_ReplayReply reply = viommu_ReplayReply_init_zero;
    g_autofree WireSpans *spans = g_new(WireSpans, 1);
    const uint32_t *w = spans->words;
    uint64_t last = 0;
    uint32_t i, count;
    bool ok;

    viommu_wire_spans_init(&reply.spans, spans);
    qemu_mutex_lock(&core->front.lock);
    ok = viommu_space_announce_locked(space);
    msg.rid = space->rid;
    ok = ok &&
         viommu_front_request_locked(core, viommu_MessageType_REPLAY,
                                     viommu_Replay_fields, &msg, -1,
                                     viommu_ReplayReply_fields, &reply) &&
         viommu_front_spans_are_whole(core, spans);
    qemu_mutex_unlock(&core->front.lock);
    count = ok ? viommu_wire_span_count(spans) : 0;
    for (i = 0; i < count; i++, w += SPAN_WORDS) {
        last = last_of_block(viommu_u64(w[0], w[1]), w[4]);
        map_span(space, n, r, w);
    }
    /* Not behind `at`: the same page would be asked for for ever. */
    return reply.more && last >= at && last < r.last ? last + 1 : 0;
}

static void replay_range(ViommuSpace *space, IOMMUNotifier *n, uint64_t first,
                         uint64_t last)
{
    uint64_t at;
    Interval r;

    if (!(n->notifier_flags & IOMMU_NOTIFIER_MAP) || !notifier_range(space, n, &r) ||
        !intersect(&r, first, last)) {
        return;
    }
    at = r.first;
    do {
        at = replay_page(space, n, r, at);
    } while (at);
}

bool viommu_notify_is_shadowed(const ViommuSpace *space, const IOMMUNotifier *n)
{
    return viommu_core_has(space->core, viommu_Feature_FEATURE_HOST_BATCH) &&
           (n->notifier_flags & IOMMU_NOTIFIER_MAP);
}

bool viommu_notify_range(const ViommuSpace *space, const IOMMUNotifier *n,
                         uint64_t *first, uint64_t *last)
{
    Interval r;
    bool ok = notifier_range(space, n, &r);

    *first = r.first;
    *last = r.last;
    return ok;
}

void viommu_notify_replay_one(ViommuSpace *space, IOMMUNotifier *n)
{
    replay_range(space, n, 0, UINT64_MAX);
}

void viommu_notify_operation(ViommuSpace *space, const uint32_t *w)
{
    uint64_t first = viommu_u64(w[1], w[2]), last = viommu_u64(w[3], w[4]);
    uint64_t memory = viommu_u64(w[5], w[6]);
    IOMMUNotifier *n;
    Interval r;

    IOMMU_NOTIFIER_FOREACH(n, &space->iommu) {
        if (!viommu_notify_is_shadowed(space, n) || !notifier_range(space, n, &r) ||
            !intersect(&r, first, last)) {
            continue;
        }
        if (w[0] & IOMMU_RW) {
            emit(space, n, IOMMU_NOTIFIER_MAP, r, memory + (r.first - first),
                 w[0] & IOMMU_RW);
        } else {
            emit(space, n, IOMMU_NOTIFIER_UNMAP, r, 0, IOMMU_NONE);
        }
    }
}

void viommu_notify_invalidate(ViommuSpace *space, const IotlbScope *scope)
{
    uint64_t first = scope->log2_size >= 64 ?
                         0 :
                         scope->address >> scope->log2_size << scope->log2_size;
    uint64_t last = last_of_block(first, scope->log2_size);
    IOMMUNotifier *n;

    IOMMU_NOTIFIER_FOREACH(n, &space->iommu) {
        if (viommu_notify_is_shadowed(space, n)) {
            continue;
        }
        unmap_range(space, n, first, last);
        replay_range(space, n, first, last);
    }
}

void viommu_notify_device_tlb(ViommuSpace *space, uint64_t address, uint32_t log2_size)
{
    uint64_t first = log2_size >= 64 ? 0 : address;
    IOMMUNotifier *n;
    Interval r;

    IOMMU_NOTIFIER_FOREACH(n, &space->iommu) {
        if ((n->notifier_flags & IOMMU_NOTIFIER_DEVIOTLB_UNMAP) &&
            notifier_range(space, n, &r) &&
            intersect(&r, first, last_of_block(first, log2_size))) {
            emit(space, n, IOMMU_NOTIFIER_DEVIOTLB_UNMAP, r, 0, IOMMU_NONE);
        }
    }
}

void viommu_notify_unmap(ViommuSpace *space)
{
    IOMMUNotifier *n;

    IOMMU_NOTIFIER_FOREACH(n, &space->iommu) {
        unmap_range(space, n, 0, UINT64_MAX);
    }
}

void viommu_notify_unmap_all(ViommuCore *core, bool all)
{
    ViommuSpace *space;
    IOMMUNotifier *n;

    QLIST_FOREACH_RCU(space, &core->spaces, next) {
        IOMMU_NOTIFIER_FOREACH(n, &space->iommu) {
            if (all || !viommu_notify_is_shadowed(space, n)) {
                unmap_range(space, n, 0, UINT64_MAX);
            }
        }
    }
}

void viommu_notify_replay_all(ViommuCore *core)
{
    ViommuSpace *space;
    IOMMUNotifier *n;

    QLIST_FOREACH_RCU(space, &core->spaces, next) {
        IOMMU_NOTIFIER_FOREACH(n, &space->iommu) {
            if (!viommu_notify_is_shadowed(space, n)) {
                replay_range(space, n, 0, UINT64_MAX);
            }
        }
    }
}
