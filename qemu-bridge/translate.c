/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Translation of one DMA: from the IOTLB, which is the hot path of the bridge; by a peer
 * walk, where the daemon has described the tables; otherwise by asking the daemon. And
 * what happens to an access that is refused.
 */
#include "compat.h"
#include "ask.h"
#include "endpoint.h"
#include "guest-memory.h"
#include "iotlb.h"
#include "notify-hooks.h"
#include "refusals.h"
#include "shared-page.h"
#include "spaces.h"
#include "track.h"
#include "translate.h"
#include "viommu-core.h"
#include "views.h"
#include "walk.h"
#include "wire.h"

/*
 * The widest block that one translation reports: 64 bits cannot hold the length of a
 * block of 2^64.
 */
#define MAX_REPORTED_BITS 52

/*
 * Whether a translation may be cached: neither the daemon nor this bridge has invalidated
 * anything since that the translation does not know of, and the requester id is the same.
 */
static bool is_fresh_locked(const ViommuSpace *space, uint16_t rid, uint32_t tag,
                            uint32_t epoch, uint32_t own)
{
    return viommu_core_alive(space->core) && space->rid == rid &&
           viommu_iotlb_epochs_fresh(&space->core->epochs, tag, epoch) &&
           viommu_iotlb_epochs_fresh(&space->core->own, tag, own);
}

static void keep(ViommuSpace *space, const ViommuAnswer *answer, uint16_t rid)
{
    ViommuCore *core = space->core;
    const uint32_t *w = answer->spans.words;
    uint32_t i, count = viommu_wire_span_count(&answer->spans);

    qemu_mutex_lock(&space->tlb.lock);
    if (!is_fresh_locked(space, rid, answer->reply.space, answer->reply.epoch,
                         answer->own)) {
        qatomic_inc(&core->stale_fills);
    } else {
        for (i = 0; i < count; i++, w += SPAN_WORDS) {
            viommu_iotlb_insert_locked(&space->tlb, viommu_u64(w[0], w[1]),
                                       viommu_u64(w[2], w[3]), w[4], w[5],
                                       answer->reply.space, answer->reply.sub);
        }
    }
    qemu_mutex_unlock(&space->tlb.lock);
}

/*
 * A refused access. A thread that holds the big lock gets "no permission", which QEMU
 * turns into an access to nothing, with an error for the device. That access takes the
 * big lock, and an iothread must not: the main thread, which holds the lock, may be
 * waiting for it to stop its device. So an iothread reads zeros and writes into the void,
 * which is what an access to nothing amounts to for the devices that have iothreads.
 */
static IOMMUTLBEntry refused(const ViommuSpace *space, hwaddr address, uint32_t access)
{
    bool to_void = !bql_locked() && (access == IOTLB_READ || access == IOTLB_WRITE);

    return (IOMMUTLBEntry) {
        .target_as = to_void ? &space->core->void_as : &address_space_memory,
        .iova = address & ~(VIOMMU_PAGE_SIZE - 1),
        .translated_addr = access == IOTLB_WRITE ? VOID_SINK : VOID_ZEROS,
        .addr_mask = VIOMMU_PAGE_SIZE - 1,
        .perm = to_void ? access : IOMMU_NONE,
    };
}

static inline IOMMUTLBEntry entry_of(hwaddr address, uint64_t block, uint32_t log2_size,
                                     uint32_t access)
{
    uint64_t block_mask = log2_size >= 64 ? UINT64_MAX : (1ull << log2_size) - 1;
    uint64_t mask = (1ull << MIN(log2_size, MAX_REPORTED_BITS)) - 1;

    return (IOMMUTLBEntry) {
        .target_as = &address_space_memory,
        .iova = address & ~mask,
        .translated_addr = (block + (address & block_mask)) & ~mask,
        .addr_mask = mask,
        .perm = access & IOMMU_RW,
    };
}

static IOMMUTLBEntry refuse(const ViommuSpace *space, hwaddr address, uint32_t access)
{
    if (access) {
        viommu_refusal_note(space, address, access, 0);
    }
    return refused(space, address, access);
}

/* Whether the access would be allowed. Access 0 records no fault. */
static bool would_pass(ViommuSpace *space, hwaddr address, uint32_t access)
{
    const ViommuRequest look = { .address = address,
                                 .pasid_plus_1 = space->pasid_plus_1 };
    ViommuAnswer answer = { .reply = viommu_TranslateReply_init_zero };
    uint16_t rid;

    return viommu_ask(space, &look, &answer, &rid) &&
           viommu_ask_allows(&answer, address, access);
}

static bool refused_before(ViommuSpace *space, hwaddr address, uint32_t access)
{
    switch (viommu_refusal_known(space, address, access)) {
    case VIOMMU_REFUSED_ALREADY:
        return true;
    case VIOMMU_REFUSED_PERHAPS:
        return !would_pass(space, address, access);
    default:
        return false;
    }
}

/*
 * Translation by a peer walk. Table pages may be freed and reused once an invalidation
 * has been answered. So what was read counts only if no invalidation came since the walk
 * began; otherwise the daemon is asked.
 */
static bool walk_here(ViommuSpace *space, hwaddr address, uint32_t access,
                      WalkBlock *asked)
{
    ViommuCore *core = space->core;
    uint32_t epoch = viommu_iotlb_epochs_newest(&core->epochs);
    uint32_t own = viommu_iotlb_epochs_newest(&core->own);
    const WalkTables *tables;
    WalkFound found;
    uint32_t i;
    bool ok;

    RCU_READ_LOCK_GUARD();
    tables = qatomic_rcu_read(&space->tables);
    if (!tables ||
        !viommu_walk_tables(tables, address, access, viommu_guest_read_entries, &found)) {
        return false;
    }
    qemu_mutex_lock(&space->tlb.lock);
    ok = is_fresh_locked(space, tables->rid, tables->space, epoch, own);
    for (i = 0; ok && i < found.count; i++) {
        const WalkBlock *b = &found.block[i];

        viommu_iotlb_insert_locked(&space->tlb, b->input, b->output, b->log2_size,
                                   b->access, tables->space, tables->sub);
    }
    qemu_mutex_unlock(&space->tlb.lock);
    *asked = found.block[0];
    return ok;
}

static IOMMUTLBEntry translate_miss(ViommuSpace *space, hwaddr address, uint32_t access)
{
    const ViommuRequest request = { .address = address,
                                    .pasid_plus_1 = space->pasid_plus_1,
                                    .access = access };
    ViommuAnswer answer = { .reply = viommu_TranslateReply_init_zero };
    const uint32_t *w = answer.spans.words;
    uint16_t rid;

    if (access && refused_before(space, address, access)) {
        return refused(space, address, access);
    }
    if (!viommu_ask(space, &request, &answer, &rid)) {
        qatomic_inc(&space->core->refused);
        qatomic_set(viommu_control(space->core, viommu_CONTROL_WORD_REFUSED),
                    qatomic_read(&space->core->refused));
        return refused(space, address, access);
    }
    if (!viommu_ask_allows(&answer, address, 0)) {
        return refuse(space, address, access);
    }
    if (!answer.reply.once) {
        keep(space, &answer, rid);
    }
    return entry_of(address, viommu_u64(w[2], w[3]), w[4], w[5]);
}

static IOMMUTLBEntry translate(IOMMUMemoryRegion *mr, hwaddr address,
                               IOMMUAccessFlags flags, int iommu_idx)
{
    ViommuSpace *space = container_of(mr, ViommuSpace, iommu);
    bool current = viommu_space_rid_is_current(space);
    WalkBlock found;
    IotlbHit hit;

    if (likely(current &&
               viommu_iotlb_lookup(&space->tlb, address, flags & IOMMU_RW, &hit))) {
        qatomic_set(&space->counts.hits, qatomic_read(&space->counts.hits) + 1);
        return entry_of(address, hit.output, hit.log2_size, hit.access);
    }
    if (current && walk_here(space, address, flags & IOMMU_RW, &found)) {
        qatomic_set(&space->counts.walks, qatomic_read(&space->counts.walks) + 1);
        return entry_of(address, found.output, found.log2_size, found.access);
    }
    return translate_miss(space, address, flags & IOMMU_RW);
}

/*
 * A store of an emulated device to a tracked page has to be seen as a vCPU's store is.
 * The device reaches its other pages as ever, also where an overlay joins two tracked
 * ones: QEMU maps no overlay for a device, and has bounce buffers for a page at a time.
 */
static IOMMUTLBEntry translate_for_device(IOMMUMemoryRegion *mr, hwaddr address,
                                          IOMMUAccessFlags flags, int iommu_idx)
{
    const ViommuSpace *space = container_of(mr, ViommuSpace, iommu);
    IOMMUTLBEntry entry = translate(mr, address, flags, iommu_idx);
    AddressSpace *stores;

    if (!(flags & IOMMU_WO) || entry.target_as != &address_space_memory ||
        entry.perm == IOMMU_NONE) {
        return entry;
    }
    stores = viommu_views_store_space();
    if (stores == entry.target_as) {
        return entry;
    }
    entry.translated_addr += (address & entry.addr_mask) &
                             ~(hwaddr)(VIOMMU_PAGE_SIZE - 1);
    entry.iova = address & ~(hwaddr)(VIOMMU_PAGE_SIZE - 1);
    entry.addr_mask = VIOMMU_PAGE_SIZE - 1;
    if (viommu_track_has(&space->core->tracking,
                         entry.translated_addr >> VIOMMU_PAGE_BITS)) {
        entry.target_as = stores;
    }
    return entry;
}

static void iommu_memory_region_class_init(ObjectClass *klass, VIOMMU_CLASS_DATA *data)
{
    IOMMUMemoryRegionClass *imrc = IOMMU_MEMORY_REGION_CLASS(klass);

    imrc->translate = translate_for_device;
    imrc->notify_flag_changed = viommu_notify_hooks_flag_changed;
    imrc->replay = viommu_notify_hooks_replay;
}

const TypeInfo viommu_iommu_memory_region_type = {
    .name = TYPE_VIOMMU_IOMMU_MEMORY_REGION,
    .parent = TYPE_IOMMU_MEMORY_REGION,
    .class_init = iommu_memory_region_class_init,
};
