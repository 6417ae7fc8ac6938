/*
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef VIOMMU_BENCH_ECHO_H
#define VIOMMU_BENCH_ECHO_H

/*
 * `echo PATH REQUEST ROUNDS`: round trips of frames with REQUEST body bytes on a new connection to
 * PATH.
 */
void echo_command(const char *line, FILE *stream);

#endif
