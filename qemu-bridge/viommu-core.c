/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A session with the daemon: connect and HELLO, reset, the end of it, and what is reported. */
#include "compat.h"
#include <sys/socket.h>
#include <sys/un.h>
#include "qemu/memfd.h"
#include "backend.h"
#include "completion.h"
#include "endpoints.h"
#include "front.h"
#include "guest-memory.h"
#include "host.h"
#include "notify.h"
#include "shared-page.h"
#include "spaces.h"
#include "text.h"
#include "track.h"
#include "viommu-core.h"
#include "wire.h"

#define FEATURE_BIT(name) (1u << viommu_Feature_FEATURE_##name)
/* TRACKING is offered only where it is needed: see features_offered. */
#define OUR_FEATURES (FEATURE_BIT(SHARED_MEMORY) | FEATURE_BIT(REMOTE_MEMORY) | FEATURE_BIT(NOTIFIERS) | \
                      FEATURE_BIT(SPANS) | FEATURE_BIT(ATS) | FEATURE_BIT(PRI) | FEATURE_BIT(STALLS) | \
                      FEATURE_BIT(HOST_BATCH) | FEATURE_BIT(WALKS) | FEATURE_BIT(TRACKING) | \
                      FEATURE_BIT(NESTING) | FEATURE_BIT(WRITE_REPLY) | FEATURE_BIT(MAILBOX) | \
                      FEATURE_BIT(QUEUES))

static QLIST_HEAD(, ViommuCore) cores = QLIST_HEAD_INITIALIZER(cores);

void viommu_core_init(ViommuCore *core, DeviceState *dev)
{
    core->dev = dev;
    core->page_fd = -1;
    core->front.wire.fd = -1;
    core->max_register_bytes = 64 * KiB;
    qemu_mutex_init(&core->front.lock);
    QLIST_INIT(&core->spaces);
    QTAILQ_INIT(&core->regions);
    viommu_backend_init(core);
    viommu_endpoints_init(core);
    viommu_hosts_init(core);
}

void viommu_core_describe_properties(ObjectClass *klass)
{
    object_class_property_set_description(klass, "socket", "path of the viommu daemon's socket (required)");
    object_class_property_set_description(klass, "name", "name of this VM in the daemon's lists and logs "
                                          "(default: that of -name, or the process id)");
    object_class_property_set_description(klass, "timeout-ms", "how long an answer of the daemon may take before "
                                          "it counts as gone");
    object_class_property_set_description(klass, "queues", "off: the daemon is asked for every invalidation, also where it "
                                          "lets QEMU complete it");
    object_class_property_set_description(klass, "walks", "off: the daemon is asked for every translation that is not "
                                          "cached, also where it lets QEMU walk the guest's tables");
}

ViommuSpace *viommu_space_of(const AddressSpace *as)
{
    ViommuCore *core;
    ViommuSpace *space;

    QLIST_FOREACH(core, &cores, next) {
        QLIST_FOREACH_RCU(space, &core->spaces, next) {
            if (&space->as == as) {
                return space;
            }
        }
    }
    return NULL;
}

/* The reference keeps the device until the work queued on the main loop has run. */
void viommu_core_schedule(ViommuCore *core, QEMUBHFunc *work)
{
    object_ref(OBJECT(core->dev));
    aio_bh_schedule_oneshot(qemu_get_aio_context(), work, core);
}

static void gone_bh(void *opaque)
{
    ViommuCore *core = opaque;

    viommu_endpoints_end_all(core);
    /* Nobody says any more what assigned devices may reach. */
    viommu_hosts_end(core);
    viommu_notify_unmap_all(core, true);
    viommu_track_end_all(core);
    object_unref(OBJECT(core->dev));
}

/* Says it once. Whoever waits on the sockets wakes up; DMA is refused and writes are ignored from here on. */
void viommu_core_gone(ViommuCore *core, const char *format, ...)
{
    g_autofree char *reason = NULL;
    va_list args;

    if (!qatomic_xchg(&core->alive, false)) {
        return;
    }
    va_start(args, format);
    reason = g_strdup_vprintf(format, args);
    va_end(args);
    wire_shutdown(&core->front.wire);
    wire_shutdown(&core->backend.wire);
    viommu_spaces_flush(core);
    if (!core->connected) {
        core->gone_reason = g_steal_pointer(&reason);
        return;
    }
    viommu_core_schedule(core, gone_bh);
    if (!qatomic_read(&core->exiting)) {
        error_report("viommu: %s; from now on devices behind this IOMMU get no DMA through", reason);
    }
}

void viommu_core_publish(ViommuCore *core)
{
    uint64_t hits = 0, misses = 0, walks = 0;
    ViommuSpace *space;

    QLIST_FOREACH_RCU(space, &core->spaces, next) {
        hits += qatomic_read(&space->hits);
        misses += qatomic_read(&space->misses);
        walks += qatomic_read(&space->walks);
    }
    qatomic_set(viommu_control(core, CONTROL_WORD_HITS_LO), (uint32_t)hits);
    qatomic_set(viommu_control(core, CONTROL_WORD_HITS_HI), hits >> 32);
    qatomic_set(viommu_control(core, CONTROL_WORD_MISSES_LO), (uint32_t)misses);
    qatomic_set(viommu_control(core, CONTROL_WORD_MISSES_HI), misses >> 32);
    qatomic_set(viommu_control(core, CONTROL_WORD_WALKS_LO), (uint32_t)walks);
    qatomic_set(viommu_control(core, CONTROL_WORD_WALKS_HI), walks >> 32);
    qatomic_set(viommu_control(core, CONTROL_WORD_STALE_FILLS), qatomic_read(&core->stale_fills));
    qatomic_set(viommu_control(core, CONTROL_WORD_INVALIDATED), qatomic_read(&core->invalidated));
    qatomic_set(viommu_control(core, CONTROL_WORD_REFUSED), qatomic_read(&core->refused));
}

static void exit_notify(Notifier *notifier, void *data)
{
    ViommuCore *core = container_of(notifier, ViommuCore, exit_notifier);

    qatomic_set(&core->exiting, true);
    viommu_core_publish(core);
}

static int connect_socket(const char *path, Error **errp)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd;

    if (strlen(path) >= sizeof(address.sun_path)) {
        error_setg(errp, "socket: the path is longer than %zu bytes", sizeof(address.sun_path) - 1);
        return -1;
    }
    pstrcpy(address.sun_path, sizeof(address.sun_path), path);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        error_setg_errno(errp, errno, "no viommu daemon answers on %s", path);
        if (fd >= 0) {
            close(fd);
        }
        return -1;
    }
    return fd;
}

static bool create_page(ViommuCore *core, Error **errp)
{
    core->page_bytes = PAGE_REGISTERS_OFFSET + core->max_register_bytes + RING_BYTES;
    /* May not shrink: the daemon maps it. */
    core->page = qemu_memfd_alloc("viommu-page", core->page_bytes, F_SEAL_GROW | F_SEAL_SHRINK, &core->page_fd,
                                  errp);
    if (!core->page) {
        return false;
    }
    *viommu_control(core, CONTROL_WORD_MAGIC) = CONTROL_MAGIC;
    core->writes_sent = core->ring_filled = 0;
    core->front.sent = core->front.mail_sent = core->front.mail_answers = 0;
    return true;
}

static uint32_t features_offered(const ViommuCore *core)
{
    return OUR_FEATURES & ~(core->walks ? 0 : FEATURE_BIT(WALKS)) & ~(core->queues ? 0 : FEATURE_BIT(QUEUES)) &
           ~(core->maps_in_silence ? 0 : FEATURE_BIT(TRACKING));
}

static void fill_hello(ViommuCore *core, viommu_Hello *hello, const viommu_Hello_OptionsEntry *options,
                       unsigned count)
{
    hello->version = WIRE_VERSION;
    hello->features = features_offered(core);
    if (core->vm_name) {
        viommu_text_copy(hello->vm, sizeof(hello->vm), core->vm_name);
    } else if (qemu_get_vm_name()) {
        viommu_text_copy(hello->vm, sizeof(hello->vm), qemu_get_vm_name());
    } else {
        snprintf(hello->vm, sizeof(hello->vm), "qemu-%d", (int)getpid());
    }
    pstrcpy(hello->model, sizeof(hello->model), core->model);
    pstrcpy(hello->peer, sizeof(hello->peer), "qemu " QEMU_VERSION " viommu-bridge " VIOMMU_BRIDGE_VERSION);
    hello->shared_bytes = core->page_bytes;
    assert(count <= ARRAY_SIZE(hello->options));
    memcpy(hello->options, options, count * sizeof(*options));
    hello->options_count = count;
}

static bool check_hello(ViommuCore *core, const viommu_HelloReply *reply, Error **errp)
{
    if (reply->version != WIRE_VERSION) {
        error_setg(errp, "the daemon speaks protocol version %" PRIu32 ", this bridge speaks %d", reply->version,
                   WIRE_VERSION);
        return false;
    }
    if (!reply->register_bytes || reply->register_bytes > core->max_register_bytes) {
        error_setg(errp, "the daemon's register space of %" PRIu32 " bytes does not fit (1 to %" PRIu64 ")",
                   reply->register_bytes, core->max_register_bytes);
        return false;
    }
    core->register_bytes = reply->register_bytes;
    core->features = reply->features & features_offered(core);
    return true;
}

static bool say_hello(ViommuCore *core, int backend_peer, const viommu_Hello_OptionsEntry *options,
                      unsigned count, Error **errp)
{
    g_autofree viommu_Hello *hello = g_new0(viommu_Hello, 1);
    viommu_HelloReply reply = viommu_HelloReply_init_zero;
    const int fds[] = { backend_peer, core->page_fd };

    fill_hello(core, hello, options, count);
    if (!viommu_front_hello(core, hello, fds, ARRAY_SIZE(fds), &reply)) {
        error_setg(errp, "%s: %s", core->socket_path, core->gone_reason ? core->gone_reason : "no session");
        return false;
    }
    return check_hello(core, &reply, errp);
}

bool viommu_core_connect(ViommuCore *core, const viommu_Hello_OptionsEntry *options, unsigned count,
                         Error **errp)
{
    int fd, pair[2];
    bool ok;

    if (!core->socket_path || !*core->socket_path) {
        error_setg(errp, "socket=PATH is missing: the socket of a viommu daemon");
        return false;
    }
    fd = connect_socket(core->socket_path, errp);
    if (fd < 0) {
        return false;
    }
    wire_init(&core->front.wire, fd, core->timeout_ms, core->timeout_ms);
    if (!create_page(core, errp) || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
        if (core->page) {
            error_setg_errno(errp, errno, "socketpair");
        }
        viommu_core_disconnect(core);
        return false;
    }
    qatomic_set(&core->alive, true);
    ok = say_hello(core, pair[1], options, count, errp);
    close(pair[1]);
    viommu_backend_start(core, pair[0]);
    if (!ok || !viommu_spaces_start(core, errp)) {
        viommu_core_disconnect(core);
        return false;
    }
    core->connected = true;
    QLIST_INSERT_HEAD(&cores, core, next);
    core->exit_notifier.notify = exit_notify;
    qemu_add_exit_notifier(&core->exit_notifier);
    viommu_track_start(core);
    viommu_memory_start(core);
    return true;
}

void viommu_core_disconnect(ViommuCore *core)
{
    qatomic_set(&core->exiting, true);
    if (core->connected) {
        QLIST_REMOVE(core, next);
    }
    viommu_memory_stop(core);
    viommu_track_stop(core);
    viommu_spaces_stop(core);
    viommu_hosts_close(core);
    if (core->exit_notifier.notify) {
        qemu_remove_exit_notifier(&core->exit_notifier);
        core->exit_notifier.notify = NULL;
    }
    qatomic_set(&core->alive, false);
    wire_shutdown(&core->front.wire);
    viommu_backend_stop(core);
    viommu_completion_stop(core);
    wire_close(&core->front.wire);
    if (core->page) {
        qemu_memfd_free(core->page, core->page_bytes, core->page_fd);
        core->page = NULL;
        core->page_fd = -1;
    }
    g_clear_pointer(&core->gone_reason, g_free);
    core->connected = false;
    qatomic_set(&core->exiting, false);
}

/*
 * The answer to RESET must not depend on an acknowledgement that takes the lock held here. So notifiers are
 * emptied first, and invalidations that name them are answered at once until the reset is over.
 */
void viommu_core_reset(ViommuCore *core)
{
    viommu_Reset msg = viommu_Reset_init_zero;
    viommu_Status status = viommu_Status_init_zero;

    if (!viommu_core_alive(core)) {
        return;
    }
    qatomic_set(&core->resetting, true);
    viommu_backend_run_notices(core);
    viommu_notify_unmap_all(core, false);
    viommu_front_request(core, viommu_MessageType_RESET, viommu_Reset_fields, &msg, -1, viommu_Status_fields,
                         &status);
    viommu_spaces_flush(core);
    viommu_endpoints_end_all(core);
    viommu_core_publish(core);
    qatomic_set(&core->resetting, false);
    viommu_notify_replay_all(core);
    viommu_host_settle(core);
}
