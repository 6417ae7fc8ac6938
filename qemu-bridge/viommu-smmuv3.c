/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * -device viommu-smmuv3: an Arm SMMUv3 on the `virt` machine, whose registers and
 * translations are the daemon's.
 *
 * It stands where the machine would put its own SMMU: same address of the registers, same
 * interrupts. The device tree is written here. The machine writes ACPI's IORT by itself
 * once it is told that it has an SMMUv3.
 */
#include "compat.h"
#include "hw/arm/virt.h"
#include "hw/arm/fdt.h"
#include "system/device_tree.h"
#include "system/reset.h"
#include <libfdt.h>
#include "pci.h"
#include "regs.h"
#include "session.h"
#include "viommu-core.h"
#include "viommu-types.h"
#include "viommu-smmuv3.h"

/*
 * The model's options: passed on as they are, for the daemon to judge. The daemon has the
 * defaults.
 */
#define MODEL_OPTIONS(X) \
    X(STAGES, "stages", "1, 2 or nested: IDR0.S1P and S2P") \
    X(GRANULES, "granules", "some of 4k, 16k, 64k, with doubled commas between them") \
    X(OAS, "oas", "output address size in bits: 32, 36, 40, 42, 44, 48 or 52") \
    X(SSID_BITS, "ssid-bits", "IDR1.SSIDSIZE, 0 to 20") \
    X(TWO_LEVEL, "two-level", "on or off: 2-level stream and CD tables") \
    X(HTTU, "httu", "off, access or dirty: hardware updates of table entries") \
    X(RANGE_INVALIDATION, "range-invalidation", "on or off: IDR3.RIL") \
    X(STALL, "stall", "on or off: IDR0.STALL_MODEL") \
    X(ATS, "ats", "on or off: IDR0.ATS; off by default") \
    X(PRI, "pri", "on or off: IDR0.PRI; needs ats=on") \
    X(VIRTUAL_COMMANDS, "virtual-commands", \
      "on or off: the guest has its SubstreamIDs allocated")

enum {
#define OPTION_NUMBER(number, name, text) OPTION_##number,
    MODEL_OPTIONS(OPTION_NUMBER)
    OPTION_COUNT
};

static const struct {
    const char *name;
    const char *text;
} model_options[] = {
#define OPTION_TEXTS(number, name, text) { name, text },
    MODEL_OPTIONS(OPTION_TEXTS)
};

OBJECT_DECLARE_SIMPLE_TYPE(ViommuSmmuv3, VIOMMU_SMMUV3)

struct ViommuSmmuv3 {
    DeviceState parent;
    ViommuCore core;
    char *options[OPTION_COUNT];
};

/*
 * Names of the four outputs in a device tree, in the order of the protocol and of IORT.
 */
static const char interrupt_names[] = "eventq\0priq\0cmdq-sync\0gerror";

/* The machine that this device can be part of, or NULL with errp set. */
static VirtMachineState *find_machine(Error **errp)
{
    Object *machine = object_dynamic_cast(qdev_get_machine(), TYPE_VIRT_MACHINE);
    VirtMachineState *vms;

    if (!machine) {
        error_setg(errp, "the machine has to be virt: -machine virt,gic-version=3");
        return NULL;
    }
    vms = VIRT_MACHINE(machine);
    if (vms->iommu != VIRT_IOMMU_NONE) {
        error_setg(
            errp,
            "the machine has an IOMMU already: leave iommu= out of -machine, and give "
            "one -device");
        return NULL;
    }
    if (vms->msi_controller != VIRT_MSI_CTRL_ITS) {
        error_setg(errp,
                   "the machine has to have an interrupt translation service: -machine "
                   "virt,gic-version=3 without its=off");
        return NULL;
    }
    return vms;
}

static bool connect_daemon(ViommuSmmuv3 *s, Error **errp)
{
    viommu_Hello_OptionsEntry options[OPTION_COUNT];
    unsigned i, count = 0;

    for (i = 0; i < OPTION_COUNT; i++) {
        if (!s->options[i]) {
            continue;
        }
        if (strlen(s->options[i]) >= sizeof(options[count].value)) {
            error_setg(errp, "%s: the value is longer than %zu bytes",
                       model_options[i].name, sizeof(options[count].value) - 1);
            return false;
        }
        pstrcpy(options[count].key, sizeof(options[count].key), model_options[i].name);
        pstrcpy(options[count].value, sizeof(options[count].value), s->options[i]);
        count++;
    }
    s->core.model = "smmuv3";
    /*
     * Input addresses have 64 bits: tables of the upper half, and tags in the top byte.
     */
    s->core.aw_bits = 64;
    s->core.no_map_events =
        "and an SMMUv3 has no caching mode: stores to its tables would have to be "
        "trapped, which takes TCG and a daemon that asks for it";
    s->core.maps_in_silence = true;
    return viommu_session_connect(&s->core, options, count, errp);
}

static void take_wires(ViommuCore *core, VirtMachineState *vms)
{
    unsigned i;

    for (i = 0; i < NUM_SMMU_IRQS; i++) {
        core->wires[i] = qdev_get_gpio_in(vms->gic, vms->irqmap[VIRT_SMMU] + i);
    }
    core->wire_count = NUM_SMMU_IRQS;
}

/*
 * The unit's node, and the map from requester ids of the PCI bus to StreamIDs, which are
 * equal.
 */
static void describe(VirtMachineState *vms, hwaddr base, hwaddr size)
{
    void *fdt = MACHINE(vms)->fdt;
    g_autofree char *node = g_strdup_printf("/smmuv3@%" PRIx64, base);
    uint32_t interrupts[3 * NUM_SMMU_IRQS];
    unsigned i;

    for (i = 0; i < NUM_SMMU_IRQS; i++) {
        interrupts[3 * i] = cpu_to_be32(GIC_FDT_IRQ_TYPE_SPI);
        interrupts[3 * i + 1] = cpu_to_be32(vms->irqmap[VIRT_SMMU] + i);
        interrupts[3 * i + 2] = cpu_to_be32(GIC_FDT_IRQ_FLAGS_EDGE_LO_HI);
    }
    vms->iommu_phandle = qemu_fdt_alloc_phandle(fdt);
    qemu_fdt_add_subnode(fdt, node);
    qemu_fdt_setprop_string(fdt, node, "compatible", "arm,smmu-v3");
    qemu_fdt_setprop_sized_cells(fdt, node, "reg", 2, base, 2, size);
    qemu_fdt_setprop(fdt, node, "interrupts", interrupts, sizeof(interrupts));
    qemu_fdt_setprop(fdt, node, "interrupt-names", interrupt_names,
                     sizeof(interrupt_names));
    qemu_fdt_setprop(fdt, node, "dma-coherent", NULL, 0);
    qemu_fdt_setprop_cell(fdt, node, "#iommu-cells", 1);
    qemu_fdt_setprop_cell(fdt, node, "phandle", vms->iommu_phandle);
    if (!vms->default_bus_bypass_iommu) {
        qemu_fdt_setprop_cells(fdt, vms->pciehb_nodename, "iommu-map", 0x0,
                               vms->iommu_phandle, 0x0, 0x10000);
        /*
         * The host bridge passes translation requests on; IDR0 says whether the unit
         * answers them.
         */
        qemu_fdt_setprop(fdt, vms->pciehb_nodename, "ats-supported", NULL, 0);
    }
}

static void smmuv3_realize(DeviceState *dev, Error **errp)
{
    ViommuSmmuv3 *s = VIOMMU_SMMUV3(dev);
    VirtMachineState *vms = find_machine(errp);
    const MemMapEntry *window;

    if (!vms) {
        return;
    }
    window = &vms->memmap[VIRT_SMMU];
    s->core.max_register_bytes = window->size;
    take_wires(&s->core, vms);
    if (!connect_daemon(s, errp)) {
        return;
    }
    viommu_regs_init(&s->core, "viommu-smmuv3");
    memory_region_add_subregion(get_system_memory(), window->base, &s->core.registers);
    vms->iommu = VIRT_IOMMU_SMMUV3;
    VIOMMU_MACHINE_SMMUV3(vms);
    describe(vms, window->base, window->size);
    pci_setup_iommu(vms->bus, &viommu_pci_ops, &s->core);
    /* On no bus, it would not hear of a reset. */
    qemu_register_resettable(OBJECT(dev));
}

/* In the last phase: the devices have stopped their DMA in the ones before. */
static void smmuv3_reset_exit(Object *obj, ResetType type)
{
    viommu_session_reset(&VIOMMU_SMMUV3(obj)->core);
}

static void smmuv3_instance_init(Object *obj)
{
    viommu_session_init(&VIOMMU_SMMUV3(obj)->core, DEVICE(obj));
}

static const VMStateDescription smmuv3_vmstate = {
    .name = TYPE_VIOMMU_SMMUV3,
    .unmigratable = 1,
};

static const Property smmuv3_properties[] = {
    DEFINE_PROP_STRING("socket", ViommuSmmuv3, core.socket_path),
    DEFINE_PROP_STRING("name", ViommuSmmuv3, core.vm_name),
    DEFINE_PROP_UINT32("timeout-ms", ViommuSmmuv3, core.timeout_ms,
                       VIOMMU_DEFAULT_TIMEOUT_MS),
    DEFINE_PROP_BOOL("walks", ViommuSmmuv3, core.walks, true),
    DEFINE_PROP_BOOL("queues", ViommuSmmuv3, core.queues, true),
#define OPTION_PROPERTY(number, name, text) \
    DEFINE_PROP_STRING(name, ViommuSmmuv3, options[OPTION_##number]),
    MODEL_OPTIONS(OPTION_PROPERTY)
};

static void smmuv3_class_init(ObjectClass *klass, VIOMMU_CLASS_DATA *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);
    unsigned i;

    dc->realize = smmuv3_realize;
    RESETTABLE_CLASS(klass)->phases.exit = smmuv3_reset_exit;
    dc->vmsd = &smmuv3_vmstate;
    dc->desc = "Arm SMMUv3 served by a viommu daemon";
    dc->hotpluggable = false;
    set_bit(DEVICE_CATEGORY_MISC, dc->categories);
    device_class_set_props(dc, smmuv3_properties);
    viommu_session_describe_properties(klass);
    for (i = 0; i < OPTION_COUNT; i++) {
        object_class_property_set_description(klass, model_options[i].name,
                                              model_options[i].text);
    }
}

const TypeInfo viommu_smmuv3_type = {
    .name = TYPE_VIOMMU_SMMUV3,
    .parent = TYPE_DEVICE,
    .instance_size = sizeof(ViommuSmmuv3),
    .instance_init = smmuv3_instance_init,
    .class_init = smmuv3_class_init,
};
