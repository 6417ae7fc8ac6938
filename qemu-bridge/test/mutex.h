/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QEMU's locks and memory, for tests of caches that are linked without a QEMU. */
#ifndef VIOMMU_TEST_MUTEX_H
#define VIOMMU_TEST_MUTEX_H

#include <malloc.h>

void qemu_mutex_init(QemuMutex *m) { pthread_mutex_init(&m->lock, NULL); }
void qemu_mutex_destroy(QemuMutex *m) { pthread_mutex_destroy(&m->lock); }
void qemu_mutex_lock_impl(QemuMutex *m, const char *file, const int line)
{
    pthread_mutex_lock(&m->lock);
}
void qemu_mutex_unlock_impl(QemuMutex *m, const char *file, const int line)
{
    pthread_mutex_unlock(&m->lock);
}
QemuMutexLockFunc qemu_mutex_lock_func = qemu_mutex_lock_impl;
void *qemu_memalign(size_t alignment, size_t size) { return memalign(alignment, size); }
void qemu_vfree(void *p) { free(p); }

#endif
