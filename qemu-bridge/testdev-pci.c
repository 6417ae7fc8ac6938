/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * On a PCI Express bus viommu-testdev is an endpoint with Function Level Reset. Behind an
 * IOMMU with the features it also has the ATS, Page Request and PASID capabilities (PCI
 * Express Base Specification, chapter 10; the PASID capability is in chapter 7).
 */
#include "compat.h"
#include "hw/pci/pcie.h"
#include "endpoints.h"
#include "testdev.h"
#include "testdev-atc.h"
#include "testdev-command.h"
#include "testdev-pci.h"

#define ATS_GLOBAL_INVALIDATE_SUPPORTED 0x40u
#define EXTENDED_CAPABILITIES 0x100
#define CAPABILITY_VERSION 1
#define PASID_BITS 20

static uint8_t *ats(const ViommuTestdev *d, uint32_t offset)
{
    return d->parent.config + d->parent.exp.ats_cap + offset;
}

static uint8_t *pri(const ViommuTestdev *d, uint32_t offset)
{
    return d->parent.config + d->pri_cap + offset;
}

static uint8_t *pasid(const ViommuTestdev *d, uint32_t offset)
{
    return d->parent.config + d->pasid_cap + offset;
}

static void add_ats(ViommuTestdev *d, uint16_t *at)
{
    pcie_ats_init(&d->parent, *at, true);
    pci_set_word(ats(d, PCI_ATS_CAP),
                 pci_get_word(ats(d, PCI_ATS_CAP)) | ATS_GLOBAL_INVALIDATE_SUPPORTED);
    *at += PCI_EXT_CAP_ATS_SIZEOF;
}

static void add_pri(ViommuTestdev *d, uint16_t *at)
{
    PCIDevice *pci = &d->parent;

    d->pri_cap = *at;
    pcie_add_capability(pci, PCI_EXT_CAP_ID_PRI, CAPABILITY_VERSION, *at,
                        PCI_EXT_CAP_PRI_SIZEOF);
    pci_set_word(pri(d, PCI_PRI_STATUS), PCI_PRI_STATUS_STOPPED | PCI_PRI_STATUS_PASID);
    pci_set_long(pri(d, PCI_PRI_MAX_REQ), TESTDEV_PAGE_REQUESTS);
    pci_set_word(pci->wmask + *at + PCI_PRI_CTRL, PCI_PRI_CTRL_ENABLE);
    pci_set_word(pci->w1cmask + *at + PCI_PRI_STATUS,
                 PCI_PRI_STATUS_RF | PCI_PRI_STATUS_UPRGI);
    pci_set_long(pci->wmask + *at + PCI_PRI_ALLOC_REQ, UINT32_MAX);
    *at += PCI_EXT_CAP_PRI_SIZEOF;
}

static void add_pasid(ViommuTestdev *d, uint16_t *at)
{
    d->pasid_cap = *at;
    pcie_add_capability(&d->parent, PCI_EXT_CAP_ID_PASID, CAPABILITY_VERSION, *at,
                        PCI_EXT_CAP_PASID_SIZEOF);
    pci_set_word(pasid(d, PCI_PASID_CAP), PASID_BITS << 8);
    pci_set_word(d->parent.wmask + *at + PCI_PASID_CTRL, PCI_PASID_CTRL_ENABLE);
    *at += PCI_EXT_CAP_PASID_SIZEOF;
}

bool viommu_testdev_pci_init(ViommuTestdev *d, Error **errp)
{
    PCIDevice *pci = &d->parent;
    uint16_t at = EXTENDED_CAPABILITIES;

    if (!pci_is_express(pci)) {
        return true;
    }
    if (pcie_endpoint_cap_init(pci, 0) < 0) {
        error_setg(errp, "no room for the PCI Express capability");
        return false;
    }
    pcie_cap_flr_init(pci);
    if (!d->endpoint.space) {
        return true;
    }
    if (d->offer_ats && viommu_endpoint_has_ats(&d->endpoint)) {
        add_ats(d, &at);
    }
    if (d->offer_pri && pci->exp.ats_cap && viommu_endpoint_has_pri(&d->endpoint)) {
        add_pri(d, &at);
    }
    if (d->offer_pasid) {
        add_pasid(d, &at);
    }
    return true;
}

uint32_t viommu_testdev_pci_features(const ViommuTestdev *d)
{
    return (d->pasid_cap ? FEATURE_PASID : 0) |
           (d->parent.exp.ats_cap ? FEATURE_ATS : 0) | (d->pri_cap ? FEATURE_PRI : 0) |
           (viommu_endpoint_has_stalls(&d->endpoint) ? FEATURE_STALLS : 0);
}

uint32_t viommu_testdev_pci_enabled(const ViommuTestdev *d)
{
    uint32_t enabled = viommu_testdev_pci_features(d);

    if (d->pasid_cap &&
        !(pci_get_word(pasid(d, PCI_PASID_CTRL)) & PCI_PASID_CTRL_ENABLE)) {
        enabled &= ~FEATURE_PASID;
    }
    if (d->parent.exp.ats_cap &&
        !(pci_get_word(ats(d, PCI_ATS_CTRL)) & PCI_ATS_CTRL_ENABLE)) {
        enabled &= ~FEATURE_ATS;
    }
    if (d->pri_cap && !(pci_get_word(pri(d, PCI_PRI_CTRL)) & PCI_PRI_CTRL_ENABLE)) {
        enabled &= ~FEATURE_PRI;
    }
    return enabled;
}

uint32_t viommu_testdev_pci_page_requests(const ViommuTestdev *d)
{
    if (!(viommu_testdev_pci_enabled(d) & FEATURE_PRI) ||
        (pci_get_word(pri(d, PCI_PRI_STATUS)) & PCI_PRI_STATUS_RF)) {
        return 0;
    }
    return MIN(pci_get_long(pri(d, PCI_PRI_ALLOC_REQ)), TESTDEV_PAGE_REQUESTS);
}

/* Stopped: nothing is under way and nothing will be sent. */
static void update_pri_status(ViommuTestdev *d, uint16_t set, uint16_t clear)
{
    bool stopped = !(viommu_testdev_pci_enabled(d) & FEATURE_PRI) &&
                   bitmap_empty(d->groups, TESTDEV_GROUPS);
    uint16_t status = pci_get_word(pri(d, PCI_PRI_STATUS));

    status = (status & ~(clear | PCI_PRI_STATUS_STOPPED)) | set |
             (stopped ? PCI_PRI_STATUS_STOPPED : 0);
    pci_set_word(pri(d, PCI_PRI_STATUS), status);
}

void viommu_testdev_pci_note_response(ViommuTestdev *d, bool failure, bool unexpected)
{
    if (d->pri_cap) {
        update_pri_status(d,
                          (failure ? PCI_PRI_STATUS_RF : 0) |
                              (unexpected ? PCI_PRI_STATUS_UPRGI : 0),
                          0);
    }
}

/* Reset, which reads as 0, clears the failures while requests are off. */
static void pri_control_written(ViommuTestdev *d, bool reset)
{
    bool clear = reset && !(viommu_testdev_pci_enabled(d) & FEATURE_PRI);

    update_pri_status(d, 0, clear ? PCI_PRI_STATUS_RF | PCI_PRI_STATUS_UPRGI : 0);
}

/* A command that relies on what was switched off ends. */
static void features_lost(ViommuTestdev *d, uint32_t lost)
{
    if (lost & FEATURE_ATS) {
        viommu_testdev_atc_flush(&d->atc);
    }
    if (lost & viommu_testdev_needs(d, d->command)) {
        viommu_testdev_abandon(d, RESULT_CANCELLED);
    }
}

void viommu_testdev_pci_write_config(PCIDevice *pci, uint32_t address, uint32_t value,
                                     int size)
{
    ViommuTestdev *d = VIOMMU_TESTDEV(pci);
    uint32_t before = viommu_testdev_pci_enabled(d);

    pci_default_write_config(pci, address, value, size);
    if (!pci_is_express(pci)) {
        return;
    }
    if (d->pri_cap && ranges_overlap(address, size, d->pri_cap + PCI_PRI_CTRL, 2)) {
        bool reset = address <= d->pri_cap + PCI_PRI_CTRL &&
                     (value >> 8 * (d->pri_cap + PCI_PRI_CTRL - address) &
                      PCI_PRI_CTRL_RESET);

        pri_control_written(d, reset);
    }
    features_lost(d, before & ~viommu_testdev_pci_enabled(d));
    pcie_cap_flr_write_config(pci, address, value, size);
}

void viommu_testdev_pci_reset(ViommuTestdev *d)
{
    if (d->parent.exp.ats_cap) {
        pci_set_word(ats(d, PCI_ATS_CTRL), 0);
    }
    if (d->pri_cap) {
        pci_set_word(pri(d, PCI_PRI_CTRL), 0);
        pci_set_word(pri(d, PCI_PRI_STATUS),
                     PCI_PRI_STATUS_STOPPED | PCI_PRI_STATUS_PASID);
        pci_set_long(pri(d, PCI_PRI_ALLOC_REQ), 0);
    }
    if (d->pasid_cap) {
        pci_set_word(pasid(d, PCI_PASID_CTRL), 0);
    }
}
