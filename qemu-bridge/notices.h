/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Work that needs the big lock, on its way from the backend thread to the main loop. It
 * is done in the order in which it was queued.
 */
#ifndef VIOMMU_NOTICES_H
#define VIOMMU_NOTICES_H

typedef struct ViommuCore ViommuCore;
typedef struct ViommuNotice ViommuNotice;

/* One piece of work: part of a structure that has what it needs. */
struct ViommuNotice {
    /* Does it, answers the daemon, and frees the structure. Big lock. */
    void (*run)(ViommuCore *core, ViommuNotice *notice);
    QSIMPLEQ_ENTRY(ViommuNotice) next;
};

typedef struct ViommuNotices {
    uint32_t done;    /* since the session began, also answers without a notice; atomic */
    QemuMutex lock;   /* the fields below */
    QSIMPLEQ_HEAD(, ViommuNotice) queue;
    bool scheduled;
    QemuCond arrived; /* a notice */
} ViommuNotices;

void viommu_notices_init(ViommuCore *core);
/** Takes the notice. Backend thread. */
void viommu_notices_add(ViommuCore *core, ViommuNotice *notice);
/** Runs what is queued. Big lock. */
void viommu_notices_run(ViommuCore *core);
/**
 * Runs what is queued, and waits for more, until `count` notices have been done since the
 * session began. For a thread that holds the big lock and waits for the daemon: the main
 * loop cannot run them then. Big lock.
 */
void viommu_notices_run_until(ViommuCore *core, uint32_t count);

#endif
