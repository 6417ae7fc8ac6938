/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Writes are posted, except those that may change what an assigned device has mapped, and
 * doorbells of invalidations that complete here (completion.c). Reads come from the
 * shared page once the daemon has handled every write that was sent, and otherwise ask
 * it: a read after a write sees the write. The daemon knows what a register means; here
 * any size and alignment passes.
 */
#include "compat.h"
#include "completion.h"
#include "front.h"
#include "host-batch.h"
#include "mailbox.h"
#include "refusals.h"
#include "regs.h"
#include "settle.h"
#include "shared-page.h"
#include "spaces.h"
#include "viommu-core.h"
#include "wire.h"

/*
 * The daemon stores the count of handled writes after their effects (release). This is
 * the acquire.
 */
static bool page_is_current(const ViommuCore *core)
{
    uint32_t handled = qatomic_load_acquire(
        viommu_control(core, viommu_CONTROL_WORD_HANDLED));

    return handled == qatomic_read(&core->writes_sent);
}

static uint64_t read_page(const ViommuCore *core, hwaddr offset, unsigned size)
{
    const uint8_t *p = core->page + PAGE_REGISTERS_OFFSET + offset;

    if (offset + size > core->register_bytes) {
        return 0;
    }
    /* Whole when aligned: a register is not to be seen half written. */
    if (size == 8 && offset % 8 == 0) {
        return le64_to_cpu(qatomic_read__nocheck((const uint64_t *)p));
    }
    if (size == 4 && offset % 4 == 0) {
        return le32_to_cpu(qatomic_read((const uint32_t *)p));
    }
    return ldn_le_p(p, size);
}

static bool read_register(ViommuCore *core, const viommu_RegRead *msg,
                          viommu_RegReadReply *reply)
{
    *reply = (viommu_RegReadReply) viommu_RegReadReply_init_zero;
    return viommu_front_request(core, viommu_MessageType_REG_READ, viommu_RegRead_fields,
                                msg, -1, viommu_RegReadReply_fields, reply);
}

static uint64_t regs_read(void *opaque, hwaddr offset, unsigned size)
{
    ViommuCore *core = opaque;
    viommu_RegRead msg = { .offset = offset, .size = size };
    viommu_RegReadReply reply = viommu_RegReadReply_init_zero;

    viommu_refusal_forget();
    if (page_is_current(core) || offset + size > core->register_bytes ||
        !read_register(core, &msg, &reply)) {
        return read_page(core, offset, size);
    }
    /*
     * What the register shows waits for a notice, which takes the big lock that is held
     * here. Linux reads GSTS once when it switches interrupt remapping on.
     */
    if (reply.unsettled && viommu_core_has(core, viommu_Feature_FEATURE_HOST_BATCH)) {
        viommu_settle_all(core);
        if (!read_register(core, &msg, &reply)) {
            return read_page(core, offset, size);
        }
    }
    return viommu_u64(reply.lo, reply.hi);
}

/*
 * A write may be an invalidation: what changes in host mappings comes with the answer.
 * front.lock held.
 */
static bool ask_locked(ViommuCore *core, const viommu_RegWrite *msg,
                       viommu_RegWriteReply *written)
{
    viommu_wire_operations_init(&written->ops, &core->front.operations);
    return viommu_mailbox_request_locked(core, viommu_MessageType_REG_WRITE,
                                         viommu_RegWrite_fields, msg,
                                         viommu_RegWriteReply_fields, written);
}

/*
 * Carries it out here, under the big lock that is held: no other thread has to wake up.
 */
static void take_batch(ViommuCore *core, const viommu_RegWriteReply *written)
{
    ViommuFront *front = &core->front;

    if (front->operations.count % HOST_OPERATION_WORDS) {
        viommu_core_gone(core, "the daemon sent a piece of a host operation");
        return;
    }
    viommu_host_batch_run(core, written->device, &front->operations, &front->failed);
    qemu_mutex_lock(&front->lock);
    viommu_mailbox_reply_locked(core, viommu_MessageType_HOST_BATCH, written->batch,
                                viommu_HostBatchReply_fields, &front->failed);
    qemu_mutex_unlock(&front->lock);
}

static void regs_write(void *opaque, hwaddr offset, uint64_t value, unsigned size)
{
    ViommuCore *core = opaque;
    viommu_RegWrite msg = { .offset = offset,
                            .size = size,
                            .lo = value,
                            .hi = value >> 32 };
    viommu_RegWriteReply written = viommu_RegWriteReply_init_zero;
    bool asks = core->assigned &&
                viommu_core_has(core, viommu_Feature_FEATURE_WRITE_REPLY);

    viommu_refusal_forget();
    if (offset + size > core->register_bytes) {
        return;
    }
    qemu_mutex_lock(&core->front.lock);
    viommu_spaces_refresh_locked(core);
    if (viommu_completion_locked(core, offset, value, size)) {
        qemu_mutex_unlock(&core->front.lock);
        return;
    }
    /* Counted first: a read between here and the answer of the daemon must ask. */
    qatomic_set(&core->writes_sent, core->writes_sent + 1);
    qatomic_set(viommu_control(core, viommu_CONTROL_WORD_SENT), core->writes_sent);
    if (!asks) {
        viommu_front_post_locked(core, viommu_MessageType_REG_WRITE,
                                 viommu_RegWrite_fields, &msg);
    } else if (!ask_locked(core, &msg, &written)) {
        written.batch = 0;
    }
    qemu_mutex_unlock(&core->front.lock);
    if (written.batch) {
        take_batch(core, &written);
    }
}

static const MemoryRegionOps regs_ops = {
    .read = regs_read,
    .write = regs_write,
    .endianness = DEVICE_LITTLE_ENDIAN,
    .valid = { .min_access_size = 1, .max_access_size = 8, .unaligned = true },
    .impl = { .min_access_size = 1, .max_access_size = 8, .unaligned = true },
};

void viommu_regs_init(ViommuCore *core, const char *name)
{
    memory_region_init_io(&core->registers, OBJECT(core->dev), &regs_ops, core, name,
                          ROUND_UP(core->register_bytes, VIOMMU_PAGE_SIZE));
}
