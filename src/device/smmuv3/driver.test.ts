import { describe, expect, it } from 'vitest';
import {
  COMMAND_QUEUE,
  command,
  EVENT_QUEUE,
  PAGE,
  QUEUE_LOG2,
  READ,
  S1_LEAF,
  SID,
  sync,
  TestSmmu,
  tlbi,
  WRITE,
} from '../../../test/support/smmu-unit.js';
import { pack } from '../../spec/define.js';
import { CMD, CMD_CFGI_CD, CMD_CFGI_STE, CMD_CFGI_STE_RANGE } from '../../spec/smmuv3/commands.js';
import {
  CMDQ_BASE,
  CMDQ_CONS,
  CMDQ_PROD,
  CR0,
  CR0ACK,
  CR1,
  CR2,
  EVENTQ_BASE,
  EVENTQ_CONS,
  EVENTQ_PROD,
  GBPA,
  IRQ_CTRL,
  IRQ_CTRLACK,
  STRTAB_BASE,
  STRTAB_BASE_CFG,
} from '../../spec/smmuv3/registers.js';
import { L1STD, STE, STE_CONFIG } from '../../spec/smmuv3/structures.js';
import { WIRE } from '../iommu.js';

const SPLIT = 8;
const IOVA = 0xffff_e000n;

/**
 * What an operating system's driver does with an SMMUv3 that it finds: 2-level stream table, polled
 * syncs.
 */
function bringUp() {
  const vm = new TestSmmu();
  const table = vm.page();
  vm.write32(GBPA.offset, (vm.read(GBPA.offset) | (1 << 20) | (1 << 31)) >>> 0);
  expect(vm.read(GBPA.offset) >>> 31).toBe(0);
  vm.write32(CR0.offset, 0);
  vm.write32(CR1.offset, 0xd75);
  vm.write32(CR2.offset, 0x6);
  writeBase(vm, STRTAB_BASE.offset, table);
  vm.write32(STRTAB_BASE_CFG.offset, 16 | (SPLIT << 6) | (1 << 16));
  writeBase(vm, CMDQ_BASE.offset, COMMAND_QUEUE + QUEUE_LOG2);
  vm.write32(CMDQ_PROD.offset, 0);
  vm.write32(CMDQ_CONS.offset, 0);
  vm.write32(CR0.offset, 8);
  expect(vm.read(CR0ACK.offset)).toBe(8);
  vm.submit(
    command(CMD_CFGI_STE_RANGE, { Opcode: CMD.CFGI_STE_RANGE, Range: 31 }),
    polled(vm, 1),
    tlbi(CMD.TLBI_NSNH_ALL),
    polled(vm, 3),
  );
  expectPolled(vm, 1);
  expectPolled(vm, 3);
  writeBase(vm, EVENTQ_BASE.offset, EVENT_QUEUE + QUEUE_LOG2);
  vm.write32(EVENTQ_PROD.offset, 0);
  vm.write32(EVENTQ_CONS.offset, 0);
  vm.write32(CR0.offset, 12);
  vm.write32(IRQ_CTRL.offset, 0);
  vm.write32(IRQ_CTRL.offset, 5);
  expect(vm.read(IRQ_CTRLACK.offset)).toBe(5);
  vm.write32(CR0.offset, 13);
  expect(vm.read(CR0ACK.offset)).toBe(13);
  return { vm, table };
}

/** A base register with its allocation hint (bit 62), as one store. */
function writeBase(vm: TestSmmu, offset: number, low: number): void {
  vm.model.writeRegister(offset, 8, low, 1 << 30);
}

/** A CMD_SYNC that clears the first word of its own entry when it is done. */
function polled(vm: TestSmmu, index: number): Uint32Array {
  expect(vm.activeErrors).toBe(0);
  return sync({ CS: 1, MSIAddress: COMMAND_QUEUE + index * 16, MSIData: 0, MSH: 3, MSIAttr: 15 });
}

function expectPolled(vm: TestSmmu, index: number): void {
  expect(vm.memory.load32(COMMAND_QUEUE + index * 16) && vm.memory.lo).toBe(0);
}

describe('a driver', () => {
  it('brings the SMMU up, attaches a device, maps, unmaps, sees a fault', () => {
    const { vm, table } = bringUp();
    expect(vm.consumed).toBe(4);
    // Attach: one second-level table for the bus, STE written with V clear first.
    const leaves = vm.page(4);
    vm.store(table, pack(L1STD, { Span: SPLIT + 1, L2Ptr: leaves }));
    const root = vm.page();
    const cd = vm.page();
    expect(vm.fault(SID, IOVA, READ).name).toBe('C_BAD_STE');
    vm.cd(cd, { TTB0: root, ASID: 1, IR0: 1, OR0: 1, SH0: 3, ASET: 1 });
    const ste = { V: 1, Config: STE_CONFIG.S1_TRANSLATE, S1ContextPtr: cd, S1CIR: 1, S1COR: 1, S1CSH: 3 };
    vm.store(leaves + SID * 64, pack(STE, ste));
    vm.submit(
      command(CMD_CFGI_CD, { Opcode: CMD.CFGI_CD, StreamID: SID, Leaf: 1 }),
      command(CMD_CFGI_STE, { Opcode: CMD.CFGI_STE, StreamID: SID, Leaf: 1 }),
      polled(vm, 6),
    );
    expectPolled(vm, 6);
    const entry = vm.map(root, IOVA, 0x40_0000n, S1_LEAF);
    expect(vm.translate(SID, IOVA + 8n, WRITE)).toMatchObject({ ok: true, out: 0x40_0008n });
    vm.memory.poke(entry, 0n);
    vm.submit(
      tlbi(CMD.TLBI_NH_VA, { ASID: 1, Leaf: 1, Address: Number(IOVA), TG: 1, TTL: 3 }),
      polled(vm, 8),
    );
    expectPolled(vm, 8);
    expect(vm.fault(SID, IOVA + 8n, WRITE)).toEqual({
      name: 'F_TRANSLATION',
      StreamID: SID,
      CLASS: 2,
      InputAddr: IOVA + 8n,
    });
    // Once for each event that found the queue empty.
    expect(vm.wires).toEqual([WIRE.EVENTQ, WIRE.EVENTQ]);
    expect(vm.activeErrors).toBe(0);
  });

  it('finds a forgotten invalidation', () => {
    const { vm, table } = bringUp();
    const leaves = vm.page(4);
    vm.store(table, pack(L1STD, { Span: SPLIT + 1, L2Ptr: leaves }));
    const root = vm.page();
    const cd = vm.page();
    vm.cd(cd, { TTB0: root, ASID: 1 });
    vm.store(leaves + SID * 64, pack(STE, { V: 1, Config: STE_CONFIG.S1_TRANSLATE, S1ContextPtr: cd }));
    const entry = vm.map(root, IOVA, 0x40_0000n, S1_LEAF);
    vm.translate(SID, IOVA, READ);
    vm.memory.poke(entry, 0n);
    expect(vm.translate(SID, IOVA, READ).out).toBe(0x40_0000n);
  });
});

/** Small numbers that look random, the same every time. */
function generator(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    return Math.floor(((state >>> 0) / 2 ** 32) * below);
  };
}

describe('invalidations', () => {
  it.each([1, 2])(
    'leave nothing stale that they name, and answers as fresh walks give them (seed %i)',
    (seed) => {
      const random = generator(seed);
      const vm = new TestSmmu().start();
      const fresh = new TestSmmu({ 'cache-policy': 'none' }).start();
      const { root } = vm.stage1(SID);
      fresh.stage1(SID);
      const entries: number[] = [];
      const address = (page: number): bigint => 0xffff_0000n + BigInt(page) * 0x1000n;
      for (let page = 0; page < 256; page++) {
        const leaf = (BigInt(page + 1) * 0x1000n) | S1_LEAF;
        entries.push(vm.map(root, address(page), leaf & ~0xfffn, S1_LEAF));
        fresh.map(root, address(page), leaf & ~0xfffn, S1_LEAF);
      }
      for (let round = 0; round < 30; round++) {
        for (let look = 0; look < 40; look++) vm.translate(SID, address(random(256)), READ);
        const first = random(256);
        const number = random(32);
        const scale = random(4);
        const count = Math.min(256 - first, (number + 1) * 2 ** scale);
        for (let page = first; page < first + count; page++) {
          const value = random(4) === 0 ? 0n : (BigInt(random(512) + 1) << 12n) | S1_LEAF;
          vm.memory.poke(entries[page], value);
          fresh.memory.poke(entries[page], value);
        }
        const start = address(first);
        vm.submit(
          tlbi(CMD.TLBI_NH_VA, {
            ASID: 5,
            TG: 1,
            TTL: 3,
            NUM: number,
            SCALE: scale,
            Address: Number(start & 0xffff_f000n),
            High: Number(start >> 32n),
          }),
          sync(),
        );
        for (let page = 0; page < 256; page++) {
          const { ok, out } = vm.translate(SID, address(page), READ);
          const expected = fresh.translate(SID, address(page), READ);
          expect({ round, page, ok, out }).toEqual({ round, page, ok: expected.ok, out: expected.out });
        }
        vm.recorded();
        fresh.recorded();
      }
      expect(vm.model.counters.iotlbHits).toBeGreaterThan(2000);
      expect(PAGE).toBe(3n);
    },
  );
});
