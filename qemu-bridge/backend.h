/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Requests of the daemon: the channel and the thread that serves it (backend.c), and what is on its way from there to
 * the main loop (backend-queue.c).
 */
#ifndef VIOMMU_BACKEND_H
#define VIOMMU_BACKEND_H

#include "iotlb.h"
#include "wire.h"

typedef struct ViommuCore ViommuCore;

#define VIOMMU_INTERRUPT_RING 64

/* A message, or with `wire` (output + 1) an edge on an output of the unit. */
typedef struct ViommuInterrupt {
    uint64_t address;
    uint32_t data;
    uint32_t wire;
} ViommuInterrupt;

/* The backend channel: served by one thread. */
typedef struct ViommuBackend {
    QemuThread thread;
    bool running;
    Wire wire;
    QemuMutex send_lock;

    QemuMutex queue_lock; /* the fields below */
    QSIMPLEQ_HEAD(, ViommuNotice) notices;
    bool notices_scheduled;
    QemuCond queue_cond;     /* a notice came, or the daemon is gone */
    uint32_t notices_done;
    ViommuInterrupt interrupts[VIOMMU_INTERRUPT_RING];
    uint32_t interrupt_count;
    bool interrupts_scheduled;
} ViommuBackend;

/* backend.c */

void viommu_backend_init(ViommuCore *core);
void viommu_backend_start(ViommuCore *core, int fd);
void viommu_backend_stop(ViommuCore *core);
/** Answers a request of the daemon. Any thread. */
void viommu_backend_reply(ViommuCore *core, uint32_t type, uint32_t id, const pb_msgdesc_t *fields,
                          const void *message);

/* backend-queue.c */

/** Has notifiers hear of an INVALIDATE, and answers it then. Backend thread. */
void viommu_backend_queue_invalidation(ViommuCore *core, uint32_t id, const IotlbScope *scope,
                                       const viommu_Invalidate *msg);
/** Each takes the message that it is named after. False: it cannot be decoded. Backend thread. */
bool viommu_backend_queue_host_batch(ViommuCore *core, const WireFrame *frame);
bool viommu_backend_queue_track(ViommuCore *core, const WireFrame *frame);
bool viommu_backend_queue_interrupt(ViommuCore *core, const WireFrame *frame);
/** Runs queued work until `count` pieces have been done since the session began. Big lock. */
void viommu_backend_run_until(ViommuCore *core, uint32_t count);
/** Answers queued invalidations. Main loop, big lock. */
void viommu_backend_run_notices(ViommuCore *core);

#endif
