/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What every IOMMU device of the bridge shares, whatever the guest sees: the connection
 * to the daemon, the shared page, the memory table, the requesters' address spaces. The
 * parts have headers of their own. viommu-core.c is the ground floor: what all parts ask
 * of a session.
 *
 * Threads: the main loop and vCPUs (with or without the big lock), iothreads (without),
 * and the bridge's own backend thread, which never takes the big lock.
 *
 * Locks, outermost first: big lock, front.lock, an Iotlb's lock or interrupts.cache.lock.
 * backend.send_lock, notices.lock, unit_interrupts.lock and endpoints.lock are taken
 * alone, host_lock alone or below the big lock, counters.lock last.
 */
#ifndef VIOMMU_CORE_H
#define VIOMMU_CORE_H

#include "backend.h"
#include "counts.h"
#include "endpoints.h"
#include "front.h"
#include "interrupts.h"
#include "iotlb.h"
#include "notices.h"
#include "shared-page.h"
#include "track.h"
#include "unit-interrupts.h"

#define VIOMMU_BRIDGE_VERSION "0.1.0"
#define VIOMMU_DEFAULT_TIMEOUT_MS 30000
/* Most interrupt outputs that a unit has of its own. */
#define VIOMMU_MAX_WIRES 4

typedef struct ViommuCore ViommuCore;
typedef struct ViommuSpace ViommuSpace;

/* Sums of what requesters have counted, for the control page. */
typedef struct ViommuCounters {
    QemuMutex lock; /* the fields below; no other lock is taken inside */
    ViommuCounts sum;
    ViommuSpace *next; /* whose counts are added next; NULL: the first one's */
} ViommuCounters;

/* What the loss of the daemon sets off; session.c hands it in. */
typedef struct ViommuLoss {
    /* In the thread that finds out, with whatever locks it holds. */
    void (*at_once)(ViommuCore *core);
    /* Later, on the main loop. */
    void (*on_main_loop)(ViommuCore *core);
} ViommuLoss;

struct ViommuCore {
    DeviceState *dev;
    const ViommuLoss *loss;

    /* Properties. */
    char *socket_path;
    char *vm_name;
    uint32_t timeout_ms;
    bool walks;          /* whether misses may walk tables here */
    bool queues;         /* whether plain invalidations may complete here */

    /* Set by the device before viommu_session_connect. */
    const char *model;
    uint8_t aw_bits;     /* of input addresses, at most 64 */
    bool caching_mode;
    /* The guest does not say when it maps something: stores to its tables are trapped. */
    bool maps_in_silence;
    const char *no_map_events; /* why notifiers cannot be told of new mappings */
    qemu_irq wires[VIOMMU_MAX_WIRES];
    uint32_t wire_count;
    uint64_t msi_base;   /* writes here are interrupts, not DMA; msi_size 0 = none */
    uint64_t msi_size;
    uint64_t max_register_bytes;

    uint32_t listening;  /* spaces with any notifiers; big lock */
    uint32_t assigned;   /* spaces with MAP notifiers that HOST_BATCH serves; big lock */

    ViommuFront front;
    ViommuBackend backend;
    ViommuNotices notices;
    ViommuUnitInterrupts unit_interrupts;
    ViommuEndpoints endpoints;
    ViommuInterrupts interrupts;
    uint32_t features;   /* in force */
    bool connected;      /* realized: the loss of the daemon is reported */
    bool alive;
    bool resetting;      /* notifiers have been emptied by the reset itself */
    bool exiting;
    char *gone_reason;   /* why the handshake failed */

    int page_fd;
    uint8_t *page;
    uint32_t page_bytes;
    uint32_t register_bytes;
    uint32_t writes_sent; /* front.lock to change */
    struct QueueShape *queue; /* of the newest QUEUE; RCU, backend thread changes it */
    uint32_t ring_filled; /* slots, modulo 2^32; front.lock */
    MemoryRegion registers;

    MemoryListener memory_listener;
    bool memory_listening;
    QTAILQ_HEAD(, ViommuRegion) regions;
    bool memory_changing; /* the memory listener is at work; big lock */
    GArray *sections;     /* what the memory listener has heard of since its last begin */
    ViommuTracking tracking;
    uint32_t next_region;

    DeviceListener device_listener;
    Notifier exit_notifier;

    QemuMutex host_lock;      /* the fields below, and changes of `regions` */
    struct IommufdHost *host; /* the iommufd of its devices, or NULL */
    GArray *host_told;        /* what came up from there and is not told yet */
    bool host_deaf;           /* its queues cannot be read */

    /* Grows under the big lock, never shrinks, is read without any. */
    QLIST_HEAD(, ViommuSpace) spaces;
    uint32_t next_handle;
    IotlbEpochs epochs;
    IotlbEpochs own;     /* of what was dropped without the daemon; front.lock */
    MemoryRegion void_memory; /* where iothreads' refused accesses go */
    AddressSpace void_as;

    ViommuCounters counters;
    uint32_t stale_fills;
    uint32_t invalidated;
    uint32_t refused;

    QLIST_ENTRY(ViommuCore) next; /* of those that have requesters; big lock */
};

/**
 * The daemon is lost: reported once; from now on DMA is refused and register writes are
 * ignored. Wakes every thread that waits on the sockets. Any thread.
 */
void viommu_core_gone(ViommuCore *core, const char *format, ...) G_GNUC_PRINTF(2, 3);
/**
 * Whether the frame is an ERROR: then the session has ended, and the reason is reported.
 */
bool viommu_core_is_ended_by(ViommuCore *core, const WireFrame *frame);
/**
 * Runs `work` on the main loop, with the core as its argument. `work` gives back the
 * reference to core->dev that is taken here. Any thread.
 */
void viommu_core_schedule(ViommuCore *core, QEMUBHFunc *work);
/**
 * Copies the counters to the control page, with all that a requester has counted. Those
 * of the others may be as many calls old as there are requesters. Any thread.
 */
void viommu_core_publish(ViommuCore *core, ViommuSpace *space);
/** The same with all that every requester has counted. */
void viommu_core_publish_all(ViommuCore *core);

static inline bool viommu_core_alive(const ViommuCore *core)
{
    return qatomic_read(&core->alive);
}

static inline bool viommu_core_has(const ViommuCore *core, viommu_Feature feature)
{
    return core->features >> feature & 1;
}

static inline uint32_t *viommu_control(const ViommuCore *core, viommu_ControlWord word)
{
    return (uint32_t *)core->page + word;
}

#endif
