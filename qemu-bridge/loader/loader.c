/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Loads the bridge that was built for the QEMU it finds itself in. A bridge fits one
 * release, because it knows QEMU's structures by that release's headers. This object
 * knows none: it is loaded with LD_PRELOAD, asks QEMU for its version, and loads the
 * bridge of that version from its own directory. So several bridges lie side by side,
 * and the path that a command line or a libvirt domain names stays as it is when QEMU is
 * upgraded.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SAYS "viommu-bridge: "
#define PREFIX "viommu-bridge-"
#define SUFFIX ".so"

/*
 * What query-version answers with: types of QEMU's monitor protocol (qapi/control.json),
 * which stay as they are from release to release.
 */
typedef struct VersionTriple {
    int64_t major, minor, micro;
} VersionTriple;

typedef struct VersionInfo {
    VersionTriple *qemu;
    char *package;
} VersionInfo;

typedef int IoctlFunction(int fd, unsigned long request, ...);

/* QEMU's; missing in any other program. */
extern VersionInfo *qmp_query_version(void **errp) __attribute__((weak));
extern const char *target_name(void) __attribute__((weak));
extern const void *target_info(void) __attribute__((weak));

/* The bridge's, which watches what QEMU's VFIO does. */
static IoctlFunction *bridge_ioctl;

__attribute__((visibility("default"))) int ioctl(int fd, unsigned long request, ...)
{
    va_list args;
    void *argument;

    va_start(args, request);
    argument = va_arg(args, void *);
    va_end(args);
    return bridge_ioctl ? bridge_ioctl(fd, request, argument)
                        : syscall(SYS_ioctl, fd, request, argument);
}

static void __attribute__((format(printf, 1, 2), noreturn)) refuse(const char *format, ...)
{
    va_list args;

    fputs(SAYS, stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    _exit(1);
}

/* The directory that this object is in, links followed: the bridges are there. */
static void own_directory(char *path)
{
    Dl_info self;

    if (!dladdr((void *)own_directory, &self) || !realpath(self.dli_fname, path)) {
        refuse("the directory of this object cannot be found: %s", strerror(errno));
    }
    *strrchr(path, '/') = '\0';
}

/* A version as it stands in a file's name; setup/bridge.mjs writes it in the same way. */
static void plain_name(char *text)
{
    static const char kept[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                               "0123456789.+~-";

    for (; *text; text++) {
        if (!strchr(kept, *text)) {
            *text = '_';
        }
    }
}

/* Names of the versions that there are bridges for, with commas between them. */
static void list_bridges(const char *directory, const char *target, char *text, size_t size)
{
    char start[NAME_MAX];
    struct dirent *entry;
    DIR *files = opendir(directory);
    size_t used = 0;

    snprintf(start, sizeof(start), PREFIX "%s-", target);
    text[0] = '\0';
    while (files && (entry = readdir(files))) {
        const char *version = entry->d_name + strlen(start);
        size_t length = strlen(entry->d_name);

        if (!strncmp(entry->d_name, start, strlen(start)) && length > strlen(SUFFIX) &&
            !strcmp(entry->d_name + length - strlen(SUFFIX), SUFFIX) && used < size) {
            used += snprintf(text + used, size - used, "%s%.*s", used ? ", " : "",
                             (int)(strlen(version) - strlen(SUFFIX)), version);
        }
    }
    if (files) {
        closedir(files);
    }
}

/* What makes a bridge for this program. */
static void name_setup(const char *target, char *text, size_t size)
{
    char program[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", program, sizeof(program) - 1);

    program[length < 0 ? 0 : length] = '\0';
    if (length < 0 || !strncmp(program, "/usr/bin/", strlen("/usr/bin/"))) {
        snprintf(text, size, "npm run setup");
    } else {
        snprintf(text, size, "npm run setup -- --arch %s --qemu %s",
                 strcmp(target, "aarch64") ? "amd64" : "arm64", program);
    }
}

static void __attribute__((noreturn))
refuse_version(const char *directory, const char *target, const VersionInfo *info)
{
    char known[1024], command[PATH_MAX + 64];

    list_bridges(directory, target, known, sizeof(known));
    name_setup(target, command, sizeof(command));
    refuse("%s has no bridge for QEMU %d.%d.%d (%s) with %s guests, but %s%s: run %s",
           directory, (int)info->qemu->major, (int)info->qemu->minor,
           (int)info->qemu->micro, *info->package ? info->package : "no package",
           target, *known ? "for " : "none at all", known, command);
}

/*
 * QEMU's name of the guest architecture. A QEMU that can be built for several ones at
 * once (11.1) learns which it is after the constructors have run, from its name.
 */
static const char *guest_target(void)
{
    static const char start[] = "qemu-system-";
    static char program[PATH_MAX];
    const char *name = program_invocation_short_name;

    if (!target_info || target_info()) {
        return target_name();
    }
    /* Under another name, the one of its file counts. */
    if (strncmp(name, start, strlen(start)) &&
        readlink("/proc/self/exe", program, sizeof(program) - 1) > 0) {
        name = strrchr(program, '/') + 1;
    }
    return strncmp(name, start, strlen(start)) ? name : name + strlen(start);
}

static void __attribute__((constructor)) load(void)
{
    const char *target;
    char directory[PATH_MAX], package[NAME_MAX], file[2 * PATH_MAX];
    VersionInfo *info;
    void *bridge;

    if (!qmp_query_version || !target_name) {
        fprintf(stderr,
                SAYS "%s is not a QEMU system emulator that exports its symbols "
                     "(Debian's does); nothing is added to it\n",
                program_invocation_name);
        return;
    }
    /* Whatever QEMU starts (helpers, scripts) has no use for this object. */
    unsetenv("LD_PRELOAD");
    own_directory(directory);
    target = guest_target();
    info = qmp_query_version(NULL);
    snprintf(package, sizeof(package), "%s%s", *info->package ? "-" : "", info->package);
    plain_name(package);
    snprintf(file, sizeof(file), "%s/" PREFIX "%s-%d.%d.%d%s" SUFFIX, directory,
             target, (int)info->qemu->major, (int)info->qemu->minor,
             (int)info->qemu->micro, package);
    if (access(file, F_OK)) {
        refuse_version(directory, target, info);
    }
    bridge = dlopen(file, RTLD_LAZY | RTLD_LOCAL);
    if (!bridge) {
        refuse("%s", dlerror());
    }
    bridge_ioctl = (IoctlFunction *)dlsym(bridge, "ioctl");
}
