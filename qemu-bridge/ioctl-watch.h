/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What becomes of the mappings that an IOMMU notifier makes in this thread. */
#ifndef VIOMMU_IOCTL_WATCH_H
#define VIOMMU_IOCTL_WATCH_H

/**
 * From here on mappings that this thread makes are watched; `unmap`: those that it takes
 * away.
 */
void viommu_ioctl_watch_begin(bool unmap);
/** Ends that. Returns 0, or the errno with which one failed. */
int viommu_ioctl_watch_end(void);
/** For notifiers of our own, which call no kernel: the operation under way fails. */
void viommu_ioctl_watch_fail(int error);

#endif
