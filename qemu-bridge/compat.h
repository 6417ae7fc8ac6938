/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The differences between QEMU 10.0 and later trees, all in one place. Every source file
 * includes this one first. It brings the headers that moved or changed shape between
 * releases.
 */
#ifndef VIOMMU_COMPAT_H
#define VIOMMU_COMPAT_H

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/main-loop.h"
#include "qemu/units.h"
#include "qemu/cutils.h"
#include "qemu/memalign.h"
#include "qemu/error-report.h"
#include "qemu/rcu.h"
#include "qemu/rcu_queue.h"
#include "qemu/thread.h"
#include "qemu/timer.h"
#include "qapi/error.h"

/* 10.1 moved the memory API from exec/ to system/. */
#if __has_include("system/memory.h")
#include "system/memory.h"
#include "system/address-spaces.h"
#include "system/ramblock.h"
#else
#include "exec/memory.h"
#include "exec/address-spaces.h"
#include "exec/ramblock.h"
#endif

/* Releases after 10.2 gather the device core's headers in hw/core/. */
#if __has_include("hw/core/qdev-properties.h")
#include "hw/core/qdev.h"
#include "hw/core/qdev-properties.h"
#include "hw/core/boards.h"
#else
#include "hw/qdev-core.h"
#include "hw/qdev-properties.h"
#include "hw/boards.h"
#endif
#if __has_include("hw/core/resettable.h")
#include "hw/core/resettable.h"
#else
#include "hw/resettable.h"
#endif

#if __has_include("hw/core/irq.h")
#include "hw/core/irq.h"
#else
#include "hw/irq.h"
#endif

#include "hw/pci/pci_bus.h"
#include "hw/pci/pci_bridge.h"
#include "hw/pci/pci_device.h"
#include "system/iommufd.h"
#if __has_include("hw/vfio/vfio-device.h")
#include "hw/vfio/vfio-device.h"
#else
#include "hw/vfio/vfio-common.h"
#endif
#include "migration/vmstate.h"
#include "system/system.h"

/* class_init's data and TypeInfo's interfaces became const in 10.1. */
#if QEMU_VERSION_MAJOR > 10 || (QEMU_VERSION_MAJOR == 10 && QEMU_VERSION_MINOR >= 1)
#define VIOMMU_CLASS_DATA const void
#define VIOMMU_INTERFACES const InterfaceInfo[]
#else
#define VIOMMU_CLASS_DATA void
#define VIOMMU_INTERFACES InterfaceInfo[]
#endif

/*
 * 10.2 tells the machine's own SMMUv3 from those that a user creates, when it writes
 * IORT.
 */
#if QEMU_VERSION_MAJOR > 10 || (QEMU_VERSION_MAJOR == 10 && QEMU_VERSION_MINOR >= 2)
#define VIOMMU_MACHINE_SMMUV3(vms) ((vms)->legacy_smmuv3_present = true)
#else
#define VIOMMU_MACHINE_SMMUV3(vms) ((void)(vms))
#endif

/* How many address spaces a vCPU may have; unused ones are NULL. 11.0 counts by class. */
#if QEMU_VERSION_MAJOR > 10 || \
    (QEMU_VERSION_MAJOR == 10 && QEMU_VERSION_MINOR == 2 && QEMU_VERSION_MICRO >= 50)
#define VIOMMU_CPU_SPACES(cpu) ((cpu)->cc->max_as + 1)
#else
#define VIOMMU_CPU_SPACES(cpu) ((cpu)->num_ases)
#endif

/* What no source tree has agreed on naming: the least unit that a translation covers. */
#define VIOMMU_PAGE_BITS 12
#define VIOMMU_PAGE_SIZE (1ull << VIOMMU_PAGE_BITS)

static inline uint64_t viommu_u64(uint32_t lo, uint32_t hi)
{
    return (uint64_t)hi << 32 | lo;
}

#endif
