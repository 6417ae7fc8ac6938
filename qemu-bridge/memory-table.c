/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The table has the RAM of the system address space, region by region as QEMU lays it
 * out, and is kept up to date as regions come and go. RAM with a shared file goes as a
 * descriptor; other RAM is announced, and served by messages.
 */
#include "compat.h"
#include "front.h"
#include "memory-table.h"
#include "settle.h"
#include "track.h"
#include "viommu-core.h"

/*
 * Descriptor of the region's file. -1: the daemon could not see the guest's writes
 * through it.
 */
static int shared_fd(const MemoryRegionSection *section)
{
    RAMBlock *block = section->mr->ram_block;

    if (!block || !qemu_ram_is_shared(block) || section->readonly ||
        section->mr->rom_device) {
        return -1;
    }
    return qemu_ram_get_fd(block);
}

/*
 * MMIO is no memory, and neither is RAM that stands for it (the mapped BAR of a host
 * device).
 */
static bool is_guest_memory(const MemoryRegionSection *section)
{
    MemoryRegion *mr = section->mr;

    if (memory_region_is_ram_device(mr)) {
        return false;
    }
    return memory_region_is_ram(mr) || memory_region_is_romd(mr);
}

static void announce(ViommuCore *core, ViommuRegion *region,
                     const MemoryRegionSection *section)
{
    viommu_MemAdd msg = viommu_MemAdd_init_zero;
    viommu_Status status = viommu_Status_init_zero;
    uint64_t offset = region->offset;
    int fd = shared_fd(section);

    if (fd >= 0) {
        offset += section->mr->ram_block->fd_offset;
    }
    msg.region = region->id;
    msg.gpa_lo = region->gpa;
    msg.gpa_hi = region->gpa >> 32;
    msg.size_lo = region->size;
    msg.size_hi = region->size >> 32;
    msg.offset_lo = offset;
    msg.offset_hi = offset >> 32;
    msg.readonly = region->readonly;
    msg.shared = fd >= 0;
    if (!viommu_front_request(core, viommu_MessageType_MEM_ADD, viommu_MemAdd_fields,
                              &msg, fd, viommu_Status_fields, &status)) {
        return;
    }
    if (status.code) {
        warn_report("viommu: the daemon refused memory at 0x%" PRIx64
                    " (%s): %s (code %" PRIu32 ")",
                    region->gpa, memory_region_name(region->mr), status.text,
                    status.code);
    } else if (msg.shared && *status.text) {
        /*
         * The daemon could not map the file: memory is slower, which may not be what was
         * meant.
         */
        warn_report_once("viommu: memory at 0x%" PRIx64 " (%s) is %s", region->gpa,
                         memory_region_name(region->mr), status.text);
    }
}

/* The daemon has let go of the memory when this returns. */
static void forget(ViommuCore *core, ViommuRegion *region)
{
    viommu_MemRemove msg = { .region = region->id };
    viommu_Status status = viommu_Status_init_zero;

    viommu_front_request(core, viommu_MessageType_MEM_REMOVE, viommu_MemRemove_fields,
                         &msg, -1, viommu_Status_fields, &status);
    qemu_mutex_lock(&core->host_lock);
    QTAILQ_REMOVE(&core->regions, region, next);
    qemu_mutex_unlock(&core->host_lock);
    viommu_settle(core);
    memory_region_unref(region->mr);
    g_free(region);
}

static void begin(MemoryListener *listener)
{
    ViommuCore *core = container_of(listener, ViommuCore, memory_listener);

    g_array_set_size(core->sections, 0);
}

static void note(MemoryListener *listener, MemoryRegionSection *section)
{
    ViommuCore *core = container_of(listener, ViommuCore, memory_listener);

    if (is_guest_memory(section)) {
        g_array_append_val(core->sections, *section);
    }
}

static bool is_section(const ViommuRegion *region, const MemoryRegionSection *section)
{
    return region->mr == section->mr &&
           region->gpa == section->offset_within_address_space &&
           region->size == int128_get64(section->size) &&
           region->offset == section->offset_within_region &&
           region->readonly == (section->readonly || section->mr->rom_device);
}

static void remember(ViommuCore *core, const MemoryRegionSection *section)
{
    ViommuRegion *region = g_new0(ViommuRegion, 1);

    region->id = ++core->next_region;
    region->mr = section->mr;
    region->gpa = section->offset_within_address_space;
    region->size = int128_get64(section->size);
    region->offset = section->offset_within_region;
    region->readonly = section->readonly || section->mr->rom_device;
    memory_region_ref(region->mr);
    qemu_mutex_lock(&core->host_lock);
    QTAILQ_INSERT_TAIL(&core->regions, region, next);
    qemu_mutex_unlock(&core->host_lock);
    announce(core, region, section);
}

/* The sections noted are all that there are now: what is not among them goes first. */
static void commit(MemoryListener *listener)
{
    ViommuCore *core = container_of(listener, ViommuCore, memory_listener);
    g_autofree bool *known = g_new0(bool, core->sections->len);
    ViommuRegion *region, *next;
    bool changed = false;
    guint i;

    core->memory_changing = true;
    QTAILQ_FOREACH_SAFE(region, &core->regions, next, next) {
        for (i = 0; i < core->sections->len; i++) {
            if (is_section(region,
                           &g_array_index(core->sections, MemoryRegionSection, i))) {
                known[i] = true;
                break;
            }
        }
        if (i == core->sections->len) {
            forget(core, region);
            changed = true;
        }
    }
    for (i = 0; i < core->sections->len; i++) {
        if (!known[i]) {
            remember(core, &g_array_index(core->sections, MemoryRegionSection, i));
            changed = true;
        }
    }
    core->memory_changing = false;
    if (changed) {
        viommu_track_ram_changed(core);
    }
}

void viommu_memory_table_start(ViommuCore *core)
{
    QTAILQ_INIT(&core->regions);
    core->sections = g_array_new(FALSE, FALSE, sizeof(MemoryRegionSection));
    core->memory_listener = (MemoryListener) {
        .name = "viommu",
        .begin = begin,
        .region_add = note,
        .region_nop = note,
        .commit = commit,
    };
    memory_listener_register(&core->memory_listener, &address_space_memory);
    core->memory_listening = true;
}

void viommu_memory_table_stop(ViommuCore *core)
{
    if (core->memory_listening) {
        memory_listener_unregister(&core->memory_listener);
        core->memory_listening = false;
        g_array_free(core->sections, TRUE);
        core->sections = NULL;
    }
}
