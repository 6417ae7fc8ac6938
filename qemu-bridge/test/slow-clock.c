/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * For tests: each look at a clock is a millisecond later than the one before. What goes
 * by how little time has passed never gets what it waits for.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>

#define LOOK_NS 1000000ll
#define SECOND_NS 1000000000ll

int clock_gettime(clockid_t clock, struct timespec *now)
{
    static long long looks;
    int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, now);
    long long ns = now->tv_nsec +
                   __atomic_add_fetch(&looks, 1, __ATOMIC_RELAXED) * LOOK_NS;

    now->tv_sec += ns / SECOND_NS;
    now->tv_nsec = ns % SECOND_NS;
    return result;
}
