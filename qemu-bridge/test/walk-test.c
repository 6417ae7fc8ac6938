/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Peer walks, for a test that knows what they have to find. Commands on standard input,
 * little-endian:
 *   C                                       forget all memory
 *   S, u64 address, u64 bytes, the bytes    memory
 *   T, u32 bytes, a PeerWalk message          the tables of what follows
 *   A, u64 address, u32 access              prints "-", or for each block its input,
 *                                           output, log2 of the size, and access
 */
#include "compat.h"
#include "reader.h"
#include "walk.h"

#define MAX_SEGMENTS 64

static struct {
    uint64_t address;
    uint64_t bytes;
    uint8_t *data;
} segments[MAX_SEGMENTS];
static unsigned segment_count;

static bool read_entries(uint64_t address, uint64_t *values, uint32_t count)
{
    unsigned i, n;

    for (i = 0; i < segment_count; i++) {
        uint64_t at = address - segments[i].address;

        if (address >= segments[i].address &&
            at + count * sizeof(*values) <= segments[i].bytes) {
            for (n = 0; n < count; n++) {
                values[n] = ldq_le_p(segments[i].data + at + n * sizeof(*values));
            }
            return true;
        }
    }
    return false;
}

static void take_segment(void)
{
    assert(segment_count < MAX_SEGMENTS);
    reader_take(&segments[segment_count].address, 8);
    reader_take(&segments[segment_count].bytes, 8);
    segments[segment_count].data = g_malloc(segments[segment_count].bytes);
    reader_take(segments[segment_count].data, segments[segment_count].bytes);
    segment_count++;
}

static WalkTables *take_tables(void)
{
    static viommu_PeerWalk msg;
    WalkTables *tables = NULL;

    if (reader_take_message(viommu_PeerWalk_fields, &msg)) {
        tables = viommu_walk_tables_new(&msg);
    }
    printf("%s", tables ? "" : "bad tables\n");
    return tables;
}

static void ask(const WalkTables *tables)
{
    uint64_t address;
    uint32_t access, i;
    WalkFound found;

    reader_take(&address, sizeof(address));
    reader_take(&access, sizeof(access));
    if (!tables || !viommu_walk_tables(tables, address, access, read_entries, &found)) {
        printf("-\n");
        return;
    }
    for (i = 0; i < found.count; i++) {
        const WalkBlock *b = &found.block[i];

        printf("%s%" PRIx64 " %" PRIx64 " %" PRIu32 " %" PRIu32, i ? ", " : "", b->input,
               b->output, b->log2_size, b->access);
    }
    printf("\n");
}

int main(void)
{
    g_autofree WalkTables *tables = NULL;
    int command;

    while ((command = getchar()) != EOF) {
        switch (command) {
        case 'C':
            while (segment_count) {
                g_free(segments[--segment_count].data);
            }
            break;
        case 'S':
            take_segment();
            break;
        case 'T':
            g_free(tables);
            tables = take_tables();
            break;
        case 'A':
            ask(tables);
            break;
        default:
            fprintf(stderr, "walk-test: command %d\n", command);
            return 1;
        }
    }
    return 0;
}
