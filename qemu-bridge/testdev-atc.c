/* SPDX-License-Identifier: GPL-2.0-or-later */
/* viommu-testdev's device TLB: a few translations, searched one by one. */
#include "compat.h"
#include "testdev.h"
#include "testdev-atc.h"

static bool blocks_overlap(uint64_t a, uint32_t a_bits, uint64_t b, uint32_t b_bits)
{
    uint32_t bits = MAX(a_bits, b_bits);

    return bits >= 64 || (a ^ b) >> bits == 0;
}

void viommu_testdev_atc_flush(TestdevAtc *atc)
{
    memset(atc, 0, sizeof(*atc));
}

uint32_t viommu_testdev_atc_count(const TestdevAtc *atc)
{
    uint32_t count = 0;
    unsigned i;

    for (i = 0; i < TESTDEV_ATC_ENTRIES; i++) {
        count += atc->entry[i].valid;
    }
    return count;
}

/* A translation that was said to be Global serves every PASID. */
const ViommuTranslation *viommu_testdev_atc_find(const TestdevAtc *atc,
                                                 uint32_t pasid_plus_1, uint64_t address,
                                                 uint32_t access)
{
    unsigned i;

    for (i = 0; i < TESTDEV_ATC_ENTRIES; i++) {
        const TestdevAtcEntry *entry = &atc->entry[i];
        const ViommuTranslation *t = &entry->translation;
        bool global = (t->access & VIOMMU_GLOBAL) && entry->pasid_plus_1 && pasid_plus_1;

        if (entry->valid && (entry->pasid_plus_1 == pasid_plus_1 || global) &&
            (t->access & access) == access &&
            blocks_overlap(t->input, t->log2_size, address, 0)) {
            return t;
        }
    }
    return NULL;
}

/*
 * Takes a free place, or the next in turn. A newer translation replaces others of the
 * same block.
 */
void viommu_testdev_atc_insert(TestdevAtc *atc, uint32_t pasid_plus_1,
                               const ViommuTranslation *t)
{
    unsigned i, place = TESTDEV_ATC_ENTRIES;

    for (i = 0; i < TESTDEV_ATC_ENTRIES; i++) {
        TestdevAtcEntry *entry = &atc->entry[i];

        if (entry->valid && entry->pasid_plus_1 == pasid_plus_1 &&
            blocks_overlap(entry->translation.input, entry->translation.log2_size,
                           t->input, t->log2_size)) {
            entry->valid = false;
        }
        if (!entry->valid) {
            place = i;
        }
    }
    if (place == TESTDEV_ATC_ENTRIES) {
        place = atc->victim;
        atc->victim = (atc->victim + 1) % TESTDEV_ATC_ENTRIES;
    }
    atc->entry[place] = (TestdevAtcEntry){ .valid = true,
                                           .pasid_plus_1 = pasid_plus_1,
                                           .translation = *t };
}

bool viommu_testdev_atc_concerns(const ViommuDrop *drop, uint32_t pasid_plus_1,
                                 const ViommuTranslation *t)
{
    return (drop->global || drop->pasid_plus_1 == pasid_plus_1 ||
            (t->access & VIOMMU_GLOBAL)) &&
           blocks_overlap(drop->address, drop->log2_size, t->input, t->log2_size);
}

void viommu_testdev_atc_drop(TestdevAtc *atc, const ViommuDrop *drop)
{
    unsigned i;

    for (i = 0; i < TESTDEV_ATC_ENTRIES; i++) {
        TestdevAtcEntry *entry = &atc->entry[i];

        if (entry->valid &&
            viommu_testdev_atc_concerns(drop, entry->pasid_plus_1, &entry->translation)) {
            entry->valid = false;
        }
    }
}
