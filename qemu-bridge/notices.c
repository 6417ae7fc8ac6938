/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "compat.h"
#include "notices.h"
#include "viommu-core.h"

/* How often a waiting thread looks whether the daemon is still there. */
#define LOOK_MS 100

void viommu_notices_init(ViommuCore *core)
{
    ViommuNotices *n = &core->notices;

    qemu_mutex_init(&n->lock);
    QSIMPLEQ_INIT(&n->queue);
    qemu_cond_init(&n->arrived);
}

static void run(ViommuCore *core, ViommuNotice *notice)
{
    notice->run(core, notice);
    qatomic_inc(&core->notices.done);
}

/*
 * The oldest notice. NULL: there is none, and the next one schedules the main loop again.
 */
static ViommuNotice *take(ViommuNotices *n)
{
    ViommuNotice *notice;

    qemu_mutex_lock(&n->lock);
    notice = QSIMPLEQ_FIRST(&n->queue);
    if (notice) {
        QSIMPLEQ_REMOVE_HEAD(&n->queue, next);
    } else {
        qatomic_set(&n->scheduled, false);
    }
    qemu_mutex_unlock(&n->lock);
    return notice;
}

void viommu_notices_run(ViommuCore *core)
{
    ViommuNotice *notice;

    while ((notice = take(&core->notices))) {
        run(core, notice);
    }
}

void viommu_notices_run_until(ViommuCore *core, uint32_t count)
{
    ViommuNotices *n = &core->notices;

    while (viommu_core_alive(core) && (int32_t)(count - qatomic_read(&n->done)) > 0) {
        ViommuNotice *notice = take(n);

        if (notice) {
            run(core, notice);
            continue;
        }
        qemu_mutex_lock(&n->lock);
        if (QSIMPLEQ_EMPTY(&n->queue)) {
            qemu_cond_timedwait(&n->arrived, &n->lock, LOOK_MS);
        }
        qemu_mutex_unlock(&n->lock);
    }
}

static void notices_bh(void *opaque)
{
    ViommuCore *core = opaque;

    viommu_notices_run(core);
    object_unref(OBJECT(core->dev));
}

void viommu_notices_add(ViommuCore *core, ViommuNotice *notice)
{
    ViommuNotices *n = &core->notices;
    bool wake;

    qemu_mutex_lock(&n->lock);
    QSIMPLEQ_INSERT_TAIL(&n->queue, notice, next);
    wake = !n->scheduled;
    qatomic_set(&n->scheduled, true);
    qemu_cond_signal(&n->arrived);
    qemu_mutex_unlock(&n->lock);
    if (wake) {
        viommu_core_schedule(core, notices_bh);
    }
}
