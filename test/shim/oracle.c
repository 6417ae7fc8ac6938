/*
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Batches of operations on a stock model: stores to guest RAM and to registers, loads, and
 * translations of any requester, whether there is such a device or not.
 * test/oracle/shim-protocol.ts is the other side.
 *
 * A batch is a 32-bit count, then so many operations. The answer is a 32-bit length in bytes, then
 * what the operations yielded, in their order. Everything is little-endian.
 */
#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "qemu/rcu.h"
#include "exec/address-spaces.h"
#include "exec/memory.h"
#include "hw/pci/pci.h"
#include "hw/pci/pci_bridge.h"
#include "hw/pci/pci_bus.h"
#include "hw/pci/pci_device.h"
#ifdef VIOMMU_SHIM_X86
#include "hw/i386/intel_iommu.h"
#endif

#include "shim.h"

enum {
    OP_STORE = 1, /* value, size bytes of it, at address: RAM or a register */
    OP_LOAD,      /* yields 8 bytes: what size bytes at address hold */
    OP_ZERO,      /* value bytes at address */
    OP_TRANSLATE, /* requester who, for address; yields a Translated */
    OP_DUMP,      /* yields value bytes at address */
    OP_RESET,     /* the unit, to power-on */
    OP_BUS,       /* the bridge's secondary bus gets number who */
    OP_COPY,      /* size bytes at address are stored at value */
};

typedef struct Operation {
    uint32_t kind;
    uint32_t size;  /* TRANSLATE: IOMMUAccessFlags */
    uint32_t who;   /* requester id */
    uint32_t pasid; /* PASID + 1, 0 = none */
    uint64_t address;
    uint64_t value;
} Operation;

typedef struct Translated {
    uint64_t input;
    uint64_t output;
    uint64_t mask;
    uint64_t permissions;
} Translated;

#define MAX_OPERATIONS 1000000
#define MAX_ANSWER (64 * 1024 * 1024)

/* What an oracle needs to know of its machine. */
typedef struct Oracle {
    int fd;
    DeviceState *unit;
    PCIDevice *bridge;
    PCIBus *root;
    PCIBus *below;
} Oracle;

static bool find_machine(ShimDevice *shim, Oracle *oracle)
{
    static const char *const units[] = { "intel-iommu", "arm-smmuv3" };
    Object *bridge = shim->bridge ? object_resolve_path(shim->bridge, NULL) : NULL;

    for (size_t i = 0; i < ARRAY_SIZE(units) && !oracle->unit; i++) {
        Object *unit = object_resolve_path_type("", units[i], NULL);

        oracle->unit = unit ? DEVICE(unit) : NULL;
    }
    if (!oracle->unit || !bridge || !object_dynamic_cast(bridge, TYPE_PCI_BRIDGE)) {
        return false;
    }
    oracle->bridge = PCI_DEVICE(bridge);
    oracle->root = pci_get_bus(oracle->bridge);
    oracle->below = pci_bridge_get_sec_bus(PCI_BRIDGE(bridge));
    return oracle->root->iommu_ops != NULL;
}

static bool read_all(int fd, void *data, size_t size)
{
    for (size_t done = 0; done < size; ) {
        ssize_t count = read(fd, (char *)data + done, size - done);

        if (count < 0 && errno == EINTR) {
            continue;
        }
        if (count <= 0) {
            return false;
        }
        done += count;
    }
    return true;
}

static bool write_all(int fd, const void *data, size_t size)
{
    for (size_t done = 0; done < size; ) {
        ssize_t count = write(fd, (const char *)data + done, size - done);

        if (count < 0 && errno == EINTR) {
            continue;
        }
        if (count <= 0) {
            return false;
        }
        done += count;
    }
    return true;
}

/*
 * The IOMMU region before a requester. Regions live as long as the machine, so nothing is
 * referenced.
 */
static IOMMUMemoryRegion *region_of(Oracle *oracle, const Operation *op)
{
    PCIBus *bus = op->who >> 8 ? oracle->below : oracle->root;
    int devfn = op->who & 0xff;

#ifdef VIOMMU_SHIM_X86
    IntelIOMMUState *unit = INTEL_IOMMU_DEVICE(oracle->unit);

    return &vtd_find_add_as(unit, bus, devfn, op->pasid ? op->pasid - 1 : PCI_NO_PASID)->iommu;
#else
    AddressSpace *space = oracle->root->iommu_ops->get_address_space(bus, oracle->root->iommu_opaque, devfn);

    return memory_region_get_iommu(space->root);
#endif
}

static void translate(Oracle *oracle, const Operation *op, GByteArray *out)
{
    IOMMUMemoryRegion *region = region_of(oracle, op);
    IOMMUMemoryRegionClass *class = IOMMU_MEMORY_REGION_GET_CLASS(region);
    Translated answer = { 0 };
    IOMMUTLBEntry entry;

    rcu_read_lock();
    entry = class->translate(region, op->address, op->size, 0);
    rcu_read_unlock();
    answer.input = entry.iova;
    answer.output = entry.translated_addr;
    answer.mask = entry.addr_mask;
    answer.permissions = entry.perm;
    g_byte_array_append(out, (const guint8 *)&answer, sizeof(answer));
}

static bool run(Oracle *oracle, const Operation *op, GByteArray *out)
{
    uint64_t value = op->value;

    switch (op->kind) {
    case OP_STORE:
        g_assert(op->size <= sizeof(value));
        address_space_write(&address_space_memory, op->address, MEMTXATTRS_UNSPECIFIED, &value, op->size);
        return true;
    case OP_LOAD:
        g_assert(op->size <= sizeof(value));
        value = 0;
        address_space_read(&address_space_memory, op->address, MEMTXATTRS_UNSPECIFIED, &value, op->size);
        g_byte_array_append(out, (const guint8 *)&value, sizeof(value));
        return true;
    case OP_ZERO:
        address_space_set(&address_space_memory, op->address, 0, value, MEMTXATTRS_UNSPECIFIED);
        return true;
    case OP_TRANSLATE:
        translate(oracle, op, out);
        return true;
    case OP_DUMP:
        if (value > MAX_ANSWER - out->len) {
            return false;
        }
        g_byte_array_set_size(out, out->len + value);
        address_space_read(&address_space_memory, op->address, MEMTXATTRS_UNSPECIFIED,
                           out->data + out->len - value, value);
        return true;
    case OP_RESET:
        device_cold_reset(oracle->unit);
        return true;
    case OP_COPY:
        g_assert(op->size <= sizeof(value));
        address_space_read(&address_space_memory, op->address, MEMTXATTRS_UNSPECIFIED, &value, op->size);
        address_space_write(&address_space_memory, op->value, MEMTXATTRS_UNSPECIFIED, &value, op->size);
        return true;
    case OP_BUS:
        pci_set_byte(oracle->bridge->config + PCI_SECONDARY_BUS, op->who);
        return true;
    default:
        return false;
    }
}

/*
 * One batch is one memory transaction: an IOMMU that is switched on and off rearranges the address
 * spaces of its devices each time, and nothing here reads them.
 */
static bool run_batch(Oracle *oracle, const Operation *batch, uint32_t count, GByteArray *out)
{
    bool good = true;

    bql_lock();
    memory_region_transaction_begin();
    for (uint32_t i = 0; good && i < count; i++) {
        good = run(oracle, &batch[i], out);
    }
    memory_region_transaction_commit();
    bql_unlock();
    return good;
}

void oracle_serve(ShimDevice *shim)
{
    Oracle oracle = { .fd = fileno(shim->stream) };
    g_autoptr(GByteArray) out = g_byte_array_new();
    uint32_t count;
    bool good;

    bql_lock();
    good = find_machine(shim, &oracle);
    bql_unlock();
    shim_answer(shim, good ? "ok" : "error no IOMMU with a bridge below it in this machine");
    while (good && read_all(oracle.fd, &count, sizeof(count)) && count <= MAX_OPERATIONS) {
        g_autofree Operation *batch = g_new(Operation, count);
        uint32_t size;

        g_byte_array_set_size(out, 0);
        good = read_all(oracle.fd, batch, count * sizeof(*batch)) && run_batch(&oracle, batch, count, out);
        size = out->len;
        good = good && write_all(oracle.fd, &size, sizeof(size)) && write_all(oracle.fd, out->data, size);
    }
}
