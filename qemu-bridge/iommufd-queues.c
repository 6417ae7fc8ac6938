/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What comes up from a host: page requests and events; and the answers that go down. */
#include "compat.h"
#include "iommufd.h"
#include "iommufd-attach.h"
#include "iommufd-objects.h"
#include "iommufd-queues.h"

/*
 * The kernel hands out a group of page requests whole: there must be room for the largest
 * one.
 */
#define FAULTS_AT_ONCE 512
/* Bytes of an event record, of every kind that there is so far. */
#define EVENT_BYTES sizeof(struct iommu_vevent_arm_smmuv3)

/* PCI Express, Page Request Group Response Message. */
#define PCIE_RESPONSE_SUCCESS 0

static HostDevice *device_of(const IommufdHost *host, uint32_t dev_id)
{
    HostDevice *device;

    QLIST_FOREACH(device, &host->devices, next) {
        if (device->dev_id == dev_id) {
            break;
        }
    }
    return device;
}

static void take_fault(IommufdHost *host, const HostSpace *space,
                       const struct iommu_hwpt_pgfault *fault)
{
    HostDevice *device = device_of(host, fault->dev_id);
    int32_t pasid = fault->flags & IOMMU_PGFAULT_FLAGS_PASID_VALID ?
                        (int32_t)fault->pasid :
                        IOMMUFD_NO_PASID;
    /*
     * A PASID that is not attached by itself is one of the tables of requests without
     * (SMMUv3).
     */
    const HostAttachment *through = viommu_iommufd_attachment(host, device, pasid) ?:
                                        viommu_iommufd_attachment(host, device,
                                                                  IOMMUFD_NO_PASID);
    HostGroup *group;

    if (fault->flags & IOMMU_PGFAULT_FLAGS_LAST_PAGE) {
        if (!through) {
            viommu_iommufd_respond(&host->io, &space->faults, fault->cookie,
                                   IOMMUFD_PAGE_RESP_INVALID);
            return;
        }
        group = g_new0(HostGroup, 1);
        *group = (HostGroup) {
            .device = device,
            .pasid = pasid,
            .group = fault->grpid,
            .cookie = fault->cookie,
            .through = through,
        };
        QLIST_INSERT_HEAD(&host->groups, group, next);
    }
    if (through) {
        host->sink.page_request(host->sink.opaque, device, fault);
    }
}

static int poll_faults(IommufdHost *host, const HostSpace *space)
{
    g_autofree struct iommu_hwpt_pgfault *faults = g_new(struct iommu_hwpt_pgfault,
                                                         FAULTS_AT_ONCE);
    int i, count;

    do {
        count = viommu_iommufd_read_faults(&host->io, &space->faults, faults,
                                           FAULTS_AT_ONCE);
        for (i = 0; i < count; i++) {
            take_fault(host, space, &faults[i]);
        }
    } while (count > 0);
    return count;
}

static int poll_events(IommufdHost *host, const HostSpace *space)
{
    uint8_t record[EVENT_BYTES];
    bool lost;
    int size;

    do {
        size = viommu_iommufd_read_event(&host->io, &space->events, record,
                                         sizeof(record), &lost);
        if (size > 0 || lost) {
            host->sink.event(host->sink.opaque, space->number, record, MAX(size, 0),
                             lost);
        }
    } while (size > 0 || lost);
    return size;
}

uint32_t viommu_iommufd_host_descriptors(const IommufdHost *host, int *fds, uint32_t most)
{
    const HostSpace *space;
    uint32_t count = 0;

    QLIST_FOREACH(space, &host->spaces, next) {
        if (space->faults.id && count < most) {
            fds[count++] = space->faults.fd;
        }
        if (space->events.id && count < most) {
            fds[count++] = space->events.fd;
        }
    }
    return count;
}

int viommu_iommufd_host_poll(IommufdHost *host)
{
    const HostSpace *space;
    int result = 0, one;

    QLIST_FOREACH(space, &host->spaces, next) {
        if (space->faults.id) {
            one = poll_faults(host, space);
            result = result ?: one;
        }
        if (space->events.id) {
            one = poll_events(host, space);
            result = result ?: one;
        }
    }
    return result;
}

int viommu_iommufd_host_respond(IommufdHost *host, const HostDevice *device,
                                int32_t pasid, uint32_t number, uint32_t code)
{
    HostGroup *group;
    int result;

    QLIST_FOREACH(group, &host->groups, next) {
        if (group->device == device && group->pasid == pasid && group->group == number) {
            break;
        }
    }
    if (!group) {
        return -ENOENT;
    }
    /* The kernel knows two answers: the rest is a refusal. */
    result = viommu_iommufd_respond(&host->io, &group->through->space->faults,
                                    group->cookie,
                                    code == PCIE_RESPONSE_SUCCESS ?
                                        IOMMUFD_PAGE_RESP_SUCCESS :
                                        IOMMUFD_PAGE_RESP_INVALID);
    QLIST_REMOVE(group, next);
    g_free(group);
    return result;
}
