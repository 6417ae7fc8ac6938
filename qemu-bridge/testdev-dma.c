/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Transfers of viommu-testdev, page by page. A plain one is a DMA like that of any
 * device. One with a PASID, with ATS or with stalls says exactly what it is, and may have
 * to wait in the middle: for a stalled request to go on, for a page, or until BEHAVIOUR
 * lets it go. No function waits: waiting is a state, and the event that ends it continues
 * the transfer.
 */
#include "compat.h"
#include "requests.h"
#include "testdev.h"
#include "testdev-assigned.h"
#include "testdev-atc.h"
#include "testdev-command.h"
#include "testdev-dma.h"
#include "testdev-pci.h"
#include "views.h"

/*
 * Page requests for one page before the device gives up: each was answered "success", but
 * the page was missing.
 */
#define MAX_TRIES 8

typedef struct Piece {
    uint64_t address;
    uint32_t size;
    uint8_t *data;
} Piece;

/* How a piece ended; a fault has its RESULT beside it. */
typedef enum Step { STEP_DONE, STEP_FAULT, STEP_WAIT } Step;

static ViommuTestdev *testdev_of(ViommuEndpoint *e)
{
    return container_of(e, ViommuTestdev, endpoint);
}

/* The right that the transfer's memory access needs. */
static uint32_t access_of(const ViommuTestdev *d)
{
    return d->command == CMD_WRITE ? IOTLB_WRITE : IOTLB_READ;
}

static Piece next_piece(ViommuTestdev *d)
{
    uint8_t *buffer = memory_region_get_ram_ptr(&d->buffer);
    uint64_t address = d->address + d->bytes_done;

    return (Piece){
        .address = address,
        .size = MIN(d->length - d->bytes_done,
                    TESTDEV_PIECE - (address & (TESTDEV_PIECE - 1))),
        .data = buffer + d->offset + d->bytes_done,
    };
}

static Step fault(uint32_t *result, uint32_t why)
{
    *result = why;
    return STEP_FAULT;
}

static Step moved(uint32_t *result, MemTxResult how)
{
    *result = how;
    return how == MEMTX_OK ? STEP_DONE : STEP_FAULT;
}

static Step plain(ViommuTestdev *d, const Piece *p, uint32_t *result)
{
    DMADirection direction = d->command == CMD_WRITE ? DMA_DIRECTION_FROM_DEVICE :
                                                       DMA_DIRECTION_TO_DEVICE;

    if (d->assigned.on) {
        return moved(result, viommu_testdev_assigned_rw(d, p->address, p->data, p->size,
                                                        d->command == CMD_WRITE));
    }
    return moved(result, pci_dma_rw(&d->parent, p->address, p->data, p->size, direction,
                                    MEMTXATTRS_UNSPECIFIED));
}

/* The access itself, where a translation leads. */
static Step move(ViommuTestdev *d, const Piece *p, uint64_t address,
                 const ViommuTranslation *t, uint32_t *result)
{
    uint64_t mask = t->log2_size >= 64 ? UINT64_MAX : (1ull << t->log2_size) - 1;
    AddressSpace *as = d->command == CMD_WRITE ? viommu_views_store_space() :
                                                 &address_space_memory;

    if ((t->access & access_of(d)) != access_of(d)) {
        return fault(result, RESULT_REFUSED);
    }
    return moved(result, address_space_rw(as, t->output + (address & mask),
                                          MEMTXATTRS_UNSPECIFIED, p->data, p->size,
                                          d->command == CMD_WRITE));
}

static Step not_translated(ViommuTestdev *d, ViommuOutcome outcome,
                           const ViommuTranslation *t, uint32_t *result)
{
    switch (outcome) {
    case VIOMMU_STALLED:
        d->counters.stalls++;
        d->transfer.stall = t->stall;
        d->transfer.wait = WAIT_RESUME;
        return STEP_WAIT;
    case VIOMMU_COMPLETER_ABORT:
        return fault(result, RESULT_REFUSED | RESULT_COMPLETER_ABORT);
    case VIOMMU_GONE:
        return fault(result, RESULT_REFUSED | RESULT_ENDED);
    default:
        return fault(result, RESULT_REFUSED);
    }
}

/*
 * Asks the IOMMU, and makes the access before a later invalidation of the answer is
 * acknowledged.
 */
static Step request(ViommuTestdev *d, const Piece *p, const ViommuRequest *r,
                    uint32_t *result)
{
    ViommuTranslation t;
    ViommuOutcome outcome;
    Step step;

    viommu_request_begin(&d->endpoint);
    outcome = viommu_request_translation(&d->endpoint, r, &t);
    if (outcome == VIOMMU_TRANSLATION) {
        step = move(d, p, r->address, &t, result);
    } else {
        step = not_translated(d, outcome, &t, result);
    }
    viommu_request_end(&d->endpoint);
    return step;
}

static Step untranslated(ViommuTestdev *d, const Piece *p, uint32_t *result)
{
    const ViommuRequest r = {
        .address = p->address,
        .pasid_plus_1 = viommu_testdev_pasid_plus_1(d),
        .access = access_of(d),
        .size = p->size,
        .kind = VIOMMU_UNTRANSLATED,
        .may_stall = d->control & CONTROL_STALL,
    };

    return request(d, p, &r, result);
}

/* Translated requests carry no PASID: the translation was the PASID's. */
static Step translated(ViommuTestdev *d, const Piece *p, const ViommuTranslation *t,
                       uint32_t *result)
{
    uint64_t mask = t->log2_size >= 64 ? UINT64_MAX : (1ull << t->log2_size) - 1;
    const ViommuRequest r = {
        .address = t->output + (p->address & mask),
        .access = access_of(d),
        .size = p->size,
        .kind = VIOMMU_TRANSLATED,
    };

    return request(d, p, &r, result);
}

static uint32_t take_group(ViommuTestdev *d)
{
    uint32_t group = d->next_group;

    d->next_group = (group + 1) % TESTDEV_GROUPS;
    set_bit(group, d->groups);
    return group;
}

static Step ask_for_page(ViommuTestdev *d, const Piece *p, uint32_t *result)
{
    if (!(d->control & CONTROL_PRI)) {
        return fault(result, RESULT_REFUSED | RESULT_NOT_MAPPED);
    }
    if (d->transfer.tries == MAX_TRIES || !viommu_testdev_pci_page_requests(d)) {
        return fault(result, RESULT_REFUSED | RESULT_PAGE_REFUSED);
    }
    d->transfer.tries++;
    d->transfer.group = take_group(d);
    d->transfer.wait = WAIT_PAGE;
    d->counters.page_requests++;
    if (!viommu_request_page(&d->endpoint, viommu_testdev_pasid_plus_1(d), access_of(d),
                             p->address & ~(uint64_t)(TESTDEV_PIECE - 1),
                             d->transfer.group, true)) {
        d->transfer.wait = WAIT_NOTHING;
        return fault(result, RESULT_REFUSED | RESULT_ENDED);
    }
    return STEP_WAIT;
}

/*
 * Uses a translation of the device's own. With BEHAVIOUR_HOLD the request stays in flight
 * until released.
 */
static Step use(ViommuTestdev *d, const Piece *p, const ViommuTranslation *t,
                uint32_t *result)
{
    if (t->access & VIOMMU_UNTRANSLATED_ONLY) {
        return untranslated(d, p, result);
    }
    if ((d->behaviour & BEHAVIOUR_HOLD) && !d->transfer.released) {
        d->transfer.held = *t;
        d->transfer.wait = WAIT_RELEASE;
        return STEP_WAIT;
    }
    return translated(d, p, t, result);
}

/*
 * A write asks for both rights, as a translation request without the No Write flag does.
 */
static Step translate_ahead(ViommuTestdev *d, const Piece *p, ViommuTranslation *t,
                            uint32_t *result)
{
    const ViommuRequest r = {
        .address = p->address & ~(uint64_t)(TESTDEV_PIECE - 1),
        .pasid_plus_1 = viommu_testdev_pasid_plus_1(d),
        .access = d->command == CMD_WRITE ? IOTLB_RW : IOTLB_READ,
        .kind = VIOMMU_TRANSLATION_REQUEST,
    };
    ViommuOutcome outcome;

    d->counters.translation_requests++;
    outcome = viommu_request_translation(&d->endpoint, &r, t);
    if (outcome == VIOMMU_REFUSED) {
        return fault(result, RESULT_REFUSED | RESULT_UNSUPPORTED_REQUEST);
    }
    return outcome == VIOMMU_TRANSLATION ? STEP_DONE :
                                           not_translated(d, outcome, t, result);
}

static Step ahead(ViommuTestdev *d, const Piece *p, uint32_t *result)
{
    const ViommuTranslation *found;
    ViommuTranslation t;
    Step step;

    if (d->transfer.released) {
        t = d->transfer.held;
        return use(d, p, &t, result);
    }
    found = viommu_testdev_atc_find(&d->atc, viommu_testdev_pasid_plus_1(d), p->address,
                                    access_of(d));
    if (found) {
        d->counters.atc_hits++;
        t = *found;
        return use(d, p, &t, result);
    }
    step = translate_ahead(d, p, &t, result);
    if (step != STEP_DONE) {
        return step;
    }
    if (t.access & IOTLB_RW) {
        viommu_testdev_atc_insert(&d->atc, viommu_testdev_pasid_plus_1(d), &t);
    }
    return (t.access & access_of(d)) == access_of(d) ? use(d, p, &t, result) :
                                                       ask_for_page(d, p, result);
}

static Step piece(ViommuTestdev *d, const Piece *p, uint32_t *result)
{
    if (d->transfer.read_zero) {
        if (d->command == CMD_READ) {
            memset(p->data, 0, p->size);
        }
        return STEP_DONE;
    }
    if (!(d->pasid & PASID_VALID) && !(d->control & (CONTROL_ATS | CONTROL_STALL))) {
        return plain(d, p, result);
    }
    if (!(pci_get_word(d->parent.config + PCI_COMMAND) & PCI_COMMAND_MASTER)) {
        return fault(result, RESULT_REFUSED);
    }
    return d->control & CONTROL_ATS ? ahead(d, p, result) : untranslated(d, p, result);
}

static void run_transfer(ViommuTestdev *d)
{
    uint32_t generation = d->generation, result;

    while (d->bytes_done < d->length) {
        Piece p = next_piece(d);
        Step step = piece(d, &p, &result);

        if (d->generation != generation || step == STEP_WAIT) {
            return;
        }
        d->transfer = (TestdevTransfer) { 0 };
        viommu_testdev_settle(d);
        if (step == STEP_FAULT) {
            viommu_testdev_abandon(d, result);
            return;
        }
        d->bytes_done += p.size;
    }
    viommu_testdev_complete(d, STATUS_DONE);
}

/*
 * One group of page requests for all the pages of the range, without any access to them.
 */
static void request_pages(ViommuTestdev *d)
{
    uint64_t address = d->address & ~(uint64_t)(TESTDEV_PIECE - 1);
    uint64_t last = (d->address + d->length - 1) & ~(uint64_t)(TESTDEV_PIECE - 1);
    bool sent;

    d->transfer.group = take_group(d);
    d->transfer.wait = WAIT_PAGE;
    for (;; address += TESTDEV_PIECE) {
        d->counters.page_requests++;
        sent = viommu_request_page(&d->endpoint, viommu_testdev_pasid_plus_1(d), IOTLB_RW,
                                   address, d->transfer.group, address == last);
        if (!sent || address == last) {
            break;
        }
    }
    if (!sent) {
        viommu_testdev_abandon(d, RESULT_REFUSED | RESULT_ENDED);
    }
}

void viommu_testdev_run(ViommuTestdev *d)
{
    if (d->command == CMD_REQUEST_PAGES) {
        request_pages(d);
    } else {
        run_transfer(d);
    }
}

/* After the last of so many requests the device obeys again. */
static void count_never(ViommuTestdev *d)
{
    uint32_t left = d->behaviour >> BEHAVIOUR_COUNT_SHIFT;

    if (left) {
        d->behaviour -= 1u << BEHAVIOUR_COUNT_SHIFT;
    }
    if (left == 1) {
        d->behaviour &= ~BEHAVIOUR_DROP;
    }
}

static ViommuDropResult drop(ViommuEndpoint *e, const ViommuDrop *drop)
{
    ViommuTestdev *d = testdev_of(e);
    uint32_t mode = d->behaviour & BEHAVIOUR_DROP;
    bool in_use = (d->transfer.wait == WAIT_RELEASE || d->transfer.released) &&
                  viommu_testdev_atc_concerns(drop, viommu_testdev_pasid_plus_1(d),
                                              &d->transfer.held);

    d->counters.invalidations++;
    if (mode == BEHAVIOUR_DROP_NEVER) {
        count_never(d);
        return VIOMMU_DROP_TIMEOUT;
    }
    viommu_testdev_atc_drop(&d->atc, drop);
    return in_use || mode == BEHAVIOUR_DROP_LATER ? VIOMMU_DROP_LATER : VIOMMU_DROP_DONE;
}

static void page_response(ViommuEndpoint *e, uint32_t pasid_plus_1, uint32_t group,
                          uint32_t code)
{
    ViommuTestdev *d = testdev_of(e);
    bool known = group < TESTDEV_GROUPS && test_and_clear_bit(group, d->groups);

    d->counters.page_responses++;
    d->page_code = code;
    viommu_testdev_pci_note_response(d, code == VIOMMU_PAGE_FAILURE, !known);
    if (!known || d->transfer.wait != WAIT_PAGE || d->transfer.group != group) {
        return;
    }
    d->transfer.wait = WAIT_NOTHING;
    if (code != VIOMMU_PAGE_SUCCESS) {
        viommu_testdev_abandon(d, RESULT_REFUSED | RESULT_PAGE_REFUSED);
    } else if (d->command == CMD_REQUEST_PAGES) {
        viommu_testdev_complete(d, STATUS_DONE);
    } else {
        qemu_bh_schedule(d->bh);
    }
}

static bool resume(ViommuEndpoint *e, uint32_t stall, ViommuAction action)
{
    ViommuTestdev *d = testdev_of(e);

    if (d->transfer.wait != WAIT_RESUME || d->transfer.stall != stall) {
        return false;
    }
    d->transfer.wait = WAIT_NOTHING;
    if (action == VIOMMU_ABORT) {
        viommu_testdev_abandon(d, RESULT_REFUSED | RESULT_STALL_ABORTED);
    } else {
        d->transfer.read_zero = action == VIOMMU_READ_ZERO;
        qemu_bh_schedule(d->bh);
    }
    return true;
}

static void ended(ViommuEndpoint *e)
{
    ViommuTestdev *d = testdev_of(e);

    viommu_testdev_atc_flush(&d->atc);
    bitmap_zero(d->groups, TESTDEV_GROUPS);
    viommu_testdev_pci_note_response(d, false, false);
    if (d->transfer.wait != WAIT_NOTHING) {
        viommu_testdev_abandon(d, RESULT_REFUSED | RESULT_ENDED);
    }
}

const ViommuEndpointOps viommu_testdev_endpoint_ops = {
    .drop = drop,
    .page_response = page_response,
    .resume = resume,
    .ended = ended,
};
