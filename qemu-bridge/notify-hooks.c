/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "compat.h"
#include "front.h"
#include "notify-hooks.h"
#include "notify.h"
#include "settle.h"
#include "spaces.h"
#include "track.h"
#include "viommu-core.h"

/*
 * A notifier for [first, last] has nothing mapped; returns when it has what is mapped
 * there.
 */
static void listen_to(ViommuSpace *space, uint64_t first, uint64_t last)
{
    ViommuCore *core = space->core;
    viommu_HostListen msg = {
        .first_lo = first,
        .first_hi = first >> 32,
        .last_lo = last,
        .last_hi = last >> 32,
    };

    /* What is in flight was meant for the other notifiers. */
    viommu_settle(core);
    qemu_mutex_lock(&core->front.lock);
    if (viommu_space_announce_locked(space)) {
        msg.device = space->handle;
        viommu_front_post_locked(core, viommu_MessageType_HOST_LISTEN,
                                 viommu_HostListen_fields, &msg);
    }
    qemu_mutex_unlock(&core->front.lock);
    viommu_settle(core);
}

void viommu_notify_hooks_replay(IOMMUMemoryRegion *mr, IOMMUNotifier *n)
{
    ViommuSpace *space = container_of(mr, ViommuSpace, iommu);
    uint64_t first, last;

    if (!viommu_notify_is_shadowed(space, n)) {
        viommu_notify_replay_one(space, n);
    } else if (viommu_notify_range(space, n, &first, &last)) {
        listen_to(space, first, last);
    }
}

static int check_flags(const ViommuSpace *space, IOMMUNotifierFlag flags, Error **errp)
{
    const ViommuCore *core = space->core;

    if ((flags & IOMMU_NOTIFIER_DEVIOTLB_UNMAP) &&
        !viommu_core_has(core, viommu_Feature_FEATURE_ATS)) {
        error_setg_errno(errp, ENOTSUP,
                         "device %02x.%x: this IOMMU offers no device IOTLB",
                         PCI_SLOT(space->devfn), PCI_FUNC(space->devfn));
        return -ENOTSUP;
    }
    if ((flags & IOMMU_NOTIFIER_MAP) && !core->caching_mode &&
        !(core->maps_in_silence && viommu_track_possible(core))) {
        error_setg_errno(errp, ENOTSUP, "device %02x.%x must be told of new mappings, %s",
                         PCI_SLOT(space->devfn), PCI_FUNC(space->devfn),
                         core->no_map_events);
        return -ENOTSUP;
    }
    return 0;
}

int viommu_notify_hooks_flag_changed(IOMMUMemoryRegion *mr, IOMMUNotifierFlag old_flags,
                                     IOMMUNotifierFlag new_flags, Error **errp)
{
    ViommuSpace *space = container_of(mr, ViommuSpace, iommu);
    ViommuCore *core = space->core;
    viommu_Notifier msg = viommu_Notifier_init_zero;
    int result = check_flags(space, new_flags, errp);

    if (result) {
        return result;
    }
    if (viommu_core_has(core, viommu_Feature_FEATURE_HOST_BATCH)) {
        /* What is in flight is for the notifiers of now. */
        viommu_settle(core);
        core->assigned += !!(new_flags & IOMMU_NOTIFIER_MAP);
        core->assigned -= !!(space->notifier_flags & IOMMU_NOTIFIER_MAP);
    }
    core->listening += !!new_flags;
    core->listening -= !!space->notifier_flags;
    space->notifier_flags = new_flags;
    msg.flags = (new_flags & IOMMU_NOTIFIER_UNMAP ? viommu_NOTIFY_UNMAP : 0) |
                (new_flags & IOMMU_NOTIFIER_MAP ? viommu_NOTIFY_MAP : 0);
    qemu_mutex_lock(&core->front.lock);
    if (viommu_space_announce_locked(space)) {
        msg.device = space->handle;
        viommu_front_post_locked(core, viommu_MessageType_NOTIFIER,
                                 viommu_Notifier_fields, &msg);
    }
    qemu_mutex_unlock(&core->front.lock);
    return 0;
}
