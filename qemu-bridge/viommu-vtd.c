/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * -device viommu-vtd: an Intel VT-d unit whose registers and translations are the
 * daemon's.
 *
 * It is a subclass of QEMU's own intel-iommu for one reason: the machine then writes the
 * ACPI DMAR table for it, from the fields of the parent. None of the parent's emulation
 * runs: realize, reset, interrupt remapping and migration state are replaced.
 */
#include "compat.h"
#include "hw/i386/apic_internal.h"
#include "hw/i386/intel_iommu.h"
#include "hw/i386/pc.h"
#include "hw/pci-host/q35.h"
#include "kvm/kvm_i386.h"
#include "interrupt-range.h"
#include "interrupts.h"
#include "pci.h"
#include "regs.h"
#include "session.h"
#include "viommu-core.h"
#include "viommu-types.h"
#include "viommu-vtd.h"

OBJECT_DECLARE_SIMPLE_TYPE(ViommuVtd, VIOMMU_VTD)

struct ViommuVtd {
    IntelIOMMUState parent;
    ViommuCore core;
    bool page_requests;
    bool virtual_commands;
    bool first_stage;
};

/*
 * Device writes to this range are interrupt messages. VT-d specification, section 3.14.
 */
#define INTERRUPT_BASE 0xfee00000ull
#define INTERRUPT_SIZE 0x100000ull

/* The source-id of the IOxAPIC, as the machine's DMAR table gives it. */
#define IOAPIC_SOURCE PCI_BUILD_BDF(Q35_PSEUDO_BUS_PLATFORM, Q35_PSEUDO_DEVFN_IOAPIC)

/*
 * A message that reaches no processor: the logical destination 0. A route of KVM whose
 * interrupt is blocked has it, since a route that is not renewed would go on delivering.
 */
#define NOWHERE_ADDRESS (INTERRUPT_BASE | 1 << 2)
#define NOWHERE_DATA 0

/*
 * intremap has been decided by x86-iommu's realize. As with the parent, eim comes with it
 * unless it is switched off.
 */
static bool decide_eim(IntelIOMMUState *s, Error **errp)
{
    bool remaps = x86_iommu_ir_supported(X86_IOMMU_DEVICE(s));

    if (s->intr_eim == ON_OFF_AUTO_ON && !remaps) {
        error_setg(errp, "eim=on cannot be selected without intremap=on");
        return false;
    }
    if (s->intr_eim == ON_OFF_AUTO_AUTO) {
        s->intr_eim = remaps ? ON_OFF_AUTO_ON : ON_OFF_AUTO_OFF;
    }
    if (s->intr_eim == ON_OFF_AUTO_ON && kvm_irqchip_is_split() && !kvm_enable_x2apic()) {
        error_setg(errp, "eim=on requires support on the KVM side (X2APIC_API, first "
                   "shipped in v4.7)");
        return false;
    }
    return true;
}

/* What the parent offers and this device does not must not be taken silently. */
static bool check_properties(IntelIOMMUState *s, Error **errp)
{
    if (s->flts || s->pasid || s->snoop_control) {
        error_setg(errp, "x-flts, x-pasid-mode and snoop-control are not options here: "
                   "scalable-mode=on brings what the daemon offers");
        return false;
    }
    if (s->aw_bits != 39 && s->aw_bits != 48 && s->aw_bits != 57) {
        error_setg(errp, "aw-bits must be 39, 48 or 57");
        return false;
    }
    return decide_eim(s, errp);
}

/* An option that older daemons do not know is sent only when it is not at its default. */
static unsigned add_unusual(viommu_Hello_OptionsEntry *option, const char *key,
                            const char *value, bool unusual)
{
    if (unusual) {
        pstrcpy(option->key, sizeof(option->key), key);
        pstrcpy(option->value, sizeof(option->value), value);
    }
    return unusual;
}

static void deliver(const ViommuMessage *message)
{
    static APICCommonClass *apic; /* a look-up by name takes longer than a delivery */
    MSIMessage msi = { .address = message->address, .data = message->data };

    if (!apic) {
        apic = apic_get_class(NULL);
    }
    apic->send_msi(&msi);
}

static void interrupts_changed(ViommuCore *core, uint32_t index, uint32_t log2_count)
{
    x86_iommu_iec_notify_all(X86_IOMMU_DEVICE(core->dev), log2_count >= INTERRUPT_ALL,
                             index, log2_count);
}

static const ViommuInterruptOps interrupt_ops = {
    .deliver = deliver,
    .changed = interrupts_changed,
};

static bool connect_daemon(ViommuVtd *v, Error **errp)
{
    IntelIOMMUState *s = &v->parent;
    bool remaps = x86_iommu_ir_supported(X86_IOMMU_DEVICE(s));
    viommu_Hello_OptionsEntry options[9] = {
        { .key = "caching-mode" },
        { .key = "scalable-mode" },
        { .key = "aw-bits" },
    };
    unsigned count = 3;

    pstrcpy(options[0].value, sizeof(options[0].value), s->caching_mode ? "on" : "off");
    pstrcpy(options[1].value, sizeof(options[1].value), s->scalable_mode ? "on" : "off");
    snprintf(options[2].value, sizeof(options[2].value), "%u", s->aw_bits);
    count += add_unusual(&options[count], "first-stage", "off", !v->first_stage);
    count += add_unusual(&options[count], "virtual-commands", "on", v->virtual_commands);
    /*
     * A property of the parent, by which the machine also describes the root ports
     * (ATSR).
     */
    count += add_unusual(&options[count], "device-tlb", "on",
                         X86_IOMMU_DEVICE(s)->dt_supported);
    count += add_unusual(&options[count], "page-requests", "on", v->page_requests);
    count += add_unusual(&options[count], "intremap", "on", remaps);
    count += add_unusual(&options[count], "eim",
                         s->intr_eim == ON_OFF_AUTO_ON ? "on" : "off", remaps);
    v->core.model = "vtd";
    v->core.aw_bits = s->aw_bits;
    v->core.caching_mode = s->caching_mode;
    v->core.no_map_events = "which takes caching-mode=on";
    v->core.msi_base = INTERRUPT_BASE;
    v->core.msi_size = INTERRUPT_SIZE;
    v->core.interrupts.ops = &interrupt_ops;
    v->core.interrupts.remapped = remaps;
    return viommu_session_connect(&v->core, options, count, errp);
}

/*
 * X86IOMMUClass::realize; the machine is a PC with a PCI bus, which the caller checked.
 */
static void vtd_realize(DeviceState *dev, Error **errp)
{
    ViommuVtd *v = VIOMMU_VTD(dev);
    PCMachineState *machine = PC_MACHINE(qdev_get_machine());

    if (!check_properties(&v->parent, errp) || !connect_daemon(v, errp)) {
        return;
    }
    viommu_regs_init(&v->core, "viommu-vtd");
    memory_region_add_subregion(get_system_memory(), Q35_HOST_BRIDGE_IOMMU_ADDR,
                                &v->core.registers);
    if (v->core.interrupts.remapped) {
        X86_MACHINE(machine)->ioapic_as =
            viommu_interrupt_range_of_ioapic(&v->core, IOAPIC_SOURCE);
    }
    pci_setup_iommu(machine->pcibus, &viommu_pci_ops, &v->core);
}

/* In the last phase: the devices have stopped their DMA in the ones before. */
static void vtd_reset_exit(Object *obj, ResetType type)
{
    viommu_session_reset(&VIOMMU_VTD(obj)->core);
}

/*
 * X86IOMMUClass::int_remap, which KVM's routes are made with. One without a device is the
 * split IOAPIC's. A failure would leave a route as it was.
 */
static int vtd_int_remap(X86IOMMUState *iommu, MSIMessage *src, MSIMessage *dst,
                         uint16_t sid)
{
    ViommuCore *core = &VIOMMU_VTD(iommu)->core;
    ViommuMessage message = { .address = src->address, .data = src->data };

    if (sid == X86_IOMMU_SID_INVALID) {
        sid = IOAPIC_SOURCE;
    }
    if (core->interrupts.remapped && !viommu_interrupts_look(core, sid, &message)) {
        message = (ViommuMessage) { NOWHERE_ADDRESS, NOWHERE_DATA };
    }
    dst->address = message.address;
    dst->data = message.data;
    return 0;
}

static void vtd_instance_init(Object *obj)
{
    ViommuVtd *v = VIOMMU_VTD(obj);

    viommu_session_init(&v->core, DEVICE(obj));
    /* What is not asked for is off. */
    v->parent.x86_iommu.intr_supported = ON_OFF_AUTO_OFF;
}

static const VMStateDescription vtd_vmstate = {
    .name = TYPE_VIOMMU_VTD,
    .unmigratable = 1,
};

static const Property vtd_properties[] = {
    DEFINE_PROP_STRING("socket", ViommuVtd, core.socket_path),
    DEFINE_PROP_STRING("name", ViommuVtd, core.vm_name),
    DEFINE_PROP_UINT32("timeout-ms", ViommuVtd, core.timeout_ms,
                       VIOMMU_DEFAULT_TIMEOUT_MS),
    DEFINE_PROP_BOOL("walks", ViommuVtd, core.walks, true),
    DEFINE_PROP_BOOL("queues", ViommuVtd, core.queues, true),
    DEFINE_PROP_BOOL("scalable-mode", ViommuVtd, parent.scalable_mode, false),
    DEFINE_PROP_BOOL("first-stage", ViommuVtd, first_stage, true),
    DEFINE_PROP_BOOL("page-requests", ViommuVtd, page_requests, false),
    DEFINE_PROP_BOOL("virtual-commands", ViommuVtd, virtual_commands, false),
};

static void vtd_class_init(ObjectClass *klass, VIOMMU_CLASS_DATA *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);
    X86IOMMUClass *xc = X86_IOMMU_DEVICE_CLASS(klass);
    ResettableClass *rc = RESETTABLE_CLASS(klass);

    xc->realize = vtd_realize;
    xc->int_remap = vtd_int_remap;
    rc->phases.exit = vtd_reset_exit;
    dc->vmsd = &vtd_vmstate;
    dc->desc = "Intel VT-d IOMMU served by a viommu daemon";
    dc->hotpluggable = false;
    device_class_set_props(dc, vtd_properties);
    viommu_session_describe_properties(klass);
    object_class_property_set_description(
        klass, "scalable-mode",
        "scalable-mode translation: PASID tables, "
        "first-stage and nested (also as x-scalable-mode)");
    object_class_property_set_description(
        klass, "first-stage",
        "off: second-stage tables only, in scalable mode; those "
        "of assigned devices that are shadowed have to be");
    object_class_property_set_description(
        klass, "page-requests",
        "devices may ask for pages (needs scalable-mode=on "
        "and device-iotlb=on)");
    object_class_property_set_description(klass, "virtual-commands",
                                          "registers to have PASIDs allocated (needs "
                                          "scalable-mode=on and caching-mode=on)");
}

const TypeInfo viommu_vtd_type = {
    .name = TYPE_VIOMMU_VTD,
    .parent = TYPE_INTEL_IOMMU_DEVICE,
    .instance_size = sizeof(ViommuVtd),
    .instance_init = vtd_instance_init,
    .class_init = vtd_class_init,
};
