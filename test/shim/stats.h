/*
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Samples, and the answer "ok min median p90 mean samples" (nanoseconds).
 */
#ifndef VIOMMU_BENCH_STATS_H
#define VIOMMU_BENCH_STATS_H

#define STATS_MAX 65536

typedef struct Stats {
    size_t count;
    double samples[STATS_MAX];
} Stats;

static inline void stats_add(Stats *stats, double value)
{
    if (stats->count < STATS_MAX) {
        stats->samples[stats->count++] = value;
    }
}

static inline int stats_compare(const void *a, const void *b)
{
    double left = *(const double *)a, right = *(const double *)b;

    return left < right ? -1 : left > right;
}

static inline void stats_answer(Stats *stats, FILE *stream)
{
    double sum = 0;

    if (!stats->count) {
        fputs("error nothing measured\n", stream);
        fflush(stream);
        return;
    }
    qsort(stats->samples, stats->count, sizeof(double), stats_compare);
    for (size_t i = 0; i < stats->count; i++) {
        sum += stats->samples[i];
    }
    fprintf(stream, "ok %.2f %.2f %.2f %.2f %zu\n", stats->samples[0],
            stats->samples[stats->count / 2], stats->samples[stats->count * 9 / 10],
            sum / stats->count, stats->count);
    fflush(stream);
}

#endif
