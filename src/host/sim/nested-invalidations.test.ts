import { describe, expect, it } from 'vitest';
import { GuestTables, guestSte, writeCd } from '../../../test/support/guest-tables.js';
import { dmaRead } from '../../../test/support/host-rig.js';
import {
  CASES,
  GUEST_SID,
  IOVA,
  NestedGuest,
  PARENT,
  RID,
  setUp,
  vtdTable,
} from '../../../test/support/nested-host.js';
import { pack } from '../../spec/define.js';
import { CMD, CMD_CFGI_CD, CMD_CFGI_STE, CMD_TLBI } from '../../spec/smmuv3/commands.js';
import { ALL_PAGES, HostInvalidations, type NestedTable } from '../port.js';

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
