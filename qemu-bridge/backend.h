/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The backend channel: requests of the daemon, and the thread that serves them. */
#ifndef VIOMMU_BACKEND_H
#define VIOMMU_BACKEND_H

#include "wire.h"

typedef struct ViommuCore ViommuCore;

/**
 * Serves a request of the daemon, and answers it now or later. False: the body cannot be
 * decoded. Backend thread.
 */
typedef bool ViommuHandler(ViommuCore *core, const WireFrame *frame);

/* What the thread does; session.c hands it in. */
typedef struct ViommuBackendOps {
    /* Returns when the channel may have something to receive. */
    void (*wait)(ViommuCore *core);
    ViommuHandler *const *handlers; /* by viommu_MessageType; NULL: unknown */
    uint32_t handler_count;
} ViommuBackendOps;

typedef struct ViommuBackend {
    const ViommuBackendOps *ops;
    QemuThread thread;
    bool running;
    Wire wire;
    QemuMutex send_lock;
} ViommuBackend;

void viommu_backend_init(ViommuCore *core);
void viommu_backend_start(ViommuCore *core, int fd, const ViommuBackendOps *ops);
/** Ends the thread, and runs what it has queued. Big lock. */
void viommu_backend_stop(ViommuCore *core);
/** Answers a request of the daemon. Any thread. */
void viommu_backend_reply(ViommuCore *core, uint32_t type, uint32_t id,
                          const pb_msgdesc_t *fields, const void *message);

#endif
