import { describe, expect, it } from 'vitest';
import { contextEntry, descriptor, TestMachine } from '../../../test/support/vtd-unit.js';
import { NO_PASID } from '../../base/ids.js';
import {
  DEV_TLB_INV_DSC,
  INV_WAIT_DSC,
  IOTLB_INV_DSC,
  P_DEV_TLB_INV_DSC,
} from '../../spec/vtd/descriptors.js';
import { FECTL_REG, FSTS_REG, IQEI, IQERCD_REG, IQH_REG } from '../../spec/vtd/registers.js';
import { DEVICE_TLB } from '../iommu.js';

const SID = 0x0398;
const PF = 0x0300;
const STATUS = 0x9000;
const { DONE, TIMEOUT, UNSUPPORTED } = DEVICE_TLB;
const IQE = 1 << 4;
const ICE = 1 << 5;
const ITE = 1 << 6;

const pfsid = (value: number) => ({ PFSID_LOW: value & 0xf, PFSID_HIGH: value >> 4 });
const plain = (fields: Record<string, number> = {}): Uint32Array =>
  descriptor(DEV_TLB_INV_DSC, { TypeLow: 3, SID, ...pfsid(PF), ...fields });
const withPasid = (fields: Record<string, number> = {}): Uint32Array =>
  descriptor(P_DEV_TLB_INV_DSC, { TypeLow: 8, SID, PASID: 0xabcde, ...pfsid(PF), ...fields });
const wait = (data: number): Uint32Array =>
  descriptor(INV_WAIT_DSC, { TypeLow: 5, SW: 1, StatusData: data, StatusAddress: STATUS });
const iotlb = descriptor(IOTLB_INV_DSC, { TypeLow: 2, G: 1 });

function unit(wide = false, options: Record<string, string> = { 'device-tlb': 'on' }) {
  const vm = new TestMachine(options);
  vm.context(0x18, ...contextEntry(vm.page(), 1));
  vm.setRoot(wide ? 1 : 0);
  vm.enableQueue(wide);
  // The fault event, not masked.
  vm.write32(0x3c, 0x51);
  vm.write32(0x40, 0xfee0_2000);
  vm.write32(FECTL_REG.offset, 0);
  return vm;
}

const status = (vm: TestMachine): number => (vm.memory.load32(STATUS) ? vm.memory.lo : -1);
const flags = (vm: TestMachine): number => vm.read(FSTS_REG.offset) & 0xff;
const end = (vm: TestMachine, tag: number, result: number = DONE): void =>
  vm.model.devices?.invalidated(tag, result);
const itesid = (vm: TestMachine): number => IQERCD_REG.get.ITESID(vm.registers, IQERCD_REG.offset >> 2);
const sent = (vm: TestMachine) => vm.devices.deviceTlbs;

describe('Device-TLB invalidation', () => {
  it.each([
    [false, plain()],
    [true, plain()],
    [true, withPasid()],
  ])('is an invalid type without Device-TLBs (256-bit: %s)', (wide, words) => {
    const vm = unit(wide, {});
    vm.submit(words);
    expect(flags(vm)).toBe(IQE);
    expect(IQERCD_REG.get.IQEI(vm.registers, IQERCD_REG.offset >> 2)).toBe(IQEI.INVALID_TYPE);
    expect(sent(vm)).toEqual([]);
  });

  it('with PASID needs scalable mode and 256 bits', () => {
    const narrow = unit(false);
    narrow.submit(withPasid());
    expect(flags(narrow)).toBe(IQE);
    const legacy = new TestMachine({ 'device-tlb': 'on' });
    legacy.setRoot(0);
    legacy.enableQueue(true);
    legacy.submit(withPasid());
    expect(flags(legacy)).toBe(IQE);
  });

  const sizes: [string, number, number, bigint, number][] = [
    ['one page', 0, 0x1234_5000, 0x1234_5000n, 12],
    ['8 KiB', 1, 0x1234_4000, 0x1234_4000n, 13],
    ['16 KiB', 1, 0x1234_5000, 0x1234_4000n, 14],
    ['2 MiB', 1, 0x123f_f000 & ~0x10_0000, 0x1220_0000n, 21],
    ['4 GiB', 1, 0x1_7fff_f000, 0x1_0000_0000n, 32],
    ['8 GiB', 1, 0x2_ffff_f000, 0x2_0000_0000n, 33],
  ];
  it.each(sizes)('takes %s', (_name, S, ADDR, base, log2Size) => {
    const vm = unit(true);
    vm.submit(plain({ S, ADDR }), withPasid({ S, ADDR }));
    const [lo, hi] = [Number(base & 0xffff_ffffn), Number(base >> 32n)];
    expect(sent(vm)).toMatchObject([
      { rid: SID, pasid: NO_PASID, lo, hi, log2Size, global: false },
      { rid: SID, pasid: 0xabcde, lo, hi, log2Size, global: false },
    ]);
  });

  it('takes everything: all bits set, or all but the highest', () => {
    const vm = unit(true);
    for (const high of [0xffff_ffff, 0x7fff_ffff]) {
      const words = plain({ S: 1 });
      words[2] |= 0xffff_f000;
      words[3] = high;
      vm.submit(words);
    }
    const all = { lo: 0, hi: 0, log2Size: 64 };
    expect(sent(vm)).toMatchObject([all, all]);
  });

  it('says when it is for every PASID', () => {
    const vm = unit(true);
    vm.submit(withPasid({ GI: 1 }));
    expect(sent(vm)).toMatchObject([{ global: true }]);
  });

  it.each([false, true])('holds a wait back until the devices have answered (256-bit: %s)', (wide) => {
    const vm = unit(wide);
    vm.submit(plain(), plain({ SID: 0x40 }), wait(7), iotlb, wait(8));
    expect(sent(vm)).toHaveLength(2);
    expect(status(vm)).toBe(0);
    const [a, b] = sent(vm);
    end(vm, b.tag);
    expect(status(vm)).toBe(0);
    end(vm, a.tag);
    expect(status(vm)).toBe(8);
    expect(flags(vm)).toBe(0);
    expect(vm.read(IQH_REG.offset)).toBe(5 * (wide ? 32 : 16));
  });

  it('waits itself for IOTLB invalidations ahead of it', () => {
    const vm = unit();
    vm.acks = 1;
    vm.submit(iotlb, plain(), wait(7));
    expect(sent(vm)).toEqual([]);
    expect(vm.read(IQH_REG.offset)).toBe(0x10);
    vm.acks = 0;
    vm.model.acknowledged();
    expect(sent(vm)).toHaveLength(1);
    end(vm, sent(vm)[0].tag);
    expect(status(vm)).toBe(7);
  });

  it('is put off while nothing more is taken, and goes on when one has ended', () => {
    const vm = unit();
    vm.submit(plain());
    vm.devices.deviceTlbRoom = false;
    vm.submit(plain({ ADDR: 0x7000 }), wait(7));
    expect(vm.model.peerQueue?.ready).toBe(false);
    expect([sent(vm).length, vm.read(IQH_REG.offset)]).toEqual([1, 0x10]);
    vm.devices.deviceTlbRoom = true;
    end(vm, sent(vm)[0].tag);
    expect(sent(vm)).toMatchObject([{}, { lo: 0x7000 }]);
    end(vm, sent(vm)[1].tag);
    expect(status(vm)).toBe(7);
    // Nothing is under way, and yet the queue is not at rest.
    vm.devices.deviceTlbRoom = false;
    vm.submit(plain());
    expect([sent(vm).length, vm.model.peerQueue?.ready]).toEqual([2, false]);
  });

  it('has 1024 under way at the most, each with a tag that answers it alone', () => {
    const vm = unit();
    const functions = Array.from({ length: 33 }, (_, n) => ({ SID: n, ...pfsid(n) }));
    for (const one of functions) vm.submit(...Array.from({ length: 32 }, () => plain(one)));
    const tags = sent(vm).map(({ tag }) => tag);
    expect([tags.length, new Set(tags).size]).toEqual([1024, 1024]);
    for (const tag of tags) end(vm, tag);
    expect([sent(vm).length, flags(vm)]).toEqual([33 * 32, 0]);
    end(vm, tags[0] === 1024 ? 0 : 1024);
    expect(flags(vm)).toBe(ICE);
  });

  it('never has more under way at a function than MIP says; 0 says 32', () => {
    const vm = unit();
    vm.submit(...Array.from({ length: 40 }, () => plain()), wait(1));
    expect(sent(vm)).toHaveLength(32);
    end(vm, sent(vm)[0].tag);
    expect(sent(vm)).toHaveLength(33);
    for (let n = 1; n < 40; n++) end(vm, sent(vm)[n].tag);
    expect(status(vm)).toBe(1);
    // Two virtual functions count as their physical one; another function has its own count.
    const other = unit();
    other.submit(plain({ MIP: 2, SID: 0x301 }), plain({ MIP: 2, SID: 0x302 }), plain({ MIP: 2 }));
    expect(sent(other).map(({ rid }) => rid)).toEqual([0x301, 0x302]);
    end(other, sent(other)[0].tag);
    expect(sent(other)).toHaveLength(3);
    other.submit(plain({ SID: 0x40, ...pfsid(0x40), MIP: 1 }));
    expect(sent(other)).toHaveLength(4);
  });

  it('uses no tag twice at once', () => {
    const vm = unit();
    const live = new Set<number>();
    for (let round = 0; round < 300; round++) {
      vm.submit(plain({ SID: round, ...pfsid(round) }));
      const { tag } = sent(vm)[round];
      expect(live.has(tag)).toBe(false);
      live.add(tag);
      if (round % 3 === 0) {
        live.delete(tag);
        end(vm, tag);
      }
    }
  });
});

describe('a device that does not answer', () => {
  it.each([
    ['in time', TIMEOUT],
    ['because it is not there', UNSUPPORTED],
  ])('%s sets ITE, aborts the wait, and stops the queue until software clears it', (_name, result) => {
    const vm = unit();
    vm.submit(plain(), wait(7), iotlb, wait(8));
    const before = vm.model.counters.invalidations;
    end(vm, sent(vm)[0].tag, result);
    expect([flags(vm), itesid(vm), status(vm)]).toEqual([ITE, SID, 0]);
    expect(vm.read(IQH_REG.offset)).toBe(0x20);
    expect(vm.interrupts).toEqual([{ lo: 0xfee0_2000, hi: 0, data: 0x51 }]);
    vm.submit(wait(9));
    expect(vm.model.counters.invalidations).toBe(before);
    vm.write32(FSTS_REG.offset, ITE);
    // The wait that was aborted never completes; what is behind it does.
    expect([flags(vm), status(vm)]).toEqual([0, 9]);
    expect(vm.read(IQH_REG.offset)).toBe(0x50);
  });

  it('is named once: ITESID keeps the first until software has seen it', () => {
    const vm = unit();
    vm.submit(plain({ SID: 1 }), plain({ SID: 2 }), plain({ SID: 3 }), wait(7));
    end(vm, sent(vm)[1].tag, TIMEOUT);
    end(vm, sent(vm)[0].tag, TIMEOUT);
    expect([itesid(vm), vm.interrupts.length]).toEqual([2, 1]);
    vm.write32(FSTS_REG.offset, ITE);
    // The third one is still under way, and a new wait waits for it.
    vm.submit(wait(8));
    expect(status(vm)).toBe(0);
    end(vm, sent(vm)[2].tag, TIMEOUT);
    expect([flags(vm), itesid(vm), vm.interrupts.length]).toEqual([ITE, 3, 2]);
  });

  it('answers normally while ITE is set: nothing is lost', () => {
    const vm = unit();
    vm.submit(plain({ SID: 1 }), plain({ SID: 2 }));
    end(vm, sent(vm)[0].tag, TIMEOUT);
    end(vm, sent(vm)[1].tag);
    vm.write32(FSTS_REG.offset, ITE);
    vm.submit(wait(8));
    expect(status(vm)).toBe(8);
  });

  it('answers no request: ICE, and the queue goes on', () => {
    const vm = unit();
    vm.submit(plain());
    const [{ tag }] = sent(vm);
    end(vm, tag);
    for (const stray of [tag, -1, 1024, 5]) end(vm, stray);
    expect(flags(vm)).toBe(ICE);
    expect(vm.interrupts).toHaveLength(1);
    vm.submit(wait(3));
    expect(status(vm)).toBe(3);
    vm.write32(FSTS_REG.offset, ICE);
    expect(flags(vm)).toBe(0);
  });

  it('holds nothing after a reset', () => {
    const vm = unit();
    vm.submit(plain(), wait(7));
    vm.model.reset();
    expect(flags(vm)).toBe(0);
    vm.setRoot(0);
    vm.enableQueue(false);
    vm.submit(wait(9));
    expect(status(vm)).toBe(9);
  });
});
