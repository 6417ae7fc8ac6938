import { describe, expect, it } from 'vitest';
import {
  COMMAND_QUEUE,
  command,
  ENABLES,
  QUEUE_LOG2,
  READ,
  S1_LEAF,
  S2_LEAF,
  SID,
  sync,
  TestSmmu,
  tlbi,
} from '../../../test/support/smmu-unit.js';
import { ANY, NO_PASID } from '../../base/ids.js';
import {
  CMD,
  CMD_ATC_INV,
  CMD_CFGI_CD,
  CMD_CFGI_CD_ALL,
  CMD_CFGI_STE,
  CMD_CFGI_STE_RANGE,
  CMD_PREFETCH_ADDR,
  CMD_PREFETCH_CONFIG,
  CMD_PRI_RESP,
  CMD_RESUME,
  commandName,
} from '../../spec/smmuv3/commands.js';
import { CERROR, CMDQ_BASE, CMDQ_PROD, CR0, GERROR_IRQ_CFG0, IRQ_CTRL } from '../../spec/smmuv3/registers.js';
import { CD, STE_CONFIG } from '../../spec/smmuv3/structures.js';
import { DEVICE_TLB, WIRE } from '../iommu.js';

const IOVA = 0x12_3456_7000n;
const OUT = 0x40_0000n;
const OTHER = 0x50_0000n;
const VA = { High: 0x12, Address: 0x3456_7000 };
const CMDQ_ERR = 1;

/** One page of a stage 1 with VMID 7 and ASID 5, cached, that then changed in memory. */
function stale(leaf = S1_LEAF, options: Record<string, string> = {}) {
  const vm = new TestSmmu(options).start();
  const { root, cd } = vm.stage1(SID, {}, { S2VMID: 7 });
  const entry = vm.map(root, IOVA, OUT, leaf);
  expect(vm.translate(SID, IOVA, READ).out).toBe(OUT);
  vm.memory.poke(entry, OTHER | leaf);
  expect(vm.translate(SID, IOVA, READ).out).toBe(OUT);
  vm.invalidations.length = 0;
  return { vm, root, cd, entry, kept: () => vm.translate(SID, IOVA, READ).out === OUT };
}

describe('CMD_TLBI', () => {
  it.each([
    ['NH_ALL of the VMID', tlbi(CMD.TLBI_NH_ALL, { VMID: 7 }), true],
    ['NH_ALL of another', tlbi(CMD.TLBI_NH_ALL, { VMID: 8 }), false],
    ['NH_ASID', tlbi(CMD.TLBI_NH_ASID, { VMID: 7, ASID: 5 }), true],
    ['NH_ASID of another', tlbi(CMD.TLBI_NH_ASID, { VMID: 7, ASID: 6 }), false],
    ['NH_VA', tlbi(CMD.TLBI_NH_VA, { VMID: 7, ASID: 5, ...VA, Leaf: 1 }), true],
    [
      'NH_VA of another page',
      tlbi(CMD.TLBI_NH_VA, { VMID: 7, ASID: 5, High: 0x12, Address: 0x3456_8000 }),
      false,
    ],
    ['NH_VA of another ASID', tlbi(CMD.TLBI_NH_VA, { VMID: 7, ASID: 6, ...VA }), false],
    ['NH_VAA', tlbi(CMD.TLBI_NH_VAA, { VMID: 7, ASID: 6, ...VA }), true],
    ['S12_VMALL', tlbi(CMD.TLBI_S12_VMALL, { VMID: 7 }), true],
    ['S12_VMALL of another', tlbi(CMD.TLBI_S12_VMALL, { VMID: 9 }), false],
    ['S2_IPA: stage 1 stays', tlbi(CMD.TLBI_S2_IPA, { VMID: 7, ...VA }), false],
    ['NSNH_ALL', tlbi(CMD.TLBI_NSNH_ALL), true],
    [
      'a range that holds the page',
      tlbi(CMD.TLBI_NH_VA, { VMID: 7, ASID: 5, High: 0x12, Address: 0x3456_5000, TG: 1, NUM: 2, TTL: 3 }),
      true,
    ],
    [
      'a range that ends before the page',
      tlbi(CMD.TLBI_NH_VA, { VMID: 7, ASID: 5, High: 0x12, Address: 0x3456_5000, TG: 1, NUM: 1, TTL: 3 }),
      false,
    ],
    [
      'a scaled range across 4 GiB',
      tlbi(CMD.TLBI_NH_VA, { VMID: 7, ASID: 5, High: 0x11, Address: 0xf000_0000, TG: 1, NUM: 9, SCALE: 15 }),
      true,
    ],
    [
      'a range of everything there is',
      tlbi(CMD.TLBI_NH_VAA, { VMID: 7, High: 0, Address: 0x1000, TG: 3, NUM: 31, SCALE: 31 }),
      true,
    ],
  ])('%s', (_name, words, drops) => {
    const { vm, kept } = stale();
    vm.submit(words, sync());
    expect(vm.activeErrors).toBe(0);
    expect(vm.consumed).toBe(2);
    expect(kept()).toBe(!drops);
    expect(vm.invalidations.length).toBeGreaterThan(0);
  });

  it('tells the caches outside what to drop', () => {
    const { vm } = stale();
    vm.submit(
      tlbi(CMD.TLBI_NH_VA, { VMID: 7, ASID: 5, ...VA }),
      tlbi(CMD.TLBI_NH_ASID, { VMID: 7, ASID: 5 }),
    );
    const none = { pasid: ANY, rid: ANY, structures: false };
    expect(vm.invalidations).toEqual([
      { ...none, space: 7, sub: 5, lo: 0x3456_7000, hi: 0x12, log2Size: 12 },
      { ...none, space: 7, sub: 5, lo: 0, hi: 0, log2Size: 64 },
    ]);
    expect(vm.model.counters.invalidations).toBe(2);
  });

  it('drops entries of every ASID by address under any ASID, by ASID not', () => {
    const leaf = S1_LEAF & ~(1n << 11n);
    const first = stale(leaf);
    first.vm.submit(tlbi(CMD.TLBI_NH_ASID, { VMID: 7, ASID: 5 }));
    expect(first.kept()).toBe(true);
    first.vm.submit(tlbi(CMD.TLBI_NH_VA, { VMID: 7, ASID: 99, ...VA }));
    expect(first.kept()).toBe(false);
    expect(first.vm.invalidations.at(-1)).toMatchObject({ space: 7, sub: ANY, log2Size: 64 });
  });

  it('drops all of a 64 KiB page by any address in it', () => {
    const vm = new TestSmmu().start();
    const root = vm.page(16);
    const next = vm.page(16);
    vm.stage1(SID, { TG0: 1, T0SZ: 22, TTB0: root }, { S2VMID: 7 });
    vm.memory.poke(root, BigInt(next) | 3n);
    vm.memory.poke(next + 8, 0x40_0000n | S1_LEAF);
    // 42 bits of input: two levels of 13 bits each.
    expect(vm.translate(SID, 0x1_3000n, READ)).toMatchObject({ out: 0x40_3000n, log2: 16 });
    expect(vm.translate(SID, 0x1_7000n, READ).out).toBe(0x40_7000n);
    vm.memory.poke(next + 8, 0x50_0000n | S1_LEAF);
    expect(vm.translate(SID, 0x1_7000n, READ).out).toBe(0x40_7000n);
    vm.submit(tlbi(CMD.TLBI_NH_VA, { VMID: 7, ASID: 5, Address: 0x1_0000 }));
    expect(vm.translate(SID, 0x1_7000n, READ).out).toBe(0x50_7000n);
    expect(vm.translate(SID, 0x1_3000n, READ).out).toBe(0x50_3000n);
  });

  it('S2_IPA drops stage 2 and leaves what both stages made', () => {
    const vm = new TestSmmu().start();
    const root = vm.page(2);
    vm.ste(SID, { Config: STE_CONFIG.S2_TRANSLATE, ...vm.stage2Fields(root) });
    const entry = vm.map(root, IOVA, OUT, S2_LEAF, 1);
    expect(vm.translate(SID, IOVA, READ)).toMatchObject({ out: OUT, space: 7, sub: ANY });
    vm.memory.poke(entry, OTHER | S2_LEAF);
    vm.submit(tlbi(CMD.TLBI_NH_ALL, { VMID: 7 }));
    expect(vm.translate(SID, IOVA, READ).out).toBe(OUT);
    vm.submit(tlbi(CMD.TLBI_S2_IPA, { VMID: 7, ...VA }));
    expect(vm.translate(SID, IOVA, READ).out).toBe(OTHER);
  });
});

describe('CMD_CFGI', () => {
  /** A stream that changes from translating to bypass while it is cached. */
  const changed = (options: Record<string, string> = {}) => {
    const machine = stale(S1_LEAF, options);
    machine.vm.ste(SID, { Config: STE_CONFIG.BYPASS });
    return machine.vm;
  };
  const bypassed = (vm: TestSmmu): boolean => vm.translate(SID, IOVA, READ).out === IOVA;

  it.each([
    ['CFGI_STE', command(CMD_CFGI_STE, { Opcode: CMD.CFGI_STE, StreamID: SID, Leaf: 1 }), true],
    [
      'CFGI_STE_RANGE around it',
      command(CMD_CFGI_STE_RANGE, { Opcode: CMD.CFGI_STE_RANGE, StreamID: SID - 8, Range: 3 }),
      true,
    ],
    ['CFGI_STE of another', command(CMD_CFGI_STE, { Opcode: CMD.CFGI_STE, StreamID: SID + 1 }), false],
    [
      'CFGI_STE_RANGE',
      command(CMD_CFGI_STE_RANGE, { Opcode: CMD.CFGI_STE_RANGE, StreamID: SID + 3, Range: 1 }),
      true,
    ],
    [
      'CFGI_STE_RANGE beside it',
      command(CMD_CFGI_STE_RANGE, { Opcode: CMD.CFGI_STE_RANGE, StreamID: SID + 4, Range: 1 }),
      false,
    ],
    [
      'a large range',
      command(CMD_CFGI_STE_RANGE, { Opcode: CMD.CFGI_STE_RANGE, StreamID: 0xf000, Range: 15 }),
      true,
    ],
    ['CFGI_ALL', command(CMD_CFGI_STE_RANGE, { Opcode: CMD.CFGI_STE_RANGE, Range: 31 }), true],
    ['CFGI_CD', command(CMD_CFGI_CD, { Opcode: CMD.CFGI_CD, StreamID: SID }), false],
  ])('%s', (_name, words, drops) => {
    const vm = changed();
    expect(bypassed(vm)).toBe(false);
    vm.submit(words);
    expect(bypassed(vm)).toBe(drops);
  });

  it.each([
    ['CFGI_CD', command(CMD_CFGI_CD, { Opcode: CMD.CFGI_CD, StreamID: SID, Leaf: 1 }), true],
    [
      'CFGI_CD of another substream',
      command(CMD_CFGI_CD, { Opcode: CMD.CFGI_CD, StreamID: SID, SubstreamID: 1 }),
      false,
    ],
    ['CFGI_CD_ALL', command(CMD_CFGI_CD_ALL, { Opcode: CMD.CFGI_CD_ALL, StreamID: SID }), true],
    ['CFGI_CD_ALL of another', command(CMD_CFGI_CD_ALL, { Opcode: CMD.CFGI_CD_ALL, StreamID: 1 }), false],
    ['CFGI_STE', command(CMD_CFGI_STE, { Opcode: CMD.CFGI_STE, StreamID: SID }), true],
  ])('%s drops a context descriptor: %s', (_name, words, drops) => {
    const { vm, cd } = stale();
    vm.store(cd, new Uint32Array(CD.wordCount));
    vm.submit(words);
    expect(vm.fault(SID, IOVA, READ).name).toBe(drops ? 'C_BAD_CD' : 'none');
    expect(vm.invalidations[0].rid).toBe(words[1]);
  });

  it('a new ASID does not find translations of the old one', () => {
    const { vm, cd, root } = stale();
    vm.cd(cd, { TTB0: root, ASID: 6 });
    vm.submit(command(CMD_CFGI_CD, { Opcode: CMD.CFGI_CD, StreamID: SID, Leaf: 1 }));
    expect(vm.translate(SID, IOVA, READ)).toMatchObject({ out: OTHER, sub: 6 });
  });

  it('keeps nothing with cache-policy none', () => {
    const vm = new TestSmmu({ 'cache-policy': 'none' }).start();
    const { root, cd } = vm.stage1(SID);
    const entry = vm.map(root, IOVA, OUT, S1_LEAF);
    expect(vm.translate(SID, IOVA, READ).out).toBe(OUT);
    vm.memory.poke(entry, OTHER | S1_LEAF);
    expect(vm.translate(SID, IOVA, READ).out).toBe(OTHER);
    vm.store(cd, new Uint32Array(CD.wordCount));
    expect(vm.fault(SID, IOVA, READ).name).toBe('C_BAD_CD');
  });
});

describe('the queue', () => {
  it('accepts hints, wraps around and counts', () => {
    const vm = new TestSmmu().start();
    for (let round = 0; round < 40; round++) {
      vm.submit(
        command(CMD_PREFETCH_CONFIG, { Opcode: CMD.PREFETCH_CONFIG, StreamID: SID }),
        command(CMD_PREFETCH_ADDR, { Opcode: CMD.PREFETCH_ADDR, StreamID: SID, Address: 0x1000 }),
        sync(),
      );
    }
    expect(vm.consumed).toBe(120 % 2 ** (QUEUE_LOG2 + 1));
    expect(vm.model.counters.commands).toBe(120);
    expect(vm.activeErrors).toBe(0);
  });

  it('does nothing until it is enabled', () => {
    const vm = new TestSmmu().start(ENABLES.EVENTQEN);
    vm.submit(sync());
    expect(vm.consumed).toBe(0);
    const enabled = { kind: 'enable', what: 'command queue', on: true };
    expect(vm.events).not.toContainEqual(enabled);
    vm.write32(CR0.offset, ENABLES.CMDQEN);
    expect(vm.consumed).toBe(1);
    expect(vm.events.filter(({ kind }) => kind === 'enable')).toEqual([enabled]);
  });

  it('holds CMD_SYNC, and what follows, until the caches outside are done', () => {
    const { vm, kept } = stale();
    vm.acks = 1;
    vm.submit(tlbi(CMD.TLBI_NH_ASID, { VMID: 7, ASID: 5 }), sync(), tlbi(CMD.TLBI_NSNH_ALL), sync());
    expect(vm.consumed).toBe(1);
    expect(vm.invalidations).toHaveLength(1);
    // Translations are answered while it waits.
    expect(kept()).toBe(false);
    vm.acks = 0;
    vm.model.acknowledged();
    expect(vm.consumed).toBe(4);
    expect(vm.invalidations).toHaveLength(2);
    expect(vm.model.counters.commands).toBe(4);
  });

  it('signals CMD_SYNC by message, by store, by wire, or not at all', () => {
    const vm = new TestSmmu().start();
    vm.submit(sync({ CS: 1, MSIAddress: 0x808_0040, MSIData: 17 }));
    expect(vm.interrupts).toEqual([{ address: 0x808_0040, data: 17 }]);
    vm.submit(sync({ CS: 1, MSIAddress: COMMAND_QUEUE + 0x10, MSIData: 0 }));
    expect([vm.memory.load32(COMMAND_QUEUE + 0x10), vm.memory.lo]).toEqual([true, 0]);
    expect(vm.interrupts).toHaveLength(1);
    vm.submit(sync({ CS: 1 }));
    expect(vm.wires).toEqual([WIRE.CMD_SYNC]);
    vm.submit(sync({ CS: 2 }), sync({ CS: 0, MSIAddress: 0x808_0040 }));
    expect([vm.interrupts.length, vm.wires.length]).toEqual([1, 1]);
    expect(vm.consumed).toBe(5);
  });

  it.each([
    ['opcode 0', new Uint32Array(4)],
    ['an unknown opcode', command(CMD_CFGI_CD_ALL, { Opcode: 0x99 })],
    ['TLBI_EL2_ALL without HYP', tlbi(CMD.TLBI_EL2_ALL)],
    ['TLBI_EL2_VA without HYP', tlbi(CMD.TLBI_EL2_VA)],
    ['TLBI_EL3_ALL', tlbi(CMD.TLBI_EL3_ALL)],
    ['ATC_INV of more than everything', command(CMD_ATC_INV, { Opcode: CMD.ATC_INV, Size: 53 })],
    ['PRI_RESP with a reserved response', command(CMD_PRI_RESP, { Opcode: CMD.PRI_RESP, Resp: 3 })],
    ['a Secure command', command(CMD_CFGI_STE, { Opcode: CMD.CFGI_STE, SSec: 1 })],
    ['a reserved CS', sync({ CS: 3 })],
    ['a range without size or level', tlbi(CMD.TLBI_NH_VA, { TG: 1 })],
    ['a range of a level that the granule does not have', tlbi(CMD.TLBI_NH_VA, { TG: 2, TTL: 1 })],
  ])('stops at %s, and goes on after it was mended', (_name, words) => {
    const vm = new TestSmmu({ ats: 'on' }).start();
    vm.submit(tlbi(CMD.TLBI_NSNH_ALL), words, sync());
    expect([vm.consumed, vm.commandError, vm.activeErrors]).toEqual([1, CERROR.ILL, CMDQ_ERR]);
    expect(vm.events.at(-1)).toMatchObject({ kind: 'queueError', name: 'CERROR_ILL' });
    vm.submit(sync());
    expect(vm.consumed).toBe(1);
    vm.store(COMMAND_QUEUE + 16, sync());
    vm.acknowledgeErrors();
    expect([vm.consumed, vm.activeErrors]).toEqual([4, 0]);
  });

  it.each([
    ['ATC_INV', command(CMD_ATC_INV, { Opcode: CMD.ATC_INV })],
    ['PRI_RESP', command(CMD_PRI_RESP, { Opcode: CMD.PRI_RESP })],
    ['RESUME', command(CMD_RESUME, { Opcode: CMD.RESUME })],
    ['STALL_TERM', command(CMD_RESUME, { Opcode: CMD.STALL_TERM })],
  ])('refuses CMD_%s where the feature is not there', (_name, words) => {
    const vm = new TestSmmu({ stall: 'off' }).start();
    vm.submit(words);
    expect([vm.consumed, vm.commandError]).toEqual([0, CERROR.ILL]);
  });

  it('refuses commands of stages that are not there', () => {
    const first = new TestSmmu({ stages: '1' }).start();
    first.submit(tlbi(CMD.TLBI_S12_VMALL));
    expect(first.commandError).toBe(CERROR.ILL);
    const second = new TestSmmu({ stages: '2' }).start();
    second.submit(tlbi(CMD.TLBI_NH_ALL));
    expect(second.commandError).toBe(CERROR.ILL);
  });

  it('reports a queue that is not in memory, and toggles the error again', () => {
    const vm = new TestSmmu();
    vm.write64(CMDQ_BASE.offset, 0x10_0000_0004);
    vm.write64(GERROR_IRQ_CFG0.offset, 0x808_0040);
    vm.write32(GERROR_IRQ_CFG0.offset + 8, 3);
    vm.write32(IRQ_CTRL.offset, 1);
    vm.write32(CR0.offset, ENABLES.CMDQEN);
    vm.write32(CMDQ_PROD.offset, 1);
    expect([vm.commandError, vm.activeErrors]).toEqual([CERROR.ABT, CMDQ_ERR]);
    expect(vm.interrupts).toEqual([{ address: 0x808_0040, data: 3 }]);
    vm.acknowledgeErrors();
    expect([vm.commandError, vm.activeErrors]).toEqual([CERROR.ABT, CMDQ_ERR]);
    expect(vm.interrupts).toHaveLength(2);
    const errors = vm.events.flatMap((event) => (event.kind === 'queueError' ? [event.name] : []));
    expect(errors).toEqual(['CERROR_ABT', 'CERROR_ABT']);
  });

  it('does bounded work for indexes that are nonsense', () => {
    const vm = new TestSmmu().start(0);
    for (let index = 0; index < 16; index++) vm.store(COMMAND_QUEUE + index * 16, sync());
    vm.write32(CR0.offset, ENABLES.CMDQEN);
    vm.write32(CMDQ_PROD.offset, 0xfffff);
    expect(vm.consumed).toBe(31);
    expect(commandName(0x99)).toBe('opcode 0x99');
  });
});

describe('CMD_ATC_INV', () => {
  const atcInv = (fields: Record<string, number>): Uint32Array => {
    const { High = 0, ...rest } = fields;
    const words = command(CMD_ATC_INV, { Opcode: CMD.ATC_INV, StreamID: SID, ...rest });
    words[3] |= High;
    return words;
  };
  const done = (vm: TestSmmu, tag: number, result: number = DEVICE_TLB.DONE): void =>
    vm.model.devices?.invalidated(tag, result);

  it('says which addresses, of which stream and substream', () => {
    const vm = new TestSmmu({ ats: 'on' }).start();
    vm.submit(
      atcInv({ High: 0x12, Address: 0x3456_7000 }),
      atcInv({ High: 0x12, Address: 0x3456_7000, Size: 4, SSV: 1, SubstreamID: 0xabcd }),
      atcInv({ High: 0xffff_ffff, Address: 0xffff_f000, Size: 24, Global: 1 }),
      atcInv({ High: 0xffff_ffff, Address: 0xffff_f000, Size: 52, SSV: 1, SubstreamID: 1, Global: 1 }),
      atcInv({ StreamID: 0x1_0000 }),
    );
    const sent = { rid: SID, pasid: NO_PASID, global: false, lo: 0, hi: 0 };
    expect(vm.devices.deviceTlbs).toEqual([
      { ...sent, tag: 0, lo: 0x3456_7000, hi: 0x12, log2Size: 12 },
      { ...sent, tag: 1, pasid: 0xabcd, lo: 0x3456_0000, hi: 0x12, log2Size: 16 },
      { ...sent, tag: 2, hi: 0xffff_fff0, log2Size: 36 },
      { ...sent, tag: 3, pasid: 1, global: true, log2Size: 64 },
    ]);
    expect(vm.consumed).toBe(5);
  });

  it('holds CMD_SYNC, and what follows, until every device has answered', () => {
    const vm = new TestSmmu({ ats: 'on' }).start();
    vm.submit(atcInv({}), atcInv({ StreamID: SID + 1 }), sync(), tlbi(CMD.TLBI_NSNH_ALL));
    expect(vm.consumed).toBe(2);
    done(vm, 1);
    expect(vm.consumed).toBe(2);
    // A device that refuses has answered too.
    done(vm, 0, DEVICE_TLB.UNSUPPORTED);
    expect([vm.consumed, vm.activeErrors]).toEqual([4, 0]);
  });

  it('has the next CMD_SYNC fail once when a device does not answer', () => {
    const vm = new TestSmmu({ ats: 'on' }).start();
    vm.submit(atcInv({}), atcInv({}), sync({ CS: 1 }), sync());
    done(vm, 0, DEVICE_TLB.TIMEOUT);
    expect(vm.activeErrors).toBe(0);
    done(vm, 1);
    expect([vm.consumed, vm.commandError, vm.activeErrors]).toEqual([2, CERROR.ATC_INV_SYNC, CMDQ_ERR]);
    expect(vm.wires).toEqual([]);
    vm.acknowledgeErrors();
    expect([vm.consumed, vm.activeErrors]).toEqual([4, 0]);
    expect(vm.wires).toEqual([WIRE.CMD_SYNC]);
    expect(vm.model.counters.commands).toBe(5);
  });

  it('waits where too many are under way, and goes on when there is room', () => {
    const vm = new TestSmmu({ ats: 'on' }).start();
    vm.submit(atcInv({}));
    vm.devices.deviceTlbRoom = false;
    vm.submit(atcInv({ StreamID: SID + 1 }), sync());
    expect([vm.consumed, vm.devices.deviceTlbs.length]).toEqual([1, 1]);
    vm.devices.deviceTlbRoom = true;
    done(vm, 0);
    expect([vm.consumed, vm.devices.deviceTlbs.length]).toEqual([2, 2]);
    done(vm, 1);
    expect([vm.consumed, vm.model.counters.commands]).toEqual([3, 3]);
  });

  it('that waits counts once, also when the queue is switched off and on', () => {
    const vm = new TestSmmu({ ats: 'on' }).start();
    vm.devices.deviceTlbRoom = false;
    vm.submit(atcInv({}));
    vm.write32(CR0.offset, ENABLES.ALL & ~ENABLES.CMDQEN);
    vm.write32(CR0.offset, ENABLES.ALL);
    expect([vm.consumed, vm.model.counters.commands]).toEqual([0, 0]);
    vm.devices.deviceTlbRoom = true;
    vm.submit(sync());
    expect([vm.consumed, vm.model.counters.commands]).toEqual([1, 1]);
  });

  it('is ignored while the SMMU is off, has no PASID without substreams, and is forgotten by a reset', () => {
    const vm = new TestSmmu({ ats: 'on', 'ssid-bits': '0' }).start();
    vm.submit(atcInv({ SSV: 1, SubstreamID: 3, Global: 1 }));
    expect(vm.devices.deviceTlbs).toMatchObject([{ pasid: NO_PASID, global: false }]);
    vm.model.reset();
    vm.start(ENABLES.CMDQEN);
    vm.submit(atcInv({}), sync());
    expect([vm.consumed, vm.devices.deviceTlbs.length]).toEqual([3, 1]);
  });
});
