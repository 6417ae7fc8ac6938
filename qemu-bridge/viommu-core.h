/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What every IOMMU device of the bridge shares, whatever the guest sees: the connection to the daemon, the
 * shared page, guest memory's table, the requesters' address spaces.
 *
 * Threads: the main loop and vCPUs (with or without the big lock), iothreads (without), and the bridge's own
 * backend thread, which never takes the big lock. Locks, outermost first: big lock, front.lock, an Iotlb's
 * lock. backend.send_lock, backend.queue_lock and endpoints.lock are taken alone, host_lock alone or below the big lock.
 */
#ifndef VIOMMU_CORE_H
#define VIOMMU_CORE_H

#include "hw/irq.h"
#include "endpoint.h"
#include "iotlb.h"
#include "track.h"
#include "walk.h"
#include "wire.h"

#define VIOMMU_BRIDGE_VERSION "0.1.0"
#define VIOMMU_DEFAULT_TIMEOUT_MS 30000

/* The shared page file (proto/viommu.proto, Hello.shared_bytes). */
#define PAGE_CONTROL_BYTES 4096
#define PAGE_STATE_BYTES 4096
#define PAGE_REGISTERS_OFFSET (PAGE_CONTROL_BYTES + PAGE_STATE_BYTES)
#define CONTROL_MAGIC 0x564d4956u

typedef enum ControlWord {
    CONTROL_WORD_MAGIC = 0,
    CONTROL_WORD_HANDLED = 1,
    CONTROL_WORD_HITS_LO = 4,
    CONTROL_WORD_HITS_HI = 5,
    CONTROL_WORD_MISSES_LO = 6,
    CONTROL_WORD_MISSES_HI = 7,
    CONTROL_WORD_STALE_FILLS = 8,
    CONTROL_WORD_INVALIDATED = 9,
    CONTROL_WORD_REFUSED = 10,
    CONTROL_WORD_WALKS_LO = 12,
    CONTROL_WORD_WALKS_HI = 13,
    CONTROL_WORD_PEER_SLEEPS = 16,
    CONTROL_WORD_DAEMON_SLEEPS = 17,
    CONTROL_WORD_DAEMON_CPU = 18,
    CONTROL_WORD_SENT = 32,
    CONTROL_WORD_MAIL_SENT = 256,
    CONTROL_WORD_MAIL_AFTER = 257,
    CONTROL_WORD_FRONT_SENT = 258,
    CONTROL_WORD_PEER_CPU = 259,
    CONTROL_WORD_MAIL_FRAME = 260,
    CONTROL_WORD_MAIL_ANSWERED = 512,
    CONTROL_WORD_MAIL_HANDLED = 513,
    CONTROL_WORD_MAIL_ANSWER = 514,
} ControlWord;

typedef struct ViommuCore ViommuCore;

/* Bytes of the mailbox's two places. */
#define MAIL_BYTES 496
#define MAIL_ANSWER_BYTES 2040

/* A translation request's answer, on the stack of the thread that asked. */
typedef struct ViommuAnswer {
    viommu_TranslateReply reply;
    WireSpans spans;
} ViommuAnswer;

/* The front channel: one request at a time. */
typedef struct ViommuFront {
    QemuMutex lock;
    Wire wire;
    uint32_t next_id;
    uint32_t sent;                /* frames, modulo 2^32 */
    uint32_t mail_sent;           /* the same of the mailbox, and answers taken from there */
    uint32_t mail_answers;
    uint8_t mail[MAIL_ANSWER_BYTES];
    WireOperations operations;    /* what came with the answer to a REG_WRITE; big lock */
    viommu_HostBatchReply failed; /* and what becomes of it */
} ViommuFront;

#define VIOMMU_INTERRUPT_RING 64
/* Most interrupt outputs that a unit has of its own. */
#define VIOMMU_MAX_WIRES 4

/* A message, or with `wire` (output + 1) an edge on an output of the unit. */
typedef struct ViommuInterrupt {
    uint64_t address;
    uint32_t data;
    uint32_t wire;
} ViommuInterrupt;

/* A message that needs the big lock, on its way to the main loop. */
typedef struct ViommuNotice {
    uint32_t type; /* viommu_MessageType: INVALIDATE (notifiers must hear of it), HOST_BATCH or TRACK */
    WireOperations *operations; /* of a HOST_BATCH, pages of a TRACK */
    uint32_t id;
    IotlbScope scope;
    uint32_t count;
    uint32_t *devices;
    QSIMPLEQ_ENTRY(ViommuNotice) next;
} ViommuNotice;

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

/* A backend message for a device of the bridge's own, on its way to the main loop. */
typedef struct ViommuDelivery {
    uint32_t type; /* viommu_MessageType: RESUME, PAGE_RESPONSE or DEVICE_TLB */
    uint32_t id;
    union {
        viommu_Resume resume;
        viommu_PageResponse page_response;
        viommu_DeviceTlb device_tlb;
    };
    ViommuEndpoint *later; /* who answers this DEVICE_TLB later; big lock */
    QTAILQ_ENTRY(ViommuDelivery) next;
} ViommuDelivery;

typedef QTAILQ_HEAD(ViommuDeliveries, ViommuDelivery) ViommuDeliveries;

/* The devices of the bridge's own behind this IOMMU. */
typedef struct ViommuEndpoints {
    QLIST_HEAD(, ViommuEndpoint) list; /* big lock */
    ViommuDeliveries unanswered;       /* big lock */

    QemuMutex lock; /* the fields below */
    ViommuDeliveries queue;
    bool scheduled;
    uint32_t under_way;   /* requests between viommu_endpoint_begin and _end */
    GArray *held_answers; /* ids of INVALIDATEs that wait for them */
} ViommuEndpoints;

/* A piece of RAM in the daemon's memory table. Big lock, or host_lock to look. */
typedef struct ViommuRegion {
    uint32_t id;
    MemoryRegion *mr;
    uint64_t gpa;
    uint64_t size;
    uint64_t offset;
    bool readonly;
    QTAILQ_ENTRY(ViommuRegion) next;
} ViommuRegion;

/* The address space of one requester: PCI bus and devfn (the bus's number may change), or a PASID of it. */
struct ViommuSpace {
    IOMMUMemoryRegion iommu;
    MemoryRegion root;
    MemoryRegion msi;
    AddressSpace as;
    ViommuCore *core;

    Iotlb tlb;
    WalkTables *tables;    /* NULL = every translation is asked for; RCU, tlb.lock to change */
    /* Where the bus keeps its number, so that a hit notices a change with one load. NULL = fixed. */
    const uint8_t *bus_number;
    uint16_t rid;          /* as last told to the daemon; front.lock to change */
    uint32_t pasid_plus_1; /* 0 = requests without PASID */
    uint32_t handle;       /* 0 = the daemon has not been told; front.lock */

    PCIBus *bus;           /* NULL once the bus is gone */
    uint8_t devfn;
    IOMMUNotifierFlag notifier_flags; /* big lock */
    struct HostDevice *host_device;   /* of VFIO by iommufd, or NULL; big lock */

    /* Written by whichever thread, read for reports: a lost increment is not worth a locked one. */
    uint64_t hits;
    uint64_t misses;
    uint64_t walks;
    QLIST_ENTRY(ViommuSpace) next;
};

struct ViommuCore {
    DeviceState *dev;

    /* Properties. */
    char *socket_path;
    char *vm_name;
    uint32_t timeout_ms;
    bool walks;          /* whether misses may walk tables here */

    /* Set by the device before viommu_core_connect. */
    const char *model;
    uint8_t aw_bits;     /* of input addresses, at most 64 */
    bool caching_mode;
    bool maps_in_silence; /* the guest does not say when it maps something: stores to its tables are trapped */
    uint32_t assigned;   /* spaces with MAP notifiers that HOST_BATCH serves; big lock */
    const char *no_map_events; /* why notifiers cannot be told of new mappings, without caching_mode */
    qemu_irq wires[VIOMMU_MAX_WIRES];
    uint32_t wire_count;
    uint64_t msi_base;   /* device writes here are interrupts, not DMA; msi_size 0 = none */
    uint64_t msi_size;
    uint64_t max_register_bytes;

    ViommuFront front;
    ViommuBackend backend;
    ViommuEndpoints endpoints;
    uint32_t features;   /* in force */
    bool connected;      /* realized far enough that `gone` deserves a report */
    bool alive;
    bool resetting;      /* notifiers have been emptied by the reset itself */
    bool exiting;
    char *gone_reason;   /* why the handshake failed */

    int page_fd;
    uint8_t *page;
    uint32_t page_bytes;
    uint32_t register_bytes;
    uint32_t writes_sent; /* front.lock to change */
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
    MemoryRegion void_memory; /* where iothreads' refused accesses go */
    AddressSpace void_as;

    uint32_t stale_fills;
    uint32_t invalidated;
    uint32_t refused;

    QLIST_ENTRY(ViommuCore) next; /* of those that are connected; big lock */
};

/* viommu-core.c */

/** Sets up the fields that need no connection. From instance_init. */
void viommu_core_init(ViommuCore *core, DeviceState *dev);
/** Adds the properties every device has: socket, name, timeout-ms. */
void viommu_core_describe_properties(ObjectClass *klass);
/** Connects, says HELLO with the given options, starts serving. False with errp set and everything undone. */
bool viommu_core_connect(ViommuCore *core, const viommu_Hello_OptionsEntry *options, unsigned count,
                         Error **errp);
/** Undoes viommu_core_connect. */
void viommu_core_disconnect(ViommuCore *core);
/** Machine reset: the model as at power-on, nothing cached, nothing mapped for anyone. Big lock. */
void viommu_core_reset(ViommuCore *core);
/** The daemon is lost: said once; from now on DMA is refused and writes are ignored. Any thread. */
void viommu_core_gone(ViommuCore *core, const char *format, ...) G_GNUC_PRINTF(2, 3);
/** Has `work` run on the main loop, with the core as its argument; it gives back core->dev's reference. Any thread. */
void viommu_core_schedule(ViommuCore *core, QEMUBHFunc *work);
/** Copies the counters to the control page. */
void viommu_core_publish(ViommuCore *core);

static inline bool viommu_core_alive(const ViommuCore *core)
{
    return qatomic_read(&core->alive);
}

static inline bool viommu_core_has(const ViommuCore *core, viommu_Feature feature)
{
    return core->features >> feature & 1;
}

static inline uint32_t *viommu_control(const ViommuCore *core, ControlWord word)
{
    return (uint32_t *)core->page + word;
}

/* front.c: requests on the front channel. False = the daemon is gone (already said). */

bool viommu_front_request_locked(ViommuCore *core, uint32_t type, const pb_msgdesc_t *fields,
                                 const void *message, int fd, const pb_msgdesc_t *reply_fields, void *reply);
bool viommu_front_post_locked(ViommuCore *core, uint32_t type, const pb_msgdesc_t *fields, const void *message);
/** Sends a frame as given. */
bool viommu_front_send_locked(ViommuCore *core, uint32_t type, uint32_t flags, uint32_t id,
                              const pb_msgdesc_t *fields, const void *message);
/** Receives a frame; not an ERROR, which is said. */
bool viommu_front_next_locked(ViommuCore *core, WireFrame *frame);
/** Takes a frame that must be the reply to `id`. */
bool viommu_front_take_locked(ViommuCore *core, const WireFrame *frame, uint32_t type, uint32_t id,
                              const pb_msgdesc_t *fields, void *reply);
/** Both: what has been asked for comes on the front channel. */
bool viommu_front_receive_locked(ViommuCore *core, uint32_t type, uint32_t id, const pb_msgdesc_t *fields,
                                 void *reply);
/** Answers what came with an answer. */
bool viommu_front_reply_locked(ViommuCore *core, uint32_t type, uint32_t id, const pb_msgdesc_t *fields,
                               const void *message);
bool viommu_front_request(ViommuCore *core, uint32_t type, const pb_msgdesc_t *fields, const void *message,
                          int fd, const pb_msgdesc_t *reply_fields, void *reply);
bool viommu_front_post(ViommuCore *core, uint32_t type, const pb_msgdesc_t *fields, const void *message);
bool viommu_front_hello(ViommuCore *core, const viommu_Hello *hello, const int *fds, unsigned nfds,
                        viommu_HelloReply *reply);
/** Ends the session when a span is cut short. */
bool viommu_spans_are_whole(ViommuCore *core, const WireSpans *spans);
/** Says why, if the frame is an ERROR; true when it was one. */
bool viommu_frame_is_error(ViommuCore *core, const WireFrame *frame);

/* mailbox.c: register writes and their answers without system calls, where MAILBOX is in force. front.lock. */

/** As viommu_front_request_locked. */
bool viommu_mail_request_locked(ViommuCore *core, uint32_t type, const pb_msgdesc_t *fields, const void *message,
                                const pb_msgdesc_t *reply_fields, void *reply);
/** As viommu_front_reply_locked. */
bool viommu_mail_reply_locked(ViommuCore *core, uint32_t type, uint32_t id, const pb_msgdesc_t *fields,
                              const void *message);

/* pci.c */

/** For pci_setup_iommu, with the core. */
extern const PCIIOMMUOps viommu_pci_ops;

/* host-devices.c: devices of the host that are here by iommufd. Big lock, but for viommu_hosts_wait. */

void viommu_hosts_init(ViommuCore *core);
/** QEMU's VFIO has attached a device. False with errp set: it can be assigned in no way. */
bool viommu_hosts_add(ViommuSpace *space, HostIOMMUDevice *hiod, Error **errp);
/** It goes; its descriptor is still open. */
void viommu_hosts_remove(ViommuSpace *space);
/** The daemon is gone: no device goes through anything that it asked for. */
void viommu_hosts_end(ViommuCore *core);
/** Lets go of the devices, and of the iommufd. */
void viommu_hosts_close(ViommuCore *core);
/** Returns when the backend channel has something, or after the host's queues had. Backend thread. */
void viommu_hosts_wait(ViommuCore *core);

/* host-objects.c */

/** Carries out a HOST_SPACE_CREATE … HOST_RESPOND, and answers it. False: it cannot be decoded. Backend thread. */
bool viommu_objects_serve(ViommuCore *core, const WireFrame *frame);

/* backend.c */

void viommu_backend_init(ViommuCore *core);
void viommu_backend_start(ViommuCore *core, int fd);
void viommu_backend_stop(ViommuCore *core);
/** Runs queued work until `count` pieces have been done since the session began. Big lock. */
void viommu_backend_run_until(ViommuCore *core, uint32_t count);
/** Answers queued invalidations. Main loop, big lock. */
void viommu_backend_run_notices(ViommuCore *core);
/** Answers a request of the daemon. Any thread. */
void viommu_backend_reply(ViommuCore *core, uint32_t type, uint32_t id, const pb_msgdesc_t *fields,
                          const void *message);

/* endpoints.c: messages to devices of the bridge's own, and to the notifiers of others' device TLBs. */

void viommu_endpoints_init(ViommuCore *core);
/** Takes a RESUME, PAGE_RESPONSE or DEVICE_TLB. False: it cannot be decoded. Backend thread. */
bool viommu_endpoints_serve(ViommuCore *core, const WireFrame *frame);
/** True: the answer to this INVALIDATE follows when the requests under way have ended. Backend thread. */
bool viommu_endpoints_hold_answer(ViommuCore *core, uint32_t id);
/** Ends everything that endpoints wait for, and answers what is asked of them. Big lock. */
void viommu_endpoints_end_all(ViommuCore *core);

/* guest-memory.c: what the daemon reads and writes through messages. RAM only, any thread. */

/** 0, or a non-zero code when some byte is not RAM. */
uint32_t viommu_guest_read(uint64_t gpa, void *data, uint32_t size);
uint32_t viommu_guest_write(uint64_t gpa, const void *data, uint32_t size);
/** Compares and swaps an aligned little-endian word; `found` is what was there. */
uint32_t viommu_guest_cas(uint64_t gpa, uint32_t expected, uint32_t value, uint32_t *found);

/* host.c: host mappings of assigned devices. Big lock. */

/** Whether the daemon keeps the host mappings of whoever wants MAP events. */
static inline bool viommu_hosts_are_shadowed(const ViommuCore *core)
{
    return core->features & 1u << viommu_Feature_FEATURE_HOST_BATCH;
}

/** Carries out operations for a device, by handle, and notes which of them failed. */
void viommu_host_run(ViommuCore *core, uint32_t device, const WireOperations *operations,
                     viommu_HostBatchReply *reply);
/** For notifiers of our own: the operation under way fails with this errno. */
void viommu_host_failed(int error);
/**
 * Returns when host mappings are what the guest's tables say: the caller waits, and does itself what there is to do. False:
 * all is done but for TRACKs that vCPUs have to hear of; when they have, the daemon looks again.
 */
bool viommu_host_settle(ViommuCore *core);
/** Somebody listens for [first, last] who has nothing mapped; returns when he has. */
void viommu_host_listen(ViommuSpace *space, uint64_t first, uint64_t last);

/* overlays.c: what brings stores to tracked pages to us. Big lock. */

/** Makes the overlays what the tracked pages and today's RAM ask for, in one memory transaction. */
void viommu_overlays_apply(ViommuCore *core);
/** Whether some page of [first, last], guest-physical, has an overlay. */
bool viommu_overlays_cover(ViommuCore *core, uint64_t first, uint64_t last);
/** Whether this is RAM under an overlay; any thread. */
bool viommu_overlays_is(const MemoryRegion *mr);
/** The RAM under an overlay, or what was given; any thread. */
MemoryRegion *viommu_overlays_ram_of(MemoryRegion *mr);

/* track.c: stores to table pages. Big lock. */

void viommu_track_start(ViommuCore *core);
void viommu_track_stop(ViommuCore *core);
/** Whether stores can be told of at all. */
bool viommu_track_possible(const ViommuCore *core);
/** Carries out a TRACK, which is answered at once or when every vCPU has heard of it. */
void viommu_track_run(ViommuCore *core, uint32_t id, const uint32_t *words, uint32_t count);
/** Answers what waits for vCPUs, if none is in the middle of something. False: one is. */
bool viommu_track_answer(ViommuCore *core);
/** RAM came or went: overlays follow, soon. */
void viommu_track_ram_changed(ViommuCore *core);
/** Somebody has stored to RAM under an overlay; returns when the store may end. */
void viommu_track_stored(ViommuCore *core, uint64_t gpa, unsigned size);
/** Nothing is tracked any more. */
void viommu_track_end_all(ViommuCore *core);
/** Aligned little-endian quadwords of RAM, each whole. rcu_read_lock held. */
bool viommu_guest_read_entries(uint64_t gpa, uint64_t *values, uint32_t count);

/* memory.c */

void viommu_memory_start(ViommuCore *core);
void viommu_memory_stop(ViommuCore *core);

/* regs.c */

void viommu_regs_init(ViommuCore *core, const char *name);

/* spaces.c */

/* The void: a page that nobody writes, and a page that nobody reads. */
#define VOID_ZEROS 0
#define VOID_SINK VIOMMU_PAGE_SIZE
#define VOID_SIZE (2 * VIOMMU_PAGE_SIZE)

/* The bus's number as QEMU's PCI code reads it for buses behind a bridge. */
static inline bool viommu_space_rid_is_current(const ViommuSpace *space)
{
    const uint8_t *number = qatomic_read(&space->bus_number);

    return !number || *number == space->rid >> 8;
}

#define TYPE_VIOMMU_IOMMU_MEMORY_REGION "viommu-iommu-memory-region"

/** The space that this address space belongs to, or NULL. Big lock. */
ViommuSpace *viommu_space_of(const AddressSpace *as);
/** The requester id of now. */
uint16_t viommu_space_rid(const ViommuSpace *space);
/** The address space of a requester, made at the first call. Big lock. */
ViommuSpace *viommu_space_get(ViommuCore *core, PCIBus *bus, int devfn);
/** Tells the daemon of the requester, or that its id changed. front.lock held. */
bool viommu_space_announce_locked(ViommuSpace *space);
/** Looks for changed requester ids among those with notifiers, before a register write. front.lock held. */
void viommu_spaces_refresh_locked(ViommuCore *core);
/** Takes tables that the requester's misses may walk. False: impossible values. Backend thread. */
bool viommu_spaces_take_tables(ViommuCore *core, const viommu_Tables *msg);
/** From now on every translation is asked for, until tables are told again. */
void viommu_spaces_drop_tables(ViommuCore *core);
/** Drops what the scope matches in one requester's (rid not IOTLB_ANY) or everyone's cache. */
void viommu_spaces_invalidate(ViommuCore *core, const IotlbScope *scope, uint32_t rid, uint32_t pasid_plus_1);
void viommu_spaces_flush(ViommuCore *core);
ViommuSpace *viommu_space_by_handle(ViommuCore *core, uint32_t handle);
bool viommu_spaces_start(ViommuCore *core, Error **errp);
void viommu_spaces_stop(ViommuCore *core);

/* translate.c */

/** Asks the daemon for a translation. False: it is gone. `rid` is what the request was asked with. */
bool viommu_space_ask(ViommuSpace *space, const ViommuRequest *request, ViommuAnswer *answer, uint16_t *rid);

/* notify.c: IOMMU notifiers (VFIO, vhost). Big lock. */

int viommu_notify_flag_changed(IOMMUMemoryRegion *mr, IOMMUNotifierFlag old_flags, IOMMUNotifierFlag new_flags,
                               Error **errp);
void viommu_notify_replay(IOMMUMemoryRegion *mr, IOMMUNotifier *n);
/** UNMAP for the block, then what is mapped there now. */
void viommu_notify_invalidate(ViommuSpace *space, const IotlbScope *scope);
/** Tells those who keep translations for a device with ATS (vhost) to drop the block. */
void viommu_notify_device_tlb(ViommuSpace *space, uint64_t address, uint32_t log2_size);
/** UNMAP everything that listens to one requester's translations. */
void viommu_notify_unmap(ViommuSpace *space);
/** UNMAP everything; for those whose mappings the daemon keeps only when it is gone (`all`). */
void viommu_notify_unmap_all(ViommuCore *core, bool all);
/** One operation of a HOST_BATCH, as events. */
void viommu_notify_operation(ViommuSpace *space, const uint32_t *words);
/** MAP what is mapped now, for those who asked. */
void viommu_notify_replay_all(ViommuCore *core);

#endif
