import { describe, expect, it } from 'vitest';
import { GuestTables, guestSte, writeCd } from '../../../test/support/guest-tables.js';
import { dmaRead, dmaWrite, GUEST_BYTES, leftovers, RigGuest, rig } from '../../../test/support/host-rig.js';
import { ACCESS } from '../../device/iommu.js';
import { pack } from '../../spec/define.js';
import { CMD, CMD_CFGI_CD, CMD_CFGI_STE, CMD_TLBI } from '../../spec/smmuv3/commands.js';
import { CLASS, EVENT, F_TRANSLATION } from '../../spec/smmuv3/events.js';
import { FAULT } from '../../spec/vtd/faults.js';
import { FRCD_REG } from '../../spec/vtd/registers.js';
import { ALL_PAGES, HostInvalidations, type NestedTable } from '../port.js';
import type { SimDevice } from './sim-device.js';
import type { SimHost } from './sim-host.js';

const RID = 0x0210;
const PARENT = 1;
const IOVA = 0x40_0000;
/** StreamID that the guest gives its device. */
const GUEST_SID = 0x18;

interface Case {
  readonly name: string;
  readonly kind: 'smmuv3' | 'vtd2' | 'vtd3';
  readonly device: 'vf' | 'mdev';
  /** The PASID whose requests are nested; −1: requests without. */
  readonly pasid: number;
}

const CASES: readonly Case[] = [
  { name: 'SMMUv3 VF', kind: 'smmuv3', device: 'vf', pasid: -1 },
  { name: 'vt-d3 VF by RID_PASID', kind: 'vtd3', device: 'vf', pasid: -1 },
  { name: 'vt-d3 VF, one PASID', kind: 'vtd3', device: 'vf', pasid: 33 },
  { name: 'vt-d3 mdev', kind: 'vtd3', device: 'mdev', pasid: -1 },
  { name: 'vt-d2 VF, one PASID', kind: 'vtd2', device: 'vf', pasid: 5 },
];

/** A guest whose whole memory is below a nest parent, and stage-1 tables of its own. */
class NestedGuest extends RigGuest {
  readonly device: SimDevice;
  readonly tables: GuestTables;
  readonly cd: number;

  constructor(
    host: SimHost,
    name: string,
    readonly of: Case,
    rid = RID,
    container: 'iommufd' | 'type1-nesting' = 'iommufd',
  ) {
    super(host, name, container);
    this.device = of.device === 'mdev' ? host.addMdev(rid, this.port) : host.addVf(rid, this.port);
    this.space(PARENT, this.device, true);
    this.mapAll(PARENT);
    this.ok((port, done) => port.identify(this.device.number, GUEST_SID, done));
    this.tables = new GuestTables(this.memory, this.pages, of.kind === 'smmuv3' ? 'arm' : 'vtd');
    this.cd = this.pages.take();
    writeCd(this.memory, this.cd, this.tables.root, 77);
  }

  get table(): NestedTable {
    if (this.of.kind === 'smmuv3') return { format: 'smmuv3', ste: guestSte(this.cd) };
    return vtdTable(this.tables.root);
  }

  enter(): this {
    const outcome = this.nest(this.device, PARENT, this.table, this.of.pasid);
    if (outcome.code !== 'OK') throw new Error(outcome.text);
    return this;
  }

  /** Tells the host that one page of the tables has changed, or all. */
  forget(page?: number): string {
    const invalidations = new HostInvalidations();
    if (this.of.kind === 'smmuv3') {
      const words =
        page === undefined
          ? pack(CMD_TLBI, { Opcode: CMD.TLBI_NH_ASID, ASID: 77 })
          : pack(CMD_TLBI, { Opcode: CMD.TLBI_NH_VA, ASID: 77, Address: page });
      invalidations.command(words[0], words[1], words[2], words[3]);
    } else {
      invalidations.range(
        this.device.number,
        this.of.pasid,
        page ?? 0,
        0,
        page === undefined ? ALL_PAGES : 1,
      );
    }
    return this.invalidate(PARENT, invalidations).code;
  }

  write(address: number, values: readonly number[]): number {
    return dmaWrite(this.device, address, values, this.of.pasid);
  }

  read(address: number): number | undefined {
    return dmaRead(this.device, address, 1, this.of.pasid)?.[0];
  }
}

function vtdTable(root: number): NestedTable {
  return { format: 'vtd', root, levels: 4, writeProtect: false, extendedAccessed: false, supervisor: false };
}

function setUp(of: Case, container: 'iommufd' | 'type1-nesting' = 'iommufd') {
  const { host } = rig(of.kind, 'iommufd');
  if (of.device === 'mdev') host.addParent(RID);
  return { host, guest: new NestedGuest(host, 'nested', of, RID, container) };
}

describe.each(CASES)('guest tables on the host: $name', (of) => {
  it.each(['iommufd', 'type1-nesting'] as const)('are walked by hardware, in %s', (container) => {
    const { host, guest } = setUp(of, container);
    guest.tables.map(BigInt(IOVA), 0x3000);
    guest.tables.map(BigInt(IOVA + 0x1000), 0x9000, false);
    expect(guest.write(IOVA, [1])).toBe(0);
    guest.enter();
    expect(guest.write(IOVA + 8, [0xabc])).toBe(4);
    expect(guest.word(0x3008)).toBe(0xabc);
    guest.memory.store32(0x9004, 99);
    expect(guest.read(IOVA + 0x1004)).toBe(99);
    expect(guest.write(IOVA + 0x1004, [1])).toBe(0);
    expect(guest.read(IOVA + 0x2000)).toBeUndefined();
    expect(host.leftovers()).toMatchObject({ bindings: 1 });
    expect(guest.detach(guest.device, of.pasid).code).toBe('OK');
    expect(guest.read(IOVA)).toBeUndefined();
    guest.ok((port, done) => port.destroySpace(PARENT, done));
    host.removeDevice(guest.device);
    expect(host.violations).toEqual([]);
    expect(leftovers(host)).toEqual({});
  });

  it('change for devices when the guest says so, not before', () => {
    const { host, guest } = setUp(of);
    guest.tables.map(BigInt(IOVA), 0x3000);
    guest.tables.map(BigInt(IOVA + 0x1000), 0x4000);
    guest.enter();
    guest.memory.store32(0x3000, 3);
    guest.memory.store32(0x4000, 4);
    guest.memory.store32(0x5000, 5);
    expect([guest.read(IOVA), guest.read(IOVA + 0x1000)]).toEqual([3, 4]);
    guest.tables.map(BigInt(IOVA), 0x5000);
    guest.tables.unmap(BigInt(IOVA + 0x1000));
    // The hardware's IOTLB has the old translations.
    expect([guest.read(IOVA), guest.read(IOVA + 0x1000)]).toEqual([3, 4]);
    expect(guest.forget(IOVA)).toBe('OK');
    expect([guest.read(IOVA), guest.read(IOVA + 0x1000)]).toEqual([5, 4]);
    expect(guest.forget()).toBe('OK');
    expect([guest.read(IOVA), guest.read(IOVA + 0x1000)]).toEqual([5, undefined]);
    expect(host.violations).toEqual([]);
  });

  it('reach nothing that the host has unmapped below them', () => {
    const { host, guest } = setUp(of);
    guest.tables.map(BigInt(IOVA), 0x3000);
    guest.enter();
    expect(guest.write(IOVA, [1])).toBe(4);
    expect(guest.unmap(PARENT, 0, GUEST_BYTES / 4096).code).toBe('OK');
    expect(guest.write(IOVA, [2])).toBe(0);
    expect(guest.word(0x3000)).toBe(1);
    expect(host.violations).toEqual([]);
    expect(host.leftovers()['pinnedPages']).toBe(0);
  });

  it('fault as the hardware recorded it', () => {
    const { host, guest } = setUp(of);
    guest.tables.map(BigInt(IOVA), 0x3000, false);
    guest.tables.map(BigInt(IOVA + 0x1000), GUEST_BYTES);
    guest.enter();
    guest.write(IOVA, [1]);
    guest.write(IOVA + 0x1000, [1]);
    guest.write(IOVA + 0x5000, [1]);
    host.run();
    expect(guest.faults.map(({ device, pasid }) => [device, pasid])).toEqual(
      Array(3).fill([guest.device.number, of.pasid]),
    );
    const records = guest.faults.map(({ record }) => record);
    if (of.kind === 'smmuv3') {
      const get = F_TRANSLATION.get;
      expect(records.map((words) => [get.EventNumber(words), get.S2(words), get.CLASS(words)])).toEqual([
        [EVENT.F_PERMISSION, 0, CLASS.IN],
        [EVENT.F_TRANSLATION, 1, CLASS.IN],
        [EVENT.F_TRANSLATION, 0, CLASS.IN],
      ]);
      expect(get.IPA(records[1])).toBe(GUEST_BYTES);
    } else {
      expect(records.map((words) => FRCD_REG.get.FR(words))).toEqual([FAULT.SGN_6, FAULT.SSS_2, FAULT.SFS_2]);
    }
  });

  it('are replaced by others, and by host tables', () => {
    const { host, guest } = setUp(of);
    guest.tables.map(BigInt(IOVA), 0x3000);
    guest.memory.store32(0x3000, 3);
    guest.memory.store32(0x4000, 4);
    guest.enter();
    expect(guest.read(IOVA)).toBe(3);
    const others = new GuestTables(guest.memory, guest.pages, of.kind === 'smmuv3' ? 'arm' : 'vtd');
    others.map(BigInt(IOVA), 0x4000);
    const cd = guest.pages.take();
    writeCd(guest.memory, cd, others.root, 78);
    const table: NestedTable =
      of.kind === 'smmuv3' ? { format: 'smmuv3', ste: guestSte(cd) } : vtdTable(others.root);
    expect(guest.nest(guest.device, PARENT, table, of.pasid).code).toBe('OK');
    expect(guest.read(IOVA)).toBe(4);
    expect(host.leftovers()).toMatchObject({ bindings: 1 });
    if (of.kind !== 'vtd2') {
      guest.space(2, guest.device);
      guest.map(2, 77, 3, 1);
      expect(guest.attach(guest.device, 2, of.pasid).code).toBe('OK');
      expect([guest.read(77 * 4096), guest.read(IOVA)]).toEqual([3, undefined]);
      expect(host.leftovers()).toMatchObject({ bindings: 0 });
    }
    host.removeGuest(guest.port);
    expect(leftovers(host)).toEqual({});
  });

  it('are refused when they cannot be, and nothing changes', () => {
    const { host, guest } = setUp(of);
    guest.tables.map(BigInt(IOVA), 0x3000);
    guest.enter();
    const before = leftovers(host);
    const bad: NestedTable[] =
      of.kind === 'smmuv3'
        ? [
            vtdTable(0x1000),
            // Stage 2 is the host's.
            { format: 'smmuv3', ste: Uint32Array.of((7 << 1) | 1, 0, 0, 0) },
            // Bits that no guest has a say in.
            { format: 'smmuv3', ste: Uint32Array.of((5 << 1) | 1, 0, 0, 1 << 16) },
            { format: 'smmuv3', ste: guestSte(guest.cd, 21) },
          ]
        : [
            { format: 'smmuv3', ste: guestSte(guest.cd) },
            vtdTable(0x1008),
            vtdTable(2 ** 48),
            { ...vtdTable(guest.tables.root), supervisor: true } as NestedTable,
          ];
    for (const table of bad) {
      expect(guest.nest(guest.device, PARENT, table, of.pasid).code).toBe('BAD_TABLE');
    }
    host.failures.arm('attach');
    expect(guest.nest(guest.device, PARENT, guest.table, of.pasid).code).toBe('FAILED');
    expect(leftovers(host)).toEqual(before);
    expect(guest.read(IOVA)).toBe(0);
  });

  it('are out of reach for another guest behind the same IOMMU', () => {
    const { host, guest } = setUp(of);
    const other = new NestedGuest(host, 'other', of, of.device === 'mdev' ? RID : RID + 1);
    for (const [index, who] of [guest, other].entries()) {
      who.tables.map(BigInt(IOVA), 0x3000);
      who.memory.store32(0x3000, 100 + index);
      who.enter();
    }
    expect([guest.read(IOVA), other.read(IOVA)]).toEqual([100, 101]);
    // One says that all is different: the other one does not notice.
    other.tables.map(BigInt(IOVA), 0x4000);
    guest.tables.map(BigInt(IOVA), 0x4000);
    expect(guest.forget()).toBe('OK');
    expect([guest.read(IOVA), other.read(IOVA)]).toEqual([0, 101]);
    other.write(IOVA + 0x9000, [1]);
    host.run();
    expect([guest.faults.length, other.faults.length]).toEqual([0, 1]);
    other.tables.map(BigInt(IOVA), 0x3000);
    host.removeGuest(guest.port);
    expect(other.read(IOVA)).toBe(101);
    host.removeGuest(other.port);
    expect(host.violations).toEqual([]);
    expect(leftovers(host)).toEqual({});
  });

  it('ask for pages where their guest hears it, and get an answer', () => {
    const { host, guest } = setUp(of);
    const request = { pasid: of.pasid, access: ACCESS.WRITE, lo: IOVA, hi: 0, group: 9, last: true };
    // Nobody's tables yet.
    guest.device.requestPage(request);
    expect(guest.device.responses).toEqual([{ pasid: of.pasid, group: 9, code: 1 }]);
    guest.enter();
    guest.device.requestPage(request);
    host.run();
    expect(guest.requests).toEqual([{ device: guest.device.number, ...request }]);
    guest.port.respond(guest.device.number, of.pasid, 9, 0);
    expect(guest.device.responses[1]).toEqual({ pasid: of.pasid, group: 9, code: 0 });
  });
});

describe('invalidations', () => {
  const [arm, vtd] = [CASES[0], CASES[2]];

  it('stop at the first that is not allowed, and say how many were done', () => {
    const { guest } = setUp(arm);
    guest.enter();
    const list = new HostInvalidations();
    const put = (words: ArrayLike<number>) => list.command(words[0], words[1], words[2], words[3]);
    put(pack(CMD_TLBI, { Opcode: CMD.TLBI_NH_ALL }));
    put(pack(CMD_CFGI_CD, { Opcode: CMD.CFGI_CD, StreamID: GUEST_SID }));
    put(pack(CMD_CFGI_STE, { Opcode: CMD.CFGI_STE, StreamID: GUEST_SID }));
    put(pack(CMD_TLBI, { Opcode: CMD.TLBI_NH_ALL }));
    expect(guest.invalidate(PARENT, list)).toMatchObject({ code: 'BAD_INVALIDATION', done: 2 });
    for (const words of [
      pack(CMD_CFGI_CD, { Opcode: CMD.CFGI_CD, StreamID: RID }),
      pack(CMD_TLBI, { Opcode: CMD.TLBI_S12_VMALL }),
      pack(CMD_TLBI, { Opcode: CMD.TLBI_NH_ALL, SSec: 1 }),
      pack(CMD_TLBI, { Opcode: CMD.TLBI_EL2_ALL }),
      [0xff, 0, 0, 0],
    ]) {
      list.clear();
      put(words);
      expect(guest.invalidate(PARENT, list)).toMatchObject({ code: 'BAD_INVALIDATION', done: 0 });
    }
  });

  it('never hit another VMID, whatever the guest writes there', () => {
    const { host, guest } = setUp(arm);
    const other = new NestedGuest(host, 'other', arm, RID + 1);
    for (const who of [guest, other]) {
      who.tables.map(BigInt(IOVA), 0x3000);
      who.enter();
      who.memory.store32(0x3000, 1);
      expect(who.read(IOVA)).toBe(1);
      who.tables.map(BigInt(IOVA), 0x4000);
    }
    const list = new HostInvalidations();
    for (let VMID = 0; VMID < 8; VMID++) {
      for (const Opcode of [CMD.TLBI_NH_ALL, CMD.TLBI_NSNH_ALL, CMD.TLBI_NH_ASID, CMD.TLBI_NH_VAA]) {
        const words = pack(CMD_TLBI, { Opcode, VMID, ASID: 77, Address: IOVA });
        list.command(words[0], words[1], words[2], words[3]);
      }
    }
    expect(guest.invalidate(PARENT, list)).toMatchObject({ code: 'OK', done: 32 });
    expect([guest.read(IOVA), other.read(IOVA)]).toEqual([0, 1]);
  });

  it('are all that drops what an SMMUv3 has found: a table that goes, or another one, drops nothing', () => {
    const { host, guest } = setUp(arm);
    guest.tables.map(BigInt(IOVA), 0x3000);
    guest.memory.store32(0x3000, 3);
    guest.memory.store32(0x4000, 4);
    guest.enter();
    expect(guest.read(IOVA)).toBe(3);
    const others = new GuestTables(guest.memory, guest.pages, 'arm');
    others.map(BigInt(IOVA), 0x4000);
    const cd = guest.pages.take();
    // The same ASID: its entries are taken for those of the new tables.
    writeCd(guest.memory, cd, others.root, 77);
    const table: NestedTable = { format: 'smmuv3', ste: guestSte(cd) };
    expect(guest.nest(guest.device, PARENT, table).code).toBe('OK');
    expect(guest.read(IOVA)).toBe(3);
    expect(guest.detach(guest.device, -1).code).toBe('OK');
    expect(guest.read(IOVA)).toBeUndefined();
    expect(guest.nest(guest.device, PARENT, table).code).toBe('OK');
    expect(guest.read(IOVA)).toBe(3);
    // While nothing is attached: taken all the same, and in force.
    expect(guest.detach(guest.device, -1).code).toBe('OK');
    expect(guest.forget()).toBe('OK');
    expect(guest.nest(guest.device, PARENT, table).code).toBe('OK');
    expect(guest.read(IOVA)).toBe(4);
    // What the guest owns ends with the VMID.
    host.removeGuest(guest.port);
    const next = new NestedGuest(host, 'next', arm, RID);
    next.enter();
    expect(next.read(IOVA)).toBeUndefined();
    expect(host.violations).toEqual([]);
  });

  it('are not needed on a VT-d for tables that are replaced: domain-ids are the host’s own', () => {
    const { guest } = setUp(vtd);
    guest.tables.map(BigInt(IOVA), 0x3000);
    guest.memory.store32(0x3000, 3);
    guest.memory.store32(0x4000, 4);
    guest.enter();
    expect(guest.read(IOVA)).toBe(3);
    const others = new GuestTables(guest.memory, guest.pages, 'vtd');
    others.map(BigInt(IOVA), 0x4000);
    expect(guest.nest(guest.device, PARENT, vtdTable(others.root), vtd.pasid).code).toBe('OK');
    expect(guest.read(IOVA)).toBe(4);
    expect(guest.detach(guest.device, vtd.pasid).code).toBe('OK');
    guest.enter();
    expect(guest.read(IOVA)).toBe(3);
  });

  it('name devices and PASIDs that are nested on that parent', () => {
    const { host, guest } = setUp(vtd);
    guest.enter();
    const list = (pasid: number, device = guest.device.number) =>
      new HostInvalidations().range(device, pasid, 0, 0, ALL_PAGES);
    expect(guest.invalidate(PARENT, list(33)).code).toBe('OK');
    expect(guest.invalidate(PARENT, list(34)).code).toBe('BAD_INVALIDATION');
    expect(guest.invalidate(PARENT, list(-1)).code).toBe('BAD_INVALIDATION');
    expect(guest.invalidate(PARENT, list(33, 1234)).code).toBe('NO_SUCH_DEVICE');
    expect(guest.invalidate(7, list(33)).code).toBe('NO_SUCH_SPACE');
    guest.space(2, guest.device);
    expect(guest.invalidate(2, list(33)).code).toBe('BAD_INVALIDATION');
    host.failures.arm('invalidate', 1);
    const two = list(33).range(guest.device.number, 33, 0, 0, 1);
    expect(guest.invalidate(PARENT, two)).toMatchObject({ code: 'FAILED', done: 1 });
  });

  it('drop a CD that the guest has rewritten, in one go with what it translated', () => {
    const { guest } = setUp(arm);
    guest.tables.map(BigInt(IOVA), 0x3000);
    guest.enter();
    guest.memory.store32(0x3000, 3);
    expect(guest.read(IOVA)).toBe(3);
    writeCd(guest.memory, guest.cd, 0, 79);
    expect(guest.read(IOVA)).toBe(3);
    const list = new HostInvalidations();
    const words = pack(CMD_CFGI_CD, { Opcode: CMD.CFGI_CD, StreamID: GUEST_SID });
    list.command(words[0], words[1], words[2], words[3]);
    expect(guest.invalidate(PARENT, list).code).toBe('OK');
    expect(guest.read(IOVA)).toBeUndefined();
  });
});

describe('a guest STE', () => {
  const [arm] = CASES;

  it('that bypasses leaves stage 2, and one that aborts nothing', () => {
    const { guest } = setUp(arm);
    guest.memory.store32(0x3000, 3);
    expect(
      guest.nest(guest.device, PARENT, { format: 'smmuv3', ste: Uint32Array.of((4 << 1) | 1, 0, 0, 0) }).code,
    ).toBe('OK');
    expect(guest.read(0x3000)).toBe(3);
    expect(guest.nest(guest.device, PARENT, { format: 'smmuv3', ste: Uint32Array.of(1, 0, 0, 0) }).code).toBe(
      'OK',
    );
    expect(guest.read(0x3000)).toBeUndefined();
    expect(guest.nest(guest.device, PARENT, { format: 'smmuv3', ste: new Uint32Array(4) }).code).toBe('OK');
    expect(guest.read(0x3000)).toBeUndefined();
  });

  it('hands over a whole CD table: SubstreamIDs, and requests without one by S1DSS', () => {
    const { guest } = setUp(arm);
    const cds = guest.pages.take();
    const address = (ssid: number) => cds + ssid * 64;
    const spaces = [1, 2, 3].map((ssid) => {
      const tables = new GuestTables(guest.memory, guest.pages, 'arm');
      tables.map(BigInt(IOVA), 0x3000 + ssid * 0x1000);
      guest.memory.store32(0x3000 + ssid * 0x1000, ssid);
      writeCd(guest.memory, address(ssid), tables.root, 100 + ssid);
      return ssid;
    });
    writeCd(guest.memory, address(0), guest.tables.root, 77);
    guest.tables.map(BigInt(IOVA), 0x3000);
    const read = (pasid: number) => dmaRead(guest.device, IOVA, 1, pasid)?.[0];
    const enter = (dss: number) =>
      guest.nest(guest.device, PARENT, { format: 'smmuv3', ste: guestSte(cds, 2, dss) }).code;
    expect(enter(2)).toBe('OK');
    expect(spaces.map(read)).toEqual([1, 2, 3]);
    expect([read(-1), read(4), read(0)]).toEqual([0, undefined, undefined]);
    expect(enter(0)).toBe('OK');
    expect([read(-1), read(1)]).toEqual([undefined, 1]);
    expect(enter(1)).toBe('OK');
    guest.memory.store32(IOVA, 55);
    expect([read(-1), read(1)]).toEqual([55, 1]);
  });
});
