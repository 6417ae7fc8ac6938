/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "compat.h"
#include "iommufd-kernel.h"

#define MOST_OBJECTS 256
#define PAGE 4096

typedef struct FakeObject {
    FakeType type;
    unsigned users;
    uint32_t above;   /* the object that this one needs */
    uint32_t faults;  /* and its fault queue */
    uint64_t virtual_id;
    bool open;
} FakeObject;

FakeKernel fake;
static FakeObject objects[MOST_OBJECTS];
static uint32_t next_id;
static uint32_t attached[FAKE_DEVICES][FAKE_PASIDS + 1];

void fake_reset(const FakeRelease *release, uint32_t hw_type)
{
    fake = (FakeKernel){ .release = release,
                         .hw_type = hw_type,
                         .page_requests = true,
                         .max_pasid_log2 = 3 };
    memset(objects, 0, sizeof(objects));
    memset(attached, 0, sizeof(attached));
    next_id = 1;
}

unsigned fake_objects(void)
{
    unsigned i, count = 0;

    for (i = 0; i < MOST_OBJECTS; i++) {
        count += objects[i].type != FAKE_GONE;
    }
    return count;
}

unsigned fake_attachments(void)
{
    unsigned device, slot, count = 0;

    for (device = 0; device < FAKE_DEVICES; device++) {
        for (slot = 0; slot <= FAKE_PASIDS; slot++) {
            count += attached[device][slot] != 0;
        }
    }
    return count;
}

FakeType fake_attached(unsigned device, int32_t pasid)
{
    return objects[attached[device][pasid + 1]].type;
}

unsigned fake_open_queues(void)
{
    unsigned i, count = 0;

    for (i = 0; i < MOST_OBJECTS; i++) {
        count += objects[i].open;
    }
    return count;
}

static FakeObject *object(uint32_t id, FakeType type)
{
    return id < MOST_OBJECTS && objects[id].type == type ? &objects[id] : NULL;
}

static uint32_t add(FakeType type, uint32_t above)
{
    uint32_t id = next_id++;

    assert(id < MOST_OBJECTS);
    objects[id] = (FakeObject) { .type = type, .above = above };
    if (above) {
        objects[above].users++;
    }
    return id;
}

static bool is_device(uint32_t dev_id)
{
    return dev_id >= FAKE_DEV_ID && dev_id < FAKE_DEV_ID + FAKE_DEVICES;
}

static int get_hw_info(struct iommu_hw_info *cmd)
{
    if (!is_device(cmd->dev_id)) {
        return -ENOENT;
    }
    cmd->out_data_type = fake.hw_type;
    cmd->data_len = fake.hw_type == IOMMU_HW_INFO_TYPE_INTEL_VTD ?
                        sizeof(struct iommu_hw_info_vtd) :
                        sizeof(struct iommu_hw_info_arm_smmuv3);
    memset((void *)(uintptr_t)cmd->data_uptr, 0x5a, cmd->data_len);
    cmd->out_max_pasid_log2 = fake.max_pasid_log2;
    return 0;
}

static int destroy(const struct iommu_destroy *cmd)
{
    FakeObject *o = &objects[cmd->id];

    if (cmd->id >= MOST_OBJECTS || o->type == FAKE_GONE) {
        return -ENOENT;
    }
    /* An open descriptor holds its queue. */
    if (o->users || o->open) {
        return -EBUSY;
    }
    if (o->above) {
        objects[o->above].users--;
    }
    if (o->faults) {
        objects[o->faults].users--;
    }
    o->type = FAKE_GONE;
    return 0;
}

static int hwpt_alloc_nested(struct iommu_hwpt_alloc *cmd)
{
    FakeObject *above = object(cmd->pt_id, FAKE_VIOMMU) ?:
                                                          object(cmd->pt_id, FAKE_PARENT);
    FakeObject *faults = object(cmd->fault_id, FAKE_FAULTS);

    if (!above || !cmd->data_len || !cmd->data_uptr) {
        return -EINVAL;
    }
    if ((cmd->flags & IOMMU_HWPT_FAULT_ID_VALID) && !faults) {
        return -ENOENT;
    }
    cmd->out_hwpt_id = add(FAKE_NESTED, cmd->pt_id);
    if (faults) {
        objects[cmd->out_hwpt_id].faults = cmd->fault_id;
        faults->users++;
    }
    return 0;
}

static int hwpt_alloc(struct iommu_hwpt_alloc *cmd)
{
    bool parent = cmd->flags & IOMMU_HWPT_ALLOC_NEST_PARENT;

    if (!is_device(cmd->dev_id)) {
        return -ENOENT;
    }
    if ((parent && !fake.release->nesting) ||
        ((cmd->flags & IOMMU_HWPT_ALLOC_PASID) && !fake.release->pasids)) {
        return -EOPNOTSUPP;
    }
    if (cmd->data_type) {
        return hwpt_alloc_nested(cmd);
    }
    if (!object(cmd->pt_id, FAKE_IOAS)) {
        return -ENOENT;
    }
    cmd->out_hwpt_id = add(parent ? FAKE_PARENT : FAKE_HWPT, cmd->pt_id);
    return 0;
}

static int invalidate(struct iommu_hwpt_invalidate *cmd)
{
    uint32_t asked = cmd->entry_num;
    bool viommu = object(cmd->hwpt_id, FAKE_VIOMMU);

    cmd->entry_num = 0;
    if (!viommu && !object(cmd->hwpt_id, FAKE_NESTED)) {
        return -ENOENT;
    }
    if (!cmd->entry_len ||
        cmd->data_type != (viommu ? IOMMU_VIOMMU_INVALIDATE_DATA_ARM_SMMUV3 :
                                    IOMMU_HWPT_INVALIDATE_DATA_VTD_S1)) {
        return -EINVAL;
    }
    cmd->entry_num = fake.bad_entry ? MIN(asked, fake.bad_entry - 1) : asked;
    return cmd->entry_num < asked ? -EIO : 0;
}

static int vdevice_alloc(struct iommu_vdevice_alloc *cmd)
{
    unsigned i;

    if (!object(cmd->viommu_id, FAKE_VIOMMU) || !is_device(cmd->dev_id)) {
        return -ENOENT;
    }
    for (i = 0; i < MOST_OBJECTS; i++) {
        if (objects[i].type == FAKE_VDEVICE && objects[i].above == cmd->viommu_id &&
            objects[i].virtual_id == cmd->virt_id) {
            return -EEXIST;
        }
    }
    cmd->out_vdevice_id = add(FAKE_VDEVICE, cmd->viommu_id);
    objects[cmd->out_vdevice_id].virtual_id = cmd->virt_id;
    return 0;
}

static int ioas_map(const struct iommu_ioas_map *cmd)
{
    if (!object(cmd->ioas_id, FAKE_IOAS)) {
        return -ENOENT;
    }
    if (!cmd->user_va) {
        return -EFAULT;
    }
    fake.mapped += cmd->length / PAGE;
    return 0;
}

static int ioas_unmap(struct iommu_ioas_unmap *cmd)
{
    if (!object(cmd->ioas_id, FAKE_IOAS) || !fake.mapped) {
        return -ENOENT;
    }
    fake.mapped -= cmd->length / PAGE;
    return 0;
}

static int ioas_ranges(struct iommu_ioas_iova_ranges *cmd)
{
    struct iommu_iova_range *ranges = (void *)(uintptr_t)cmd->allowed_iovas;
    bool fits = cmd->num_iovas >= 2;

    cmd->num_iovas = 2;
    if (!fits) {
        return -EMSGSIZE;
    }
    ranges[0] = (struct iommu_iova_range) { .start = 0, .last = 0xfedfffff };
    ranges[1] = (struct iommu_iova_range){ .start = 0xfef00000,
                                           .last = (1ull << 48) - 1 };
    return 0;
}

static int queue_alloc(FakeType type, uint32_t above, uint32_t *id, uint32_t *fd)
{
    *id = add(type, above);
    *fd = FAKE_QUEUE + *id;
    objects[*id].open = true;
    return 0;
}

static int iommufd_request(unsigned long request, void *argument)
{
    const FakeRelease *release = fake.release;
    struct iommu_viommu_alloc *viommu = argument;
    struct iommu_veventq_alloc *events = argument;
    struct iommu_fault_alloc *faults = argument;

    switch (request) {
    case IOMMU_GET_HW_INFO:
        return release->hw_info ? get_hw_info(argument) : -ENOTTY;
    case IOMMU_DESTROY:
        return destroy(argument);
    case IOMMU_IOAS_ALLOC:
        ((struct iommu_ioas_alloc *)argument)->out_ioas_id = add(FAKE_IOAS, 0);
        return 0;
    case IOMMU_IOAS_IOVA_RANGES:
        return ioas_ranges(argument);
    case IOMMU_IOAS_MAP:
        return ioas_map(argument);
    case IOMMU_IOAS_UNMAP:
        return ioas_unmap(argument);
    case IOMMU_HWPT_ALLOC:
        return hwpt_alloc(argument);
    case IOMMU_HWPT_INVALIDATE:
        return release->invalidate ? invalidate(argument) : -ENOTTY;
    case IOMMU_FAULT_QUEUE_ALLOC:
        return release->faults ? queue_alloc(FAKE_FAULTS, 0, &faults->out_fault_id,
                                             &faults->out_fault_fd) :
                                 -ENOTTY;
    case IOMMU_VIOMMU_ALLOC:
        if (!release->viommu) {
            return -ENOTTY;
        }
        if (!object(viommu->hwpt_id, FAKE_PARENT)) {
            return -EINVAL;
        }
        viommu->out_viommu_id = add(FAKE_VIOMMU, viommu->hwpt_id);
        return 0;
    case IOMMU_VDEVICE_ALLOC:
        return vdevice_alloc(argument);
    case IOMMU_VEVENTQ_ALLOC:
        if (!release->events) {
            return -ENOTTY;
        }
        return queue_alloc(FAKE_EVENTS, events->viommu_id, &events->out_veventq_id,
                           &events->out_veventq_fd);
    default:
        return -ENOTTY;
    }
}

static int device_request(unsigned device, unsigned long request, void *argument)
{
    struct vfio_device_attach_iommufd_pt *attach = argument;
    struct vfio_device_detach_iommufd_pt *detach = argument;
    bool attaching = request == VFIO_DEVICE_ATTACH_IOMMUFD_PT;
    uint32_t flags = attaching ? attach->flags : detach->flags;
    uint32_t pasid = !flags ? 0 : attaching ? attach->pasid : detach->pasid;
    FakeObject *to = NULL;
    uint32_t *slot;

    if (flags && !fake.release->pasids) {
        return -EINVAL;
    }
    if (flags && pasid >= FAKE_PASIDS) {
        return attaching ? -EINVAL : 0;
    }
    slot = &attached[device][flags ? pasid + 1 : 0];
    if (attaching) {
        to = &objects[attach->pt_id];
        if (to->type == FAKE_GONE) {
            return -ENOENT;
        }
        if (to->faults && !fake.page_requests) {
            return -ENODEV;
        }
        to->users++;
    }
    if (*slot) {
        objects[*slot].users--;
    }
    *slot = attaching ? attach->pt_id : 0;
    return 0;
}

/* Whether this call is to fail. */
static bool fails(unsigned long request)
{
    fake.calls++;
    if (fake.calls == fake.interrupt_at) {
        fake.interrupt_at = 0;
        errno = EINTR;
        return true;
    }
    if (fake.calls != fake.fail_at) {
        return false;
    }
    fake.failed_request = request;
    errno = fake.error;
    return true;
}

static int fake_ioctl(int fd, unsigned long request, void *argument)
{
    int error;

    if (fails(request)) {
        return -1;
    }
    error = fd == FAKE_IOMMUFD ? iommufd_request(request, argument) :
            device_request(fd - FAKE_DEVICE, request, argument);
    errno = -error;
    return error ? -1 : 0;
}

static ssize_t fake_read(int fd, void *data, size_t size)
{
    size_t got = MIN(size, fake.pending_size);

    if (fails(0)) {
        return -1;
    }
    assert(objects[fd - FAKE_QUEUE].open);
    if (!fake.pending_size) {
        errno = EAGAIN;
        return -1;
    }
    memcpy(data, fake.pending, got);
    fake.pending_size -= got;
    memmove(fake.pending, fake.pending + got, fake.pending_size);
    got -= fake.cut;
    fake.cut = 0;
    return got;
}

static ssize_t fake_write(int fd, const void *data, size_t size)
{
    const struct iommu_hwpt_page_response *response = data;

    if (fails(0)) {
        return -1;
    }
    assert(objects[fd - FAKE_QUEUE].open && size == sizeof(*response));
    fake.responses++;
    fake.last_code = response->code;
    fake.last_cookie = response->cookie;
    return size;
}

static int fake_close(int fd)
{
    assert(objects[fd - FAKE_QUEUE].open);
    objects[fd - FAKE_QUEUE].open = false;
    return 0;
}

const IommufdCalls fake_calls = {
    .ioctl = fake_ioctl,
    .read = fake_read,
    .write = fake_write,
    .close = fake_close,
};
