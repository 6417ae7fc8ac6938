/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What QEMU calls when IOMMU notifiers come, change and go. Big lock. */
#ifndef VIOMMU_NOTIFY_HOOKS_H
#define VIOMMU_NOTIFY_HOOKS_H

/** IOMMUMemoryRegionClass::notify_flag_changed. */
int viommu_notify_hooks_flag_changed(IOMMUMemoryRegion *mr, IOMMUNotifierFlag old_flags,
                                     IOMMUNotifierFlag new_flags, Error **errp);
/** IOMMUMemoryRegionClass::replay. */
void viommu_notify_hooks_replay(IOMMUMemoryRegion *mr, IOMMUNotifier *n);

#endif
