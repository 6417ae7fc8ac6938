/*
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The device that takes commands, and what answers them.
 */
#ifndef VIOMMU_SHIM_H
#define VIOMMU_SHIM_H

#include "qemu/thread.h"
#include "exec/memory.h"
#include "hw/qdev-core.h"
#include "qom/object.h"

#define TYPE_VIOMMU_SHIM "viommu-shim"
OBJECT_DECLARE_SIMPLE_TYPE(ShimDevice, VIOMMU_SHIM)

struct ShimDevice {
    DeviceState parent_obj;
    char *control;
    char *target; /* bench.c: path of the PCI device whose IOMMU is timed */
    char *bridge; /* oracle.c: path of a PCI bridge whose bus requesters may be on */
    Notifier machine_done;
    QemuThread thread;
    FILE *stream;
    /* Found by bench.c. */
    AddressSpace *dma;
    IOMMUMemoryRegion *region;
    IOMMUMemoryRegionClass *region_class;
    int index;
};

/* Sends one line. */
G_GNUC_PRINTF(2, 3) void shim_answer(ShimDevice *shim, const char *format, ...);

/* Runs a timing command and answers it; false when there is none of this name. */
bool bench_command(ShimDevice *shim, const char *name, int64_t a, int64_t b);

/*
 * Finds the IOMMU region of the target device once translation is on. With the BQL. NULL or a
 * complaint.
 */
const char *bench_find_region(ShimDevice *shim);

/* replay.c, VT-d only: the same for a listener that is told of mappings. */
bool replay_command(ShimDevice *shim, const char *name, int64_t a, int64_t b);

/* Serves batches of operations until the other side closes the connection. */
void oracle_serve(ShimDevice *shim);

#endif
