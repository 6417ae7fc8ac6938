import { describe, expect, it } from 'vitest';
import {
  contextEntry,
  descriptor,
  QUEUE,
  RAM_BYTES,
  READ,
  TestMachine,
} from '../../../test/support/vtd-unit.js';
import {
  CC_INV_DSC,
  DEV_TLB_INV_DSC,
  IEC_INV_DSC,
  INV_WAIT_DSC,
  IOTLB_INV_DSC,
  P_IOTLB_INV_DSC,
  PC_INV_DSC,
} from '../../spec/vtd/descriptors.js';
import {
  ECAP_REG,
  FSTS_REG,
  ICS_REG,
  IECTL_REG,
  IQA_REG,
  IQEI,
  IQERCD_REG,
  IQH_REG,
  IQT_REG,
} from '../../spec/vtd/registers.js';

const RID = 0x18;
const STATUS = 0x9000;
const IQE = 1 << 4;
const global = descriptor(IOTLB_INV_DSC, { TypeLow: 2, G: 1 });
const wait = (data: number, extra: Record<string, number> = {}): Uint32Array =>
  descriptor(INV_WAIT_DSC, { TypeLow: 5, SW: 1, StatusData: data, StatusAddress: STATUS, ...extra });

/** Legacy unit with the queue on, one mapped and cached page that then changed in memory. */
function legacy(wide = false, options: Record<string, string> = {}) {
  const vm = new TestMachine(options);
  const root = vm.page();
  vm.context(RID, ...contextEntry(root, 5));
  const leaf = vm.mapSecond(root, 4, 0x1000n, 0x40_0000n);
  vm.setRoot(0);
  vm.enable();
  vm.enableQueue(wide);
  vm.translate(RID, 0x1000n, READ);
  vm.entry(leaf, 0x50_0003n);
  vm.invalidations.length = 0;
  return { vm, root, leaf };
}

const status = (vm: TestMachine): number => (vm.memory.load32(STATUS) ? vm.memory.lo : -1);
const stale = (vm: TestMachine): boolean => vm.translate(RID, 0x1000n, READ).out === 0x40_0000n;
const errorInfo = (vm: TestMachine): number => IQERCD_REG.get.IQEI(vm.registers, IQERCD_REG.offset >> 2);

describe('invalidation queue', () => {
  it.each([false, true])('completes a wait with a status write (256-bit: %s)', (wide) => {
    const { vm } = legacy(wide);
    vm.submit(global, wait(77));
    expect(status(vm)).toBe(77);
    expect(vm.read(IQH_REG.offset)).toBe(wide ? 0x40 : 0x20);
    expect(stale(vm)).toBe(false);
    expect(vm.model.counters.commands).toBe(2);
  });

  it('wraps around at its size', () => {
    const { vm } = legacy();
    for (let round = 0; round < 300; round++) vm.submit(global, wait(round));
    expect(status(vm)).toBe(299);
    expect(vm.read(IQH_REG.offset)).toBe((600 * 16) % 4096);
    expect(vm.read(FSTS_REG.offset)).toBe(0);
  });

  it('does nothing until it is enabled; disabling resets the head', () => {
    const { vm } = legacy();
    vm.submit(wait(1));
    vm.disableQueue();
    expect(vm.read(IQH_REG.offset)).toBe(0);
    vm.write64(IQT_REG.offset, 0x10);
    vm.memory.store32(STATUS, 0);
    expect(status(vm)).toBe(0);
  });

  it('holds the wait, and what follows it, until the acknowledgements are in', () => {
    const { vm } = legacy();
    vm.acks = 1;
    vm.submit(global, wait(5), descriptor(CC_INV_DSC, { TypeLow: 1, G: 1 }), wait(6, { FN: 1 }));
    expect(status(vm)).toBe(0);
    // Taken, but not complete; nothing behind it is.
    expect(vm.read(IQH_REG.offset)).toBe(0x20);
    expect(vm.invalidations).toHaveLength(1);
    vm.acks = 0;
    vm.model.acknowledged();
    expect(vm.invalidations).toHaveLength(2);
    expect(status(vm)).toBe(6);
    expect(vm.read(IQH_REG.offset)).toBe(0x40);
  });

  it('answers translations while a wait is pending', () => {
    const { vm } = legacy();
    vm.acks = 1;
    vm.submit(global, wait(5));
    expect(vm.translate(RID, 0x1000n, READ).out).toBe(0x50_0000n);
  });

  it('masks the status address to the host address width', () => {
    const { vm } = legacy();
    const words = wait(9);
    words[3] |= 0xffff0000;
    vm.submit(words);
    expect(status(vm)).toBe(9);
  });

  it('survives a status address that is not memory', () => {
    const { vm } = legacy();
    vm.submit(wait(9, { StatusAddress: RAM_BYTES }), wait(10));
    expect(status(vm)).toBe(10);
  });
});

describe('completion interrupt', () => {
  it('sets IWC and sends the message when it is not masked', () => {
    const { vm } = legacy();
    vm.write32(0xa4, 0x41);
    vm.write32(0xa8, 0xfee0_1000);
    vm.write32(0xac, 3);
    vm.write32(IECTL_REG.offset, 0);
    vm.submit(wait(1, { IF: 1 }));
    expect(status(vm)).toBe(1);
    expect(vm.read(ICS_REG.offset)).toBe(1);
    expect(vm.interrupts).toEqual([{ lo: 0xfee0_1000, hi: 3, data: 0x41 }]);
    vm.submit(wait(2, { IF: 1 }));
    expect(vm.interrupts).toHaveLength(1);
    vm.write32(ICS_REG.offset, 1);
    expect(vm.read(ICS_REG.offset)).toBe(0);
    vm.submit(wait(3, { IF: 1 }));
    expect(vm.interrupts).toHaveLength(2);
  });

  it('is held pending by the mask, and dropped when software serviced it first', () => {
    const { vm } = legacy();
    expect(vm.read(IECTL_REG.offset)).toBe(0x8000_0000);
    vm.submit(wait(1, { IF: 1 }));
    expect(vm.read(IECTL_REG.offset)).toBe(0xc000_0000);
    vm.write32(IECTL_REG.offset, 0);
    expect(vm.interrupts).toHaveLength(1);
    expect(vm.read(IECTL_REG.offset)).toBe(0);
    vm.write32(IECTL_REG.offset, 0x8000_0000);
    vm.write32(ICS_REG.offset, 1);
    vm.submit(wait(2, { IF: 1 }));
    vm.write32(ICS_REG.offset, 1);
    expect(vm.read(IECTL_REG.offset)).toBe(0x8000_0000);
    vm.write32(IECTL_REG.offset, 0);
    expect(vm.interrupts).toHaveLength(1);
  });

  it('takes an 8-byte write to IECTL and IEDATA as two registers', () => {
    const { vm } = legacy();
    vm.model.writeRegister(IECTL_REG.offset, 8, 0, 0x55);
    expect([vm.read(IECTL_REG.offset), vm.read(0xa4)]).toEqual([0, 0x55]);
  });
});

describe('queue errors', () => {
  const page = { TypeLow: 2, G: 3, DID: 5 };
  const cases: [string, Uint32Array, number, boolean?][] = [
    ['type 0', new Uint32Array(8), IQEI.INVALID_TYPE],
    ['type 0x3f', descriptor(CC_INV_DSC, { TypeLow: 0xf, TypeHigh: 3 }), IQEI.INVALID_TYPE],
    ['type in bits 11:9', descriptor(CC_INV_DSC, { TypeLow: 1, TypeHigh: 1, G: 1 }), IQEI.INVALID_TYPE],
    ['Device-TLB without DT', descriptor(DEV_TLB_INV_DSC, { TypeLow: 3 }), IQEI.INVALID_TYPE],
    ['PASID-cache in legacy mode', descriptor(PC_INV_DSC, { TypeLow: 7, G: 3 }), IQEI.INVALID_TYPE, true],
    ['P_IOTLB in legacy mode', descriptor(P_IOTLB_INV_DSC, { TypeLow: 6, G: 2 }), IQEI.INVALID_TYPE, true],
    ['reserved granularity of cc', descriptor(CC_INV_DSC, { TypeLow: 1 }), IQEI.RESERVED_FIELD],
    ['reserved granularity of iotlb', descriptor(IOTLB_INV_DSC, { TypeLow: 2 }), IQEI.RESERVED_FIELD],
    ['mask above MAMV', descriptor(IOTLB_INV_DSC, { ...page, AM: 19 }), IQEI.RESERVED_FIELD],
    ['PD without PDS', wait(1, { PD: 1 }), IQEI.RESERVED_FIELD],
    ['reserved bit of cc', descriptor(CC_INV_DSC, { TypeLow: 1, G: 1 }).fill(1, 2, 3), IQEI.RESERVED_FIELD],
    [
      'upper half not zero',
      descriptor(CC_INV_DSC, { TypeLow: 1, G: 1 }).fill(1, 7),
      IQEI.RESERVED_FIELD,
      true,
    ],
  ];
  it.each(cases)('%s', (_name, words, info, wide = false) => {
    const { vm } = legacy(wide);
    vm.submit(global, words, wait(3));
    expect(vm.read(FSTS_REG.offset)).toBe(IQE);
    expect(errorInfo(vm)).toBe(info);
    expect(vm.read(IQH_REG.offset)).toBe(wide ? 0x20 : 0x10);
    expect(status(vm)).toBe(0);
    expect(vm.events.at(-1)).toMatchObject({ kind: 'queueError' });
  });

  it('stops until software repairs the descriptor and clears IQE', () => {
    const { vm } = legacy();
    vm.submit(new Uint32Array(4), wait(3));
    vm.write64(IQT_REG.offset, 0x20);
    expect(vm.read(IQH_REG.offset)).toBe(0);
    vm.store(QUEUE, global.subarray(0, 4));
    vm.write32(FSTS_REG.offset, IQE);
    expect(vm.read(FSTS_REG.offset)).toBe(0);
    expect(status(vm)).toBe(3);
  });

  it('raises the fault event', () => {
    const { vm } = legacy();
    vm.write32(0x38, 0);
    vm.write32(0x3c, 0x33);
    vm.write32(0x40, 0xfee0_0000);
    vm.submit(new Uint32Array(4));
    expect(vm.interrupts).toEqual([{ lo: 0xfee0_0000, hi: 0, data: 0x33 }]);
  });

  it('tail beyond the queue, tail not aligned, queue outside of memory', () => {
    const { vm } = legacy();
    vm.write64(IQT_REG.offset, 0x1000);
    expect(errorInfo(vm)).toBe(IQEI.INVALID_TAIL);
    const wide = legacy(true).vm;
    wide.write64(IQT_REG.offset, 0x30);
    expect(errorInfo(wide)).toBe(IQEI.TAIL_ALIGNMENT);
    const lost = legacy().vm;
    lost.disableQueue();
    lost.write64(IQA_REG.offset, RAM_BYTES);
    lost.enableQueue(false, 0, RAM_BYTES);
    lost.write64(IQT_REG.offset, 0x10);
    expect(errorInfo(lost)).toBe(IQEI.FETCH);
  });

  it('descriptor width must fit the mode', () => {
    const narrow = new TestMachine();
    narrow.setRoot(1);
    narrow.enableQueue(false);
    narrow.submit(wait(1));
    expect(errorInfo(narrow)).toBe(IQEI.INVALID_WIDTH);
    const old = new TestMachine({ 'scalable-mode': 'off' });
    old.enableQueue(true);
    old.submit(wait(1));
    expect(errorInfo(old)).toBe(IQEI.INVALID_WIDTH);
    const odd = new TestMachine();
    odd.setRoot(2);
    odd.enableQueue(true);
    odd.submit(wait(1));
    expect(errorInfo(odd)).toBe(IQEI.INVALID_TTM);
  });

  it('a width that changes under the queue neither hangs nor throws', () => {
    const { vm } = legacy();
    vm.submit(global);
    vm.write64(IQA_REG.offset, QUEUE + 2 ** 11);
    vm.write64(IQT_REG.offset, 0xfe0);
    vm.write64(IQT_REG.offset, 0x40);
    expect(vm.read(IQH_REG.offset)).toBe(0x20);
    expect(errorInfo(vm)).toBe(IQEI.INVALID_TYPE);
  });
});

describe('descriptors', () => {
  it.each([
    ['global', { G: 0 }],
    ['of an index', { G: 1, IM: 2, IIDX: 5 }],
  ])('interrupt entry cache, %s: an invalid type, as interrupt remapping is not advertised', (_, fields) => {
    const { vm } = legacy();
    expect(vm.read(ECAP_REG.offset) & (1 << 3)).toBe(0);
    vm.submit(descriptor(IEC_INV_DSC, { TypeLow: 4, ...fields }), wait(8));
    expect(errorInfo(vm)).toBe(IQEI.INVALID_TYPE);
    expect(vm.read(IQH_REG.offset)).toBe(0);
    expect(status(vm)).toBe(0);
    expect(vm.invalidations).toEqual([]);
  });

  it.each([
    ['global', { G: 1 }, false],
    ['domain', { G: 2, DID: 5 }, false],
    ['another domain', { G: 2, DID: 6 }, true],
    ['page', { G: 3, DID: 5, ADDR: 0x1000 }, false],
    ['page in a block', { G: 3, DID: 5, ADDR: 0, AM: 1 }, false],
    ['page in a large block', { G: 3, DID: 5, ADDR: 0x3fff_f000, AM: 18, IH: 1 }, false],
    ['another page', { G: 3, DID: 5, ADDR: 0x2000 }, true],
    ['another block', { G: 3, DID: 5, ADDR: 0x4000, AM: 2 }, true],
    ['another large block', { G: 3, DID: 5, ADDR: 0x4000_0000, AM: 18 }, true],
  ])('iotlb_inv_dsc: %s', (_name, fields, remains) => {
    const { vm } = legacy();
    vm.submit(descriptor(IOTLB_INV_DSC, { TypeLow: 2, ...fields }), wait(1));
    expect(status(vm)).toBe(1);
    expect(stale(vm)).toBe(remains);
    expect(vm.invalidations).toHaveLength(1);
  });

  it('tells the outside the block that was named', () => {
    const { vm } = legacy();
    vm.submit(descriptor(IOTLB_INV_DSC, { TypeLow: 2, G: 3, DID: 5, ADDR: 0x12_3456_7000, AM: 9 }));
    const scope = { space: 5, sub: 0xffffffff, rid: 0xffffffff, lo: 0x3440_0000, hi: 0x12, log2Size: 21 };
    expect(vm.invalidations).toMatchObject([scope]);
  });
});

describe('scalable descriptors', () => {
  const PWSNP = 1n << 23n;
  /**
   * First-stage domain 1 on PASID 8, second-stage domain 6 on PASID 9, pass-through domain 1 on
   * PASID 10.
   */
  function scalable() {
    const vm = new TestMachine();
    const { directory } = vm.scalableContext(RID, { paside: true });
    const first = vm.page();
    const second = vm.page();
    const leaf1 = vm.mapFirst(first, 4, 0x1000n, 0x40_0000n);
    const leaf2 = vm.mapSecond(second, 4, 0x1000n, 0x40_0000n);
    vm.pasidEntry(directory, 8, 1n | (1n << 6n), 1n | PWSNP, BigInt(first));
    vm.pasidEntry(directory, 9, 1n | (2n << 6n) | (2n << 2n) | BigInt(second), 6n | PWSNP);
    vm.setRoot(1);
    vm.enable();
    vm.enableQueue(true);
    for (const pasid of [8, 9]) expect(vm.translate(RID, 0x1000n, READ, pasid).ok).toBe(true);
    vm.entry(leaf1, 0x50_0027n);
    vm.entry(leaf2, 0x50_0003n);
    vm.invalidations.length = 0;
    return { vm, directory };
  }
  const fresh = (vm: TestMachine, pasid: number): boolean =>
    vm.translate(RID, 0x1000n, READ, pasid).out === 0x50_0000n;

  it.each([
    ['PASID-selective, first stage', { DID: 1, PASID: 8, G: 2 }, [true, false]],
    ['PASID-selective, second stage', { DID: 6, PASID: 9, G: 2 }, [false, true]],
    ['PASID-selective, wrong domain', { DID: 6, PASID: 8, G: 2 }, [false, false]],
    ['page-selective, first stage', { DID: 1, PASID: 8, G: 3, ADDR: 0x1000 }, [true, false]],
    [
      'page-selective does not reach second-stage entries',
      { DID: 6, PASID: 9, G: 3, ADDR: 0x1000 },
      [false, false],
    ],
    ['page-selective, another page', { DID: 1, PASID: 8, G: 3, ADDR: 0x2000 }, [false, false]],
    ['page-selective, any mask', { DID: 1, PASID: 8, G: 3, ADDR: 0x2000, AM: 63 }, [true, false]],
  ])('p_iotlb_inv_dsc: %s', (_name, fields, [firstFresh, secondFresh]) => {
    const { vm } = scalable();
    vm.submit(descriptor(P_IOTLB_INV_DSC, { TypeLow: 6, ...fields }), wait(1));
    expect(status(vm)).toBe(1);
    expect([fresh(vm, 8), fresh(vm, 9)]).toEqual([firstFresh, secondFresh]);
    expect(vm.invalidations).toMatchObject([{ space: fields.DID, sub: fields.PASID }]);
  });

  it('a page-selective iotlb_inv_dsc drops all first-stage entries of its domain, wherever they are', () => {
    const { vm } = scalable();
    vm.submit(descriptor(IOTLB_INV_DSC, { TypeLow: 2, G: 3, DID: 1, ADDR: 0x7000_0000 }), wait(1));
    expect(fresh(vm, 8)).toBe(true);
    expect(vm.invalidations).toMatchObject([{ space: 1, sub: 0xffffffff, log2Size: 64 }]);
  });

  it.each([
    ['global', { G: 3 }, true],
    ['domain', { G: 0, DID: 6 }, true],
    ['PASID', { G: 1, DID: 6, PASID: 9 }, true],
    ['another domain', { G: 0, DID: 1 }, false],
    ['another PASID', { G: 1, DID: 6, PASID: 8 }, false],
  ])('pc_inv_dsc: %s', (_name, fields, dropped) => {
    const { vm, directory } = scalable();
    vm.pasidEntry(directory, 9, 1n | (4n << 6n), 6n);
    vm.submit(global, descriptor(PC_INV_DSC, { TypeLow: 7, ...fields }), wait(1));
    expect(status(vm)).toBe(1);
    const answer = vm.translate(RID, 0x1000n, READ, 9);
    expect(answer.out).toBe(dropped ? 0x1000n : 0x50_0000n);
  });

  it('context-cache: domain-selective acts as global, device-selective ignores the domain', () => {
    for (const fields of [{ G: 2, DID: 77 }, { G: 3, SID: RID, DID: 77 }, { G: 1 }]) {
      const { vm } = scalable();
      vm.scalableContext(RID, { paside: false });
      vm.submit(global, wait(1));
      expect(vm.translate(RID, 0x1000n, READ, 9).ok).toBe(true);
      vm.submit(descriptor(CC_INV_DSC, { TypeLow: 1, ...fields }), global, wait(2));
      expect(vm.translate(RID, 0x1000n, READ, 9).ok).toBe(false);
    }
  });
});
