/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the bridge makes of entries of a queue, for a test that knows what they mean.
 * Commands on standard input, little-endian:
 *   Q, u32 bytes, a Queue message   the queue of what follows
 *   E, 32 bytes                     an entry: prints "-", "nothing", "store ADDRESS
 *                                   DATA", or "drop SPACE SUB" and its blocks
 *   D, u32 head, u32 tail           prints how many entries lie between two values of the
 *                                   registers, and the place of the first
 */
#include "compat.h"
#include "queue.h"
#include "reader.h"

#define REGISTER_BYTES 0x20000

static QueueShape *take_queue(void)
{
    static viommu_Queue msg;
    QueueShape *queue = NULL;

    if (reader_take_message(viommu_Queue_fields, &msg)) {
        queue = viommu_queue_shape_new(&msg, REGISTER_BYTES);
    }
    printf("%s", queue ? "" : "bad queue\n");
    return queue;
}

static void print_scope(void *opaque, const IotlbScope *scope)
{
    bool *first = opaque;

    if (*first) {
        printf("drop %" PRIx32 " %" PRIx32 ":", scope->space, scope->sub);
    }
    *first = false;
    if (scope->log2_size >= 64) {
        printf(" %s%" PRIx32, "all of ", scope->sub);
    } else {
        printf(" %" PRIx64 "/%" PRIu32, scope->address, scope->log2_size);
    }
}

static void match(const QueueShape *queue)
{
    uint32_t entry[QUEUE_ENTRY_WORDS];
    bool first = true;
    QueueStep step;

    reader_take(entry, sizeof(entry));
    if (!queue || !viommu_queue_match(queue, entry, &step)) {
        printf("-\n");
        return;
    }
    switch (step.kind) {
    case QUEUE_DROP:
        viommu_queue_scopes(&step, print_scope, &first);
        printf("\n");
        break;
    case QUEUE_STORE:
        printf("store %" PRIx64 " %" PRIx32 "\n", step.address, step.data);
        break;
    default:
        printf("nothing\n");
    }
}

int main(void)
{
    g_autofree QueueShape *queue = NULL;
    uint32_t ends[2];
    int command;

    while ((command = getchar()) != EOF) {
        switch (command) {
        case 'Q':
            g_free(queue);
            queue = take_queue();
            break;
        case 'E':
            match(queue);
            break;
        case 'D':
            reader_take(ends, sizeof(ends));
            printf("%" PRIu32 " %" PRIu32 "\n",
                   viommu_queue_distance(queue, ends[0], ends[1]),
                   viommu_queue_place(queue, ends[0]));
            break;
        default:
            fprintf(stderr, "queue-test: command %d\n", command);
            return 1;
        }
    }
    return 0;
}
