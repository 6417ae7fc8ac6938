/*
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A hand inside QEMU for those who measure and compare. Loaded the way the bridge is (LD_PRELOAD),
 * it adds `-device viommu-shim`, which works under -S: nothing runs but what it is told to do.
 *
 * It takes one command per line on an AF_UNIX socket and answers with one line: the timing commands
 * of bench.c, `echo` (echo.c), and `oracle`, which switches the connection to the binary batches of
 * oracle.c.
 */
#include "qemu/osdep.h"
#include "qemu/module.h"
#include "qemu/rcu.h"
#include "qapi/error.h"
#include "hw/qdev-properties.h"
#include "system/runstate.h"
#include "system/system.h"

#include <sys/socket.h>
#include <sys/un.h>

#include "echo.h"
#include "shim.h"

void shim_answer(ShimDevice *shim, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vfprintf(shim->stream, format, args);
    va_end(args);
    fputc('\n', shim->stream);
    fflush(shim->stream);
}

static void run_line(ShimDevice *shim, char *line)
{
    char name[32];
    int64_t a = 0, b = 0;

    if (sscanf(line, "%31s %" SCNd64 " %" SCNd64, name, &a, &b) < 1) {
        shim_answer(shim, "error empty command");
    } else if (!strcmp(name, "echo")) {
        echo_command(line, shim->stream);
    } else if (!strcmp(name, "oracle")) {
        oracle_serve(shim);
    } else if (!bench_command(shim, name, a, b)
#ifdef VIOMMU_SHIM_X86
               && !replay_command(shim, name, a, b)
#endif
    ) {
        shim_answer(shim, "error unknown command");
    }
}

/*
 * Works like a vCPU thread: takes the BQL for what needs it and lets the main loop run in between.
 */
static void *shim_thread(void *opaque)
{
    ShimDevice *shim = opaque;
    char line[512];

    rcu_register_thread();
    shim_answer(shim, "ready");
    while (fgets(line, sizeof(line), shim->stream)) {
        run_line(shim, line);
    }
    /* The asking side has gone: so does this machine. */
    qemu_system_shutdown_request(SHUTDOWN_CAUSE_HOST_QMP_QUIT);
    rcu_unregister_thread();
    return NULL;
}

/*
 * Called by the main loop, so after the first reset: one in the middle of the set-up would undo it.
 */
static gboolean start_thread(gpointer opaque)
{
    ShimDevice *shim = opaque;

    qemu_thread_create(&shim->thread, "viommu-shim", shim_thread, shim, QEMU_THREAD_DETACHED);
    return G_SOURCE_REMOVE;
}

static void shim_machine_done(Notifier *notifier, void *data)
{
    g_timeout_add(1, start_thread, container_of(notifier, ShimDevice, machine_done));
}

static void shim_realize(DeviceState *dev, Error **errp)
{
    ShimDevice *shim = VIOMMU_SHIM(dev);
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd;

    if (!shim->control || strlen(shim->control) >= sizeof(address.sun_path)) {
        error_setg(errp, "viommu-shim: control=PATH of a listening socket is needed");
        return;
    }
    strcpy(address.sun_path, shim->control);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address))) {
        error_setg_errno(errp, errno, "viommu-shim: cannot connect to %s", shim->control);
        if (fd >= 0) {
            close(fd);
        }
        return;
    }
    shim->stream = fdopen(fd, "r+");
    shim->machine_done.notify = shim_machine_done;
    qemu_add_machine_init_done_notifier(&shim->machine_done);
}

static const Property shim_properties[] = {
    DEFINE_PROP_STRING("control", ShimDevice, control),
    DEFINE_PROP_STRING("target", ShimDevice, target),
    DEFINE_PROP_STRING("bridge", ShimDevice, bridge),
};

static void shim_class_init(ObjectClass *klass, void *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);

    dc->realize = shim_realize;
    dc->user_creatable = true;
    dc->desc = "drives the IOMMU of this machine from outside";
    device_class_set_props(dc, shim_properties);
}

static const TypeInfo shim_info = {
    .name = TYPE_VIOMMU_SHIM,
    .parent = TYPE_DEVICE,
    .instance_size = sizeof(ShimDevice),
    .class_init = shim_class_init,
};

static void shim_register(void)
{
    type_register_static(&shim_info);
}
type_init(shim_register)
