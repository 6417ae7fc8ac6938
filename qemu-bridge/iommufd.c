/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "compat.h"
#include <sys/ioctl.h>
#include "iommufd.h"

static int kernel_ioctl(int fd, unsigned long request, void *argument)
{
    return ioctl(fd, request, argument);
}

const IommufdCalls viommu_iommufd_kernel = {
    .ioctl = kernel_ioctl,
    .read = read,
    .write = write,
    .close = close,
};

static int call_fd(const Iommufd *io, int fd, unsigned long request, void *argument)
{
    int result;

    do {
        result = io->calls->ioctl(fd, request, argument);
    } while (result < 0 && errno == EINTR);
    if (result >= 0) {
        return 0;
    }
    /* ENOTTY: the kernel does not know the call. */
    return errno == ENOTTY ? -EOPNOTSUPP : -errno;
}

static int call(const Iommufd *io, unsigned long request, void *argument)
{
    return call_fd(io, io->fd, request, argument);
}

int viommu_iommufd_get_hw_info(const Iommufd *io, uint32_t dev_id, IommufdHwInfo *info)
{
    struct iommu_hw_info cmd = {
        .size = sizeof(cmd),
        .dev_id = dev_id,
        .data_len = sizeof(info->data),
        .data_uptr = (uintptr_t)info->data,
    };
    int result;

    memset(info, 0, sizeof(*info));
    result = call(io, IOMMU_GET_HW_INFO, &cmd);
    if (result) {
        return result;
    }
    info->type = cmd.out_data_type;
    info->size = MIN(cmd.data_len, sizeof(info->data));
    info->max_pasid_log2 = cmd.out_max_pasid_log2;
    info->capabilities = cmd.out_capabilities;
    return 0;
}

int viommu_iommufd_destroy(const Iommufd *io, uint32_t id)
{
    struct iommu_destroy cmd = { .size = sizeof(cmd), .id = id };

    return call(io, IOMMU_DESTROY, &cmd);
}

int viommu_iommufd_ioas_alloc(const Iommufd *io, uint32_t *id)
{
    struct iommu_ioas_alloc cmd = { .size = sizeof(cmd) };
    int result = call(io, IOMMU_IOAS_ALLOC, &cmd);

    *id = result ? 0 : cmd.out_ioas_id;
    return result;
}

int viommu_iommufd_ioas_ranges(const Iommufd *io, uint32_t ioas,
                               struct iommu_iova_range *ranges, uint32_t most,
                               uint32_t *count)
{
    struct iommu_ioas_iova_ranges cmd = {
        .size = sizeof(cmd),
        .ioas_id = ioas,
        .num_iovas = most,
        .allowed_iovas = (uintptr_t)ranges,
    };
    int result = call(io, IOMMU_IOAS_IOVA_RANGES, &cmd);

    /* EMSGSIZE: there are more than fit; those that fit are right. */
    *count = !result || result == -EMSGSIZE ? cmd.num_iovas : 0;
    return result == -EMSGSIZE ? 0 : result;
}

int viommu_iommufd_ioas_map(const Iommufd *io, uint32_t ioas, uint64_t iova,
                            const void *memory, uint64_t size, uint32_t rights)
{
    struct iommu_ioas_map cmd = {
        .size = sizeof(cmd),
        .flags = IOMMU_IOAS_MAP_FIXED_IOVA | (rights & 1 ? IOMMU_IOAS_MAP_READABLE : 0) |
                 (rights & 2 ? IOMMU_IOAS_MAP_WRITEABLE : 0),
        .ioas_id = ioas,
        .user_va = (uintptr_t)memory,
        .length = size,
        .iova = iova,
    };

    return call(io, IOMMU_IOAS_MAP, &cmd);
}

int viommu_iommufd_ioas_unmap(const Iommufd *io, uint32_t ioas, uint64_t iova,
                              uint64_t size, uint64_t *unmapped)
{
    struct iommu_ioas_unmap cmd = { .size = sizeof(cmd),
                                    .ioas_id = ioas,
                                    .iova = iova,
                                    .length = size };
    int result = call(io, IOMMU_IOAS_UNMAP, &cmd);

    /* ENOENT: nothing was mapped in the range. */
    *unmapped = result ? 0 : cmd.length;
    return result == -ENOENT ? 0 : result;
}

int viommu_iommufd_hwpt_alloc(const Iommufd *io, const IommufdHwpt *what, uint32_t *id)
{
    struct iommu_hwpt_alloc cmd = {
        .size = sizeof(cmd),
        .flags = what->flags | (what->fault_id ? IOMMU_HWPT_FAULT_ID_VALID : 0),
        .dev_id = what->dev_id,
        .pt_id = what->pt_id,
        .data_type = what->data_type,
        .data_len = what->size,
        .data_uptr = (uintptr_t)what->data,
        .fault_id = what->fault_id,
    };
    int result = call(io, IOMMU_HWPT_ALLOC, &cmd);

    *id = result ? 0 : cmd.out_hwpt_id;
    return result;
}

int viommu_iommufd_hwpt_invalidate(const Iommufd *io, uint32_t id, uint32_t type,
                                   uint32_t size, const void *entries, uint32_t *count)
{
    struct iommu_hwpt_invalidate cmd = {
        .size = sizeof(cmd),
        .hwpt_id = id,
        .data_uptr = (uintptr_t)entries,
        .data_type = type,
        .entry_len = size,
        .entry_num = *count,
    };
    uint32_t asked = *count;
    int result = call(io, IOMMU_HWPT_INVALIDATE, &cmd);

    /* A kernel that refuses the call as a whole leaves the number unchanged. */
    *count = result && cmd.entry_num >= asked ? 0 : cmd.entry_num;
    return !result && *count < asked ? -EIO : result;
}

int viommu_iommufd_viommu_alloc(const Iommufd *io, uint32_t type, uint32_t dev_id,
                                uint32_t hwpt, uint32_t *id)
{
    struct iommu_viommu_alloc cmd = { .size = sizeof(cmd),
                                      .type = type,
                                      .dev_id = dev_id,
                                      .hwpt_id = hwpt };
    int result = call(io, IOMMU_VIOMMU_ALLOC, &cmd);

    *id = result ? 0 : cmd.out_viommu_id;
    return result;
}

int viommu_iommufd_vdevice_alloc(const Iommufd *io, uint32_t viommu, uint32_t dev_id,
                                 uint64_t virtual_id, uint32_t *id)
{
    struct iommu_vdevice_alloc cmd = {
        .size = sizeof(cmd),
        .viommu_id = viommu,
        .dev_id = dev_id,
        .virt_id = virtual_id,
    };
    int result = call(io, IOMMU_VDEVICE_ALLOC, &cmd);

    *id = result ? 0 : cmd.out_vdevice_id;
    return result;
}

int viommu_iommufd_fault_queue_alloc(const Iommufd *io, IommufdQueue *queue)
{
    struct iommu_fault_alloc cmd = { .size = sizeof(cmd) };
    int result = call(io, IOMMU_FAULT_QUEUE_ALLOC, &cmd);

    *queue = (IommufdQueue){ .id = result ? 0 : cmd.out_fault_id,
                             .fd = result ? -1 : (int)cmd.out_fault_fd };
    return result;
}

int viommu_iommufd_veventq_alloc(const Iommufd *io, uint32_t viommu, uint32_t type,
                                 uint32_t depth, IommufdQueue *queue)
{
    struct iommu_veventq_alloc cmd = {
        .size = sizeof(cmd),
        .viommu_id = viommu,
        .type = type,
        .veventq_depth = depth,
    };
    int result = call(io, IOMMU_VEVENTQ_ALLOC, &cmd);

    *queue = (IommufdQueue){ .id = result ? 0 : cmd.out_veventq_id,
                             .fd = result ? -1 : (int)cmd.out_veventq_fd };
    return result;
}

int viommu_iommufd_queue_free(const Iommufd *io, IommufdQueue *queue)
{
    int result = 0;

    if (queue->id) {
        /* The descriptor holds the object. */
        io->calls->close(queue->fd);
        result = viommu_iommufd_destroy(io, queue->id);
    }
    *queue = (IommufdQueue) { .fd = -1 };
    return result;
}

/* Bytes that were read, 0 when nothing waits. */
static ssize_t take(const Iommufd *io, const IommufdQueue *queue, void *data, size_t size)
{
    ssize_t got;

    do {
        got = io->calls->read(queue->fd, data, size);
    } while (got < 0 && errno == EINTR);
    if (got < 0) {
        return errno == EAGAIN ? 0 : -errno;
    }
    return got;
}

int viommu_iommufd_read_faults(const Iommufd *io, const IommufdQueue *queue,
                               struct iommu_hwpt_pgfault *faults, uint32_t most)
{
    ssize_t got = take(io, queue, faults, most * sizeof(*faults));

    if (got < 0) {
        return got;
    }
    return got % sizeof(*faults) ? -EIO : got / sizeof(*faults);
}

int viommu_iommufd_respond(const Iommufd *io, const IommufdQueue *queue, uint32_t cookie,
                           uint32_t code)
{
    struct iommu_hwpt_page_response response = { .cookie = cookie, .code = code };
    ssize_t written;

    do {
        written = io->calls->write(queue->fd, &response, sizeof(response));
    } while (written < 0 && errno == EINTR);
    if (written < 0) {
        return -errno;
    }
    return written == sizeof(response) ? 0 : -EIO;
}

int viommu_iommufd_read_event(const Iommufd *io, const IommufdQueue *queue, void *data,
                              uint32_t size, bool *lost)
{
    struct iommufd_vevent_header header;
    g_autofree uint8_t *record = g_malloc(sizeof(header) + size);
    ssize_t got = take(io, queue, record, sizeof(header) + size);

    *lost = false;
    if (got <= 0) {
        return got;
    }
    if (got < (ssize_t)sizeof(header)) {
        return -EIO;
    }
    memcpy(&header, record, sizeof(header));
    *lost = header.flags & IOMMU_VEVENTQ_FLAG_LOST_EVENTS;
    got -= sizeof(header);
    memcpy(data, record + sizeof(header), got);
    return *lost || got ? got : -EIO;
}

int viommu_iommufd_attach(const Iommufd *io, int device_fd, int32_t pasid, uint32_t pt_id)
{
    struct vfio_device_attach_iommufd_pt cmd = { .argsz = sizeof(cmd), .pt_id = pt_id };

    if (pasid == IOMMUFD_NO_PASID) {
        cmd.argsz = endof(struct vfio_device_attach_iommufd_pt, pt_id);
    } else {
        cmd.flags = VFIO_DEVICE_ATTACH_PASID;
        cmd.pasid = pasid;
    }
    return call_fd(io, device_fd, VFIO_DEVICE_ATTACH_IOMMUFD_PT, &cmd);
}

int viommu_iommufd_detach(const Iommufd *io, int device_fd, int32_t pasid)
{
    struct vfio_device_detach_iommufd_pt cmd = { .argsz = sizeof(cmd) };

    if (pasid == IOMMUFD_NO_PASID) {
        cmd.argsz = endof(struct vfio_device_detach_iommufd_pt, flags);
    } else {
        cmd.flags = VFIO_DEVICE_DETACH_PASID;
        cmd.pasid = pasid;
    }
    return call_fd(io, device_fd, VFIO_DEVICE_DETACH_IOMMUFD_PT, &cmd);
}

bool viommu_iommufd_attaches_pasids(const Iommufd *io, int device_fd)
{
    /*
     * Detaching a PASID that is not attached succeeds; before 6.15 the flag is an error.
     * No device uses the last PASID of PCI.
     */
    return viommu_iommufd_detach(io, device_fd, (1 << 20) - 1) == 0;
}
