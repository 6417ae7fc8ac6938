/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The way into a stock QEMU. This object is loaded with LD_PRELOAD, or by loader/, which
 * picks the one for the running QEMU; its constructor registers the device types when
 * the process is the QEMU that it was built for.
 * Everything taken from QEMU is a weak symbol (the Makefile sees to it), so the object
 * loads into any other program too, and does nothing there.
 */
#include "compat.h"
#include <dlfcn.h>
#include "qapi/qapi-types-control.h"
#include "qapi/qapi-commands-control.h"
#include "qemu/module.h"
#if __has_include("qemu/target-info.h")
#include "qemu/target-info.h"
#else
#include "hw/core/cpu.h"
#endif
#include "viommu-types.h"

/*
 * These are compared with NULL below: without this the compiler knows that they are
 * there.
 */
#pragma weak register_module_init
#pragma weak type_register_static
#pragma weak qmp_query_version
#pragma weak target_name

/* Later releases have it: NULL until QEMU's main has set it. */
extern const void *viommu_target_info(void) __asm__("target_info") __attribute__((weak));

#define SAYS "viommu-bridge: "

static void refuse(const char *what)
{
    fprintf(stderr, SAYS "%s\n", what);
    _exit(1);
}

/* Whatever QEMU starts (helpers, scripts) has no use for this object. */
static void clear_preload(void)
{
    unsetenv("LD_PRELOAD");
}

static void check_target(void)
{
    if (viommu_target_info && !viommu_target_info()) {
        return;
    }
    if (strcmp(target_name(), VIOMMU_TARGET)) {
        char text[160];

        snprintf(text, sizeof(text),
                 "this object is for qemu-system-%s, the program is qemu-system-%s",
                 VIOMMU_TARGET, target_name());
        refuse(text);
    }
}

/*
 * Structures are laid out by the headers of one release; another one would read them
 * wrongly.
 */
static void check_version(void)
{
    VersionInfo *info = qmp_query_version(NULL);
    char text[192], running[48];

    snprintf(running, sizeof(running), "%" PRId64 ".%" PRId64 ".%" PRId64,
             info->qemu->major, info->qemu->minor, info->qemu->micro);
    if (strcmp(running, QEMU_VERSION)) {
        snprintf(text, sizeof(text),
                 "built for QEMU " QEMU_VERSION ", this is %s: run npm run setup",
                 running);
        refuse(text);
    }
}

static void __attribute__((constructor)) viommu_load(void)
{
    if (!register_module_init || !type_register_static || !qmp_query_version ||
        !target_name) {
        fprintf(
            stderr,
            SAYS
            "%s is not a QEMU system emulator that exports its symbols (Debian's does); "
            "nothing is added to it\n",
            program_invocation_name);
        return;
    }
    clear_preload();
    check_target();
    check_version();
    register_module_init(viommu_register_types, MODULE_INIT_QOM);
}
