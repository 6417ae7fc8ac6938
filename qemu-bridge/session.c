/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A session with the daemon: connect and HELLO, reset, the end. What lower files need
 * from above is handed to them here: the handlers of the daemon's requests, and what the
 * loss of the daemon sets off.
 */
#include "compat.h"
#include <sys/socket.h>
#include <sys/un.h>
#include "qemu/memfd.h"
#include "backend.h"
#include "completion.h"
#include "endpoints.h"
#include "front.h"
#include "guest-messages.h"
#include "host-batch.h"
#include "host-devices.h"
#include "host-objects.h"
#include "interrupts.h"
#include "invalidation.h"
#include "memory-table.h"
#include "notices.h"
#include "notify.h"
#include "requesters.h"
#include "session.h"
#include "settle.h"
#include "shared-page.h"
#include "spaces.h"
#include "text.h"
#include "track.h"
#include "unit-interrupts.h"
#include "viommu-core.h"
#include "wire.h"

#define FEATURE_BIT(name) (1u << viommu_Feature_FEATURE_##name)
/* TRACKING is offered only where it is needed: see features_offered. */
#define OUR_FEATURES \
    (FEATURE_BIT(SHARED_MEMORY) | FEATURE_BIT(REMOTE_MEMORY) | FEATURE_BIT(NOTIFIERS) | \
     FEATURE_BIT(SPANS) | FEATURE_BIT(ATS) | FEATURE_BIT(PRI) | FEATURE_BIT(STALLS) | \
     FEATURE_BIT(HOST_BATCH) | FEATURE_BIT(PEER_WALKS) | FEATURE_BIT(TRACKING) | \
     FEATURE_BIT(NESTING) | FEATURE_BIT(WRITE_REPLY) | FEATURE_BIT(MAILBOX) | \
     FEATURE_BIT(QUEUES) | FEATURE_BIT(INTERRUPT_REMAPPING))

/* What the backend thread serves. */
static ViommuHandler *const handlers[] = {
    [viommu_MessageType_INVALIDATE] = viommu_invalidation_serve,
    [viommu_MessageType_INVALIDATE_INTERRUPTS] = viommu_interrupts_serve,
    [viommu_MessageType_HOST_BATCH] = viommu_host_batch_serve,
    [viommu_MessageType_PEER_WALK] = viommu_spaces_serve_tables,
    [viommu_MessageType_QUEUE] = viommu_completion_serve_queue,
    [viommu_MessageType_TRACK] = viommu_track_serve,
    [viommu_MessageType_INTERRUPT] = viommu_unit_interrupts_serve,
    [viommu_MessageType_MEM_READ] = viommu_guest_messages_serve_read,
    [viommu_MessageType_MEM_WRITE] = viommu_guest_messages_serve_write,
    [viommu_MessageType_MEM_CAS] = viommu_guest_messages_serve_cas,
    [viommu_MessageType_HOST_SPACE_CREATE] = viommu_host_objects_serve,
    [viommu_MessageType_HOST_SPACE_DESTROY] = viommu_host_objects_serve,
    [viommu_MessageType_HOST_MAP] = viommu_host_objects_serve,
    [viommu_MessageType_HOST_ATTACH] = viommu_host_objects_serve,
    [viommu_MessageType_HOST_ATTACH_TABLES] = viommu_host_objects_serve,
    [viommu_MessageType_HOST_DETACH] = viommu_host_objects_serve,
    [viommu_MessageType_HOST_IDENTIFY] = viommu_host_objects_serve,
    [viommu_MessageType_HOST_INVALIDATE] = viommu_host_objects_serve,
    [viommu_MessageType_HOST_PASID_ALLOC] = viommu_host_objects_serve,
    [viommu_MessageType_HOST_PASID_FREE] = viommu_host_objects_serve,
    [viommu_MessageType_HOST_RESPOND] = viommu_host_objects_serve,
    [viommu_MessageType_RESUME] = viommu_endpoints_serve,
    [viommu_MessageType_PAGE_RESPONSE] = viommu_endpoints_serve,
    [viommu_MessageType_DEVICE_TLB] = viommu_endpoints_serve,
};

static const ViommuBackendOps backend_ops = {
    .wait = viommu_hosts_wait,
    .handlers = handlers,
    .handler_count = ARRAY_SIZE(handlers),
};

/*
 * On the main loop: what waited for the daemon ends, and no device keeps what it was
 * given.
 */
static void end(ViommuCore *core)
{
    viommu_endpoints_end_all(core);
    viommu_hosts_end(core);
    viommu_notify_unmap_all(core, true);
    viommu_track_end_all(core);
}

static const ViommuLoss loss = {
    .at_once = viommu_spaces_flush,
    .on_main_loop = end,
};

void viommu_session_init(ViommuCore *core, DeviceState *dev)
{
    core->dev = dev;
    core->loss = &loss;
    core->page_fd = -1;
    core->front.wire.fd = -1;
    core->max_register_bytes = 64 * KiB;
    qemu_mutex_init(&core->front.lock);
    qemu_mutex_init(&core->counters.lock);
    QLIST_INIT(&core->spaces);
    QTAILQ_INIT(&core->regions);
    viommu_backend_init(core);
    viommu_notices_init(core);
    viommu_unit_interrupts_init(core);
    viommu_endpoints_init(core);
    viommu_interrupts_init(core);
    viommu_hosts_init(core);
}

void viommu_session_describe_properties(ObjectClass *klass)
{
    object_class_property_set_description(
        klass, "socket", "path of the viommu daemon's socket (required)");
    object_class_property_set_description(
        klass, "name",
        "name of this VM in the daemon's lists and logs "
        "(default: that of -name, or the process id)");
    object_class_property_set_description(
        klass, "timeout-ms",
        "how long an answer of the daemon may take before "
        "it counts as gone");
    object_class_property_set_description(
        klass, "queues",
        "off: the daemon is asked for every invalidation, also "
        "where it lets QEMU complete it");
    object_class_property_set_description(
        klass, "walks",
        "off: the daemon is asked for every translation that is "
        "not cached, also where it lets QEMU walk the guest's "
        "tables");
}

static void exit_notify(Notifier *notifier, void *data)
{
    ViommuCore *core = container_of(notifier, ViommuCore, exit_notifier);

    qatomic_set(&core->exiting, true);
    viommu_core_publish_all(core);
    viommu_interrupts_publish(core);
}

static int connect_socket(const char *path, Error **errp)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd;

    if (strlen(path) >= sizeof(address.sun_path)) {
        error_setg(errp, "socket: the path is longer than %zu bytes",
                   sizeof(address.sun_path) - 1);
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
    core->page = qemu_memfd_alloc("viommu-page", core->page_bytes,
                                  F_SEAL_GROW | F_SEAL_SHRINK, &core->page_fd, errp);
    if (!core->page) {
        return false;
    }
    *viommu_control(core, viommu_CONTROL_WORD_MAGIC) = viommu_SHARED_MAGIC;
    core->writes_sent = core->ring_filled = 0;
    core->front.sent = core->front.mail_sent = core->front.mail_answers = 0;
    return true;
}

static uint32_t features_offered(const ViommuCore *core)
{
    return OUR_FEATURES & ~(core->walks ? 0 : FEATURE_BIT(PEER_WALKS)) &
           ~(core->queues ? 0 : FEATURE_BIT(QUEUES)) &
           ~(core->interrupts.remapped ? 0 : FEATURE_BIT(INTERRUPT_REMAPPING)) &
           ~(core->maps_in_silence ? 0 : FEATURE_BIT(TRACKING));
}

static void fill_hello(ViommuCore *core, viommu_Hello *hello,
                       const viommu_Hello_OptionsEntry *options, unsigned count)
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
    pstrcpy(hello->peer, sizeof(hello->peer),
            "qemu " QEMU_VERSION " viommu-bridge " VIOMMU_BRIDGE_VERSION);
    hello->shared_bytes = core->page_bytes;
    assert(count <= ARRAY_SIZE(hello->options));
    memcpy(hello->options, options, count * sizeof(*options));
    hello->options_count = count;
}

static bool check_hello(ViommuCore *core, const viommu_HelloReply *reply, Error **errp)
{
    if (reply->version != WIRE_VERSION) {
        error_setg(errp,
                   "the daemon speaks protocol version %" PRIu32
                   ", this bridge speaks %d",
                   reply->version, WIRE_VERSION);
        return false;
    }
    if (!reply->register_bytes || reply->register_bytes > core->max_register_bytes) {
        error_setg(errp,
                   "the daemon's register space of %" PRIu32
                   " bytes does not fit (1 to %" PRIu64 ")",
                   reply->register_bytes, core->max_register_bytes);
        return false;
    }
    core->register_bytes = reply->register_bytes;
    core->features = reply->features & features_offered(core);
    if (core->interrupts.remapped &&
        !viommu_core_has(core, viommu_Feature_FEATURE_INTERRUPT_REMAPPING)) {
        error_setg(errp, "intremap=on: this daemon remaps no interrupts");
        return false;
    }
    return true;
}

static bool say_hello(ViommuCore *core, int backend_peer,
                      const viommu_Hello_OptionsEntry *options, unsigned count,
                      Error **errp)
{
    g_autofree viommu_Hello *hello = g_new0(viommu_Hello, 1);
    viommu_HelloReply reply = viommu_HelloReply_init_zero;
    const int fds[] = { backend_peer, core->page_fd };

    fill_hello(core, hello, options, count);
    if (!viommu_front_hello(core, hello, fds, ARRAY_SIZE(fds), &reply)) {
        error_setg(errp, "%s: %s", core->socket_path,
                   core->gone_reason ? core->gone_reason : "no session");
        return false;
    }
    return check_hello(core, &reply, errp);
}

/* Undoes viommu_session_connect. */
static void disconnect(ViommuCore *core)
{
    qatomic_set(&core->exiting, true);
    viommu_memory_table_stop(core);
    viommu_track_stop(core);
    viommu_requesters_stop(core);
    viommu_hosts_close(core);
    if (core->exit_notifier.notify) {
        qemu_remove_exit_notifier(&core->exit_notifier);
        core->exit_notifier.notify = NULL;
    }
    qatomic_set(&core->alive, false);
    viommu_wire_shutdown(&core->front.wire);
    viommu_backend_stop(core);
    viommu_completion_stop(core);
    viommu_wire_close(&core->front.wire);
    if (core->page) {
        qemu_memfd_free(core->page, core->page_bytes, core->page_fd);
        core->page = NULL;
        core->page_fd = -1;
    }
    g_clear_pointer(&core->gone_reason, g_free);
    core->connected = false;
    qatomic_set(&core->exiting, false);
}

bool viommu_session_connect(ViommuCore *core, const viommu_Hello_OptionsEntry *options,
                            unsigned count, Error **errp)
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
    viommu_wire_init(&core->front.wire, fd, core->timeout_ms, core->timeout_ms);
    if (!create_page(core, errp) ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
        if (core->page) {
            error_setg_errno(errp, errno, "socketpair");
        }
        disconnect(core);
        return false;
    }
    qatomic_set(&core->alive, true);
    ok = say_hello(core, pair[1], options, count, errp);
    close(pair[1]);
    viommu_backend_start(core, pair[0], &backend_ops);
    if (!ok || !viommu_requesters_start(core, errp)) {
        disconnect(core);
        return false;
    }
    core->connected = true;
    core->exit_notifier.notify = exit_notify;
    qemu_add_exit_notifier(&core->exit_notifier);
    viommu_track_start(core);
    viommu_memory_table_start(core);
    return true;
}

/*
 * The answer to RESET must not depend on an acknowledgement that takes the lock held
 * here. So notifiers are emptied first, and invalidations that name them are answered at
 * once until the reset is over.
 */
void viommu_session_reset(ViommuCore *core)
{
    viommu_Reset msg = viommu_Reset_init_zero;
    viommu_Status status = viommu_Status_init_zero;

    if (!viommu_core_alive(core)) {
        viommu_interrupts_reset(core);
        return;
    }
    qatomic_set(&core->resetting, true);
    viommu_notices_run(core);
    viommu_notify_unmap_all(core, false);
    viommu_front_request(core, viommu_MessageType_RESET, viommu_Reset_fields, &msg, -1,
                         viommu_Status_fields, &status);
    viommu_spaces_flush(core);
    viommu_endpoints_end_all(core);
    viommu_core_publish_all(core);
    qatomic_set(&core->resetting, false);
    viommu_interrupts_reset(core);
    viommu_notify_replay_all(core);
    viommu_settle(core);
}
