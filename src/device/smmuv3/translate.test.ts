import { describe, expect, it } from 'vitest';
import {
  AF,
  AP_READ_ONLY,
  AP_USER,
  EXECUTE,
  NG,
  PAGE,
  PRIVILEGED,
  RAM_BYTES,
  READ,
  S1_LEAF,
  S2_LEAF,
  SID,
  TestSmmu,
  WRITE,
} from '../../../test/support/smmu-unit.js';
import { ANY, NO_PASID } from '../../base/ids.js';
import { CR0 } from '../../spec/smmuv3/registers.js';
import { STE_CONFIG } from '../../spec/smmuv3/structures.js';
import { TRANSLATE_STATUS } from '../iommu.js';
import { noWalkTables, type WalkTables } from '../tables.js';

const IOVA = 0x12_3456_7000n;
const OUT = 0x40_0000n;
const UXN = 1n << 54n;

function stage1(cd: Record<string, number> = {}, leaf = S1_LEAF, options: Record<string, string> = {}) {
  const vm = new TestSmmu(options).start();
  const tables = vm.stage1(SID, cd);
  const entry = vm.map(tables.root, IOVA, OUT, leaf);
  return { vm, ...tables, entry };
}

describe('stage 1', () => {
  it('translates, tags and caches', () => {
    const { vm } = stage1();
    expect(vm.translate(SID, IOVA + 0x123n, WRITE)).toMatchObject({
      ok: true,
      out: OUT + 0x123n,
      log2: 12,
      permissions: READ | WRITE | EXECUTE,
      space: 0,
      sub: 5,
    });
    expect(vm.translate(SID, IOVA + 0x456n, READ).out).toBe(OUT + 0x456n);
    expect(vm.model.counters).toMatchObject({ translations: 2, walks: 1, iotlbHits: 1, faults: 0 });
  });

  it('maps 2 MiB blocks', () => {
    const vm = new TestSmmu().start();
    const { root } = vm.stage1(SID);
    vm.map(root, 0x4000_0000n, 0x20_0000n, S1_LEAF, 0, 2);
    expect(vm.translate(SID, 0x4001_2345n, READ)).toMatchObject({ out: 0x21_2345n, log2: 21 });
    expect(vm.translate(SID, 0x401f_f000n, READ).out).toBe(0x3f_f000n);
    expect(vm.model.counters.walks).toBe(1);
  });

  it.each([
    ['nothing mapped', 0n, {}, READ, 'F_TRANSLATION'],
    ['a block where none may be', OUT | AF | 1n, {}, READ, 'F_TRANSLATION'],
    ['a write to what is read-only', OUT | S1_LEAF | AP_READ_ONLY, {}, WRITE, 'F_PERMISSION'],
    ['an unprivileged access', OUT | PAGE | AF | NG, {}, READ, 'F_PERMISSION'],
    ['execution of UXN', OUT | S1_LEAF | UXN, {}, EXECUTE, 'F_PERMISSION'],
    ['execution of what can be written with WXN', OUT | S1_LEAF, { WXN: 1 }, EXECUTE, 'F_PERMISSION'],
    ['a clear Access flag', OUT | PAGE | AP_USER, {}, READ, 'F_ACCESS'],
    ['an output beyond IPS', 0x100_0000_0000n | S1_LEAF, { IPS: 2 }, READ, 'F_ADDR_SIZE'],
  ] as [string, bigint, Record<string, number>, number, string][])(
    'reports %s',
    (_name, descriptor, cd, access, name) => {
      const { vm, entry } = stage1(cd);
      vm.memory.poke(entry, descriptor);
      expect(vm.fault(SID, IOVA + 0x10n, access)).toEqual({
        name,
        StreamID: SID,
        CLASS: 2,
        InputAddr: IOVA + 0x10n,
        ...(access === WRITE ? {} : { RnW: 1 }),
        ...(access === EXECUTE ? { InD: 1 } : {}),
      });
      expect(vm.model.counters.faults).toBe(1);
    },
  );

  it('takes what writes as data, whatever else it says', () => {
    const { vm } = stage1({}, S1_LEAF | UXN);
    expect(vm.translate(SID, IOVA, WRITE | EXECUTE).ok).toBe(true);
    expect(vm.fault(SID, IOVA + 0x1000n, WRITE | EXECUTE)['InD']).toBeUndefined();
  });

  it('lets privileged transactions where unprivileged ones may not, and keeps them apart in the TLB', () => {
    const { vm } = stage1({}, PAGE | AF | NG);
    expect(vm.translate(SID, IOVA, READ | PRIVILEGED).out).toBe(OUT);
    expect(vm.fault(SID, IOVA, READ)).toMatchObject({ name: 'F_PERMISSION', RnW: 1 });
    expect(vm.fault(SID, IOVA + 0x1000n, WRITE | PRIVILEGED)).toMatchObject({ PnU: 1 });
  });

  it('says where a descriptor could not be read', () => {
    const { vm, root } = stage1();
    vm.memory.poke(root, BigInt(RAM_BYTES) | PAGE);
    expect(vm.fault(SID, IOVA, READ)).toMatchObject({
      name: 'F_WALK_EABT',
      CLASS: 1,
      FetchAddr: RAM_BYTES + Number((IOVA >> 30n) & 511n) * 8,
    });
  });

  it('records nothing with CD.R clear, except an external abort', () => {
    const { vm, root } = stage1({ R: 0 });
    expect(vm.fault(SID, IOVA + 0x1000n, READ).name).toBe('silent');
    vm.memory.poke(root, BigInt(RAM_BYTES) | PAGE);
    expect(vm.fault(SID, IOVA + 0x2000n, READ).name).toBe('F_WALK_EABT');
  });

  it('sets the Access flag and the dirty state in memory', () => {
    const clean = OUT | PAGE | AP_USER | NG | AP_READ_ONLY | (1n << 51n);
    const { vm, entry } = stage1({ HA: 1, HD: 1 });
    vm.memory.poke(entry, clean);
    expect(vm.translate(SID, IOVA, READ)).toMatchObject({ ok: true });
    expect(vm.memory.peek(entry)).toBe(clean | AF);
    expect(vm.translate(SID, IOVA, WRITE).ok).toBe(true);
    expect(vm.memory.peek(entry)).toBe((clean | AF) & ~AP_READ_ONLY);
  });

  it('chooses TTB0 or TTB1, and neither where walks are disabled', () => {
    const vm = new TestSmmu().start();
    const upper = vm.page();
    const { root } = vm.stage1(SID, { EPD1: 0, T1SZ: 16, TG1: 2, TTB1: upper });
    vm.map(root, IOVA, OUT, S1_LEAF);
    vm.map(upper, IOVA, OUT + 0x1000n, S1_LEAF);
    const high = 0xffff_0000_0000_0000n;
    expect(vm.translate(SID, IOVA, READ).out).toBe(OUT);
    expect(vm.translate(SID, high | IOVA, READ).out).toBe(OUT + 0x1000n);
    expect(vm.fault(SID, 0xfffe_0000_0000_0000n | IOVA, READ).name).toBe('F_TRANSLATION');
    expect(vm.fault(SID, 0x1_0000_0000_0000n | IOVA, READ).name).toBe('F_TRANSLATION');
    vm.stage1(SID + 1, { EPD0: 1, EPD1: 0, T1SZ: 16, TG1: 2, TTB1: upper, R: 1 });
    expect(vm.fault(SID + 1, IOVA, READ)).toMatchObject({ name: 'F_TRANSLATION', CLASS: 2 });
    expect(vm.translate(SID + 1, high | IOVA, READ).ok).toBe(true);
  });

  it('ignores the top byte with TBI only', () => {
    const { vm } = stage1({ TBI0: 1 });
    expect(vm.translate(SID, (0x5an << 56n) | IOVA, READ)).toMatchObject({ ok: true, out: OUT });
    expect(vm.translate(SID, (0x5bn << 56n) | IOVA, READ).out).toBe(OUT);
    expect(vm.model.counters.iotlbHits).toBe(1);
    const strict = stage1();
    expect(strict.vm.fault(SID, (0x5an << 56n) | IOVA, READ)).toMatchObject({
      name: 'F_TRANSLATION',
      InputAddr: (0x5an << 56n) | IOVA,
    });
  });

  it('answers for neighbours too', () => {
    const { vm, root } = stage1();
    for (let page = 1n; page < 8n; page++) {
      vm.map(root, IOVA + page * 0x2000n, OUT + page * 0x4000n, S1_LEAF);
    }
    expect(vm.translate(SID, IOVA, READ).count).toBeGreaterThan(3);
  });

  it('never records or changes anything for a look without access', () => {
    const { vm, entry } = stage1({ HA: 1 });
    vm.memory.poke(entry, OUT | PAGE | AP_USER);
    expect(vm.translate(SID, IOVA, 0)).toMatchObject({ ok: true, permissions: 7 });
    expect(vm.memory.peek(entry)).toBe(OUT | PAGE | AP_USER);
    expect(vm.translate(SID, 0n, 0).ok).toBe(false);
    expect([vm.recorded(), vm.model.counters.faults]).toEqual([[], 0]);
  });
});

describe('stage 2', () => {
  function stage2(fields: Record<string, number> = {}) {
    const vm = new TestSmmu().start();
    const root = vm.page(2);
    vm.ste(SID, { Config: STE_CONFIG.S2_TRANSLATE, ...vm.stage2Fields(root), ...fields });
    return { vm, root };
  }

  it('translates through concatenated tables', () => {
    const { vm, root } = stage2();
    const ipa = 0x92_3456_7000n;
    vm.map(root, ipa, OUT, S2_LEAF, 1);
    expect(vm.translate(SID, ipa, READ | WRITE)).toMatchObject({ out: OUT, space: 7, sub: ANY });
    expect(vm.fault(SID, ipa + 0x1000n, WRITE)).toEqual({
      name: 'F_TRANSLATION',
      StreamID: SID,
      S2: 1,
      CLASS: 2,
      InputAddr: ipa + 0x1000n,
      IPA: Number(ipa + 0x1000n),
    });
    expect(vm.fault(SID, 0x100_0000_0000n, READ)).toMatchObject({ name: 'F_TRANSLATION', S2: 1 });
    // Of the stage 1 that is not there: recorded and terminated, whatever stage 2 is told to do.
    vm.ste(SID + 1, { Config: STE_CONFIG.S2_TRANSLATE, ...vm.stage2Fields(root), S2R: 0, S2S: 1 });
    for (const sid of [SID, SID + 1]) {
      expect(vm.fault(sid, 1n << 48n, READ)).toMatchObject({ name: 'F_ADDR_SIZE', CLASS: 2 });
      expect(vm.stallable(sid, 1n << 48n, READ).status).toBe(TRANSLATE_STATUS.FAULT);
      expect(vm.recorded()).toHaveLength(1);
    }
  });

  it('has 52 bits of output with 64 KiB pages', () => {
    const vm = new TestSmmu({ oas: '52' }).start();
    const root = vm.page(4);
    const leaves = vm.page(16);
    // 40 bits from level 2: 11 bits of index, then 13.
    const fields = { ...vm.stage2Fields(root), S2TG: 1, S2PS: 6 };
    vm.ste(SID, { Config: STE_CONFIG.S2_TRANSLATE, ...fields });
    vm.memory.poke(root, BigInt(leaves) | PAGE);
    // Bits 51:48 of the output stand in bits 15:12.
    vm.memory.poke(leaves + 8, OUT | (5n << 12n) | S2_LEAF);
    expect(vm.translate(SID, 0x1_0000n, READ).out).toBe(OUT | (5n << 48n));
  });

  it('checks rights, and says so from the TLB as well', () => {
    const { vm, root } = stage2();
    vm.map(root, IOVA, OUT, PAGE | AF | (1n << 6n), 1);
    expect(vm.translate(SID, IOVA, READ).permissions & WRITE).toBe(0);
    expect(vm.fault(SID, IOVA, WRITE)).toMatchObject({ name: 'F_PERMISSION', S2: 1, IPA: Number(IOVA) });
    expect(vm.model.counters.walks).toBe(1);
  });

  it.each([
    [0n, true, true],
    [1n, false, true],
    [2n, false, false],
    [3n, true, false],
  ])('keeps execution apart by privilege (XN %i)', (xn, privileged, unprivileged) => {
    const { vm, root } = stage2();
    vm.map(root, IOVA, OUT, S2_LEAF | (xn << 53n), 1);
    expect(vm.translate(SID, IOVA, EXECUTE | PRIVILEGED).ok).toBe(privileged);
    expect(vm.translate(SID, IOVA, EXECUTE).ok).toBe(unprivileged);
    expect(vm.translate(SID, IOVA, READ | WRITE).ok).toBe(true);
  });

  it('records nothing with S2R clear', () => {
    const { vm } = stage2({ S2R: 0 });
    expect(vm.fault(SID, IOVA, READ).name).toBe('silent');
  });
});

describe('nested', () => {
  function nested() {
    const vm = new TestSmmu().start();
    const root2 = vm.page(2);
    const direct = (page: number, leaf = S2_LEAF): number =>
      vm.map(root2, BigInt(page), BigInt(page), leaf, 1);
    const tables = vm.stage1(SID, {}, { Config: STE_CONFIG.NESTED, ...vm.stage2Fields(root2) });
    const entry = vm.map(tables.root, IOVA, 0x33_3333_3000n, S1_LEAF);
    for (let page = 0x10_0000; page < 0x18_0000; page += 4096) direct(page);
    return { vm, root2, direct, entry, ...tables };
  }

  it('intersects what both stages allow', () => {
    const { vm, root2 } = nested();
    vm.map(root2, 0x33_3333_3000n, OUT, PAGE | AF | (1n << 6n), 1);
    const answer = vm.translate(SID, IOVA, READ);
    expect(answer).toMatchObject({ out: OUT, space: 7, sub: 5 });
    expect(answer.permissions & WRITE).toBe(0);
    expect(vm.fault(SID, IOVA, WRITE)).toEqual({
      name: 'F_PERMISSION',
      StreamID: SID,
      S2: 1,
      CLASS: 2,
      InputAddr: IOVA,
      IPA: 0x33_3333_3000,
    });
  });

  it('reports a stage-2 fault on a table as class TT', () => {
    const { vm, direct, root } = nested();
    const second = direct(root);
    vm.memory.poke(second, 0n);
    expect(vm.fault(SID, IOVA, WRITE)).toEqual({
      name: 'F_TRANSLATION',
      StreamID: SID,
      S2: 1,
      CLASS: 1,
      InputAddr: IOVA,
      IPA: root,
    });
    vm.memory.poke(second, BigInt(root) | PAGE | AF);
    expect(vm.fault(SID, IOVA, WRITE)).toMatchObject({ name: 'F_PERMISSION', S2: 1, CLASS: 1, TTRnW: 1 });
  });

  it('reports an abort on a table of stage 2 by what was translated', () => {
    const { vm, root, root2 } = nested();
    const abroad = BigInt(RAM_BYTES) | PAGE;
    // The entry of the page that the stage-1 tables and the context descriptor are in, then that of
    // the output.
    const table = vm.memory.peek(root2) ?? 0n;
    vm.memory.poke(root2, abroad);
    expect(vm.fault(SID, IOVA, WRITE)).toMatchObject({ name: 'F_WALK_EABT', S2: 1, FetchAddr: RAM_BYTES });
    expect(vm.fault(SID, IOVA, WRITE)['CLASS']).toBeUndefined();
    vm.memory.poke(root2, table);
    expect(vm.fault(SID, IOVA, WRITE)).toMatchObject({ name: 'F_TRANSLATION', S2: 1, CLASS: 2 });
    vm.memory.poke(root2, abroad);
    expect(vm.fault(SID, IOVA, WRITE)).toMatchObject({ name: 'F_WALK_EABT', S2: 1, CLASS: 1 });
    vm.memory.poke(root2, table);
    vm.memory.poke(root2 + Number(0x33_3333_3000n >> 30n) * 8, abroad);
    expect(vm.fault(SID, IOVA, WRITE)).toMatchObject({ name: 'F_WALK_EABT', S2: 1, CLASS: 2 });
    expect(root).toBeGreaterThan(0);
  });

  it('hands out no more of a block of stage 1 than stage 2 has in one piece, from the TLB neither', () => {
    const { vm, root, root2 } = nested();
    const block = 0x12_3460_0000n;
    vm.map(root, block, 0x33_3340_0000n, S1_LEAF, 0, 2);
    vm.map(root2, 0x33_3340_0000n, OUT, S2_LEAF, 1);
    for (let n = 0; n < 2; n++) {
      expect(vm.translate(SID, block, READ)).toMatchObject({ out: OUT, log2: 12 });
    }
    expect(vm.model.counters.iotlbHits).toBe(1);
  });

  it('reports a table of stage 1 that is not in memory by what stage 2 made of its address', () => {
    const { vm, root, root2 } = nested();
    vm.memory.poke(root, 0x55_5555_5000n | PAGE);
    vm.map(root2, 0x55_5555_5000n, BigInt(RAM_BYTES), S2_LEAF, 1);
    const index = Number((IOVA >> 30n) & 511n);
    expect(vm.fault(SID, IOVA, READ)).toMatchObject({
      name: 'F_WALK_EABT',
      FetchAddr: RAM_BYTES + index * 8,
    });
  });

  it('tells a table that could not be read from one that could not be written', () => {
    const { vm, direct, entry, cd } = nested();
    vm.cd(cd, { TTB0: vm.memory.load64(cd + 8) ? vm.memory.lo : 0, ASID: 5, HA: 1 });
    vm.memory.poke(entry, 0x33_3333_3000n | (S1_LEAF & ~AF));
    direct(entry - (entry % 4096), PAGE | AF | (1n << 6n));
    const fault = vm.fault(SID, IOVA, READ);
    expect(fault).toMatchObject({ name: 'F_PERMISSION', S2: 1, CLASS: 1 });
    expect(fault['TTRnW']).toBeUndefined();
  });

  it('reports a context descriptor that is not in memory by what stage 2 made of its address', () => {
    const { vm, root2 } = nested();
    const place = { S1ContextPtr: 0x44_4444_4140 };
    vm.ste(SID, { Config: STE_CONFIG.NESTED, ...vm.stage2Fields(root2), ...place });
    vm.map(root2, 0x44_4444_4000n, BigInt(RAM_BYTES), S2_LEAF, 1);
    expect(vm.fault(SID, IOVA, READ)).toEqual({
      name: 'F_CD_FETCH',
      StreamID: SID,
      FetchAddr: RAM_BYTES + 0x140,
    });
  });

  it('sets the Access flag of stage 2 on the way to a descriptor, and never for those who only look', () => {
    const { vm, root2, direct, cd } = nested();
    const both = { Config: STE_CONFIG.NESTED, ...vm.stage2Fields(root2), S2HA: 1 };
    vm.ste(SID, { ...both, S1ContextPtr: cd });
    const leaf = direct(cd, S2_LEAF & ~AF);
    const found = vm.memory.peek(leaf) ?? 0n;
    vm.model.dumper.dump({ registers: false, tables: true, maxLeaves: 4 });
    expect(vm.memory.peek(leaf)).toBe(found);
    vm.translate(SID, IOVA, READ);
    expect(vm.memory.peek(leaf)).toBe(found | AF);
  });

  it('reports faults of stage 1 as its own', () => {
    const { vm, entry } = nested();
    vm.memory.poke(entry, 0n);
    const fault = vm.fault(SID, IOVA, READ);
    expect(fault).toMatchObject({ name: 'F_TRANSLATION', CLASS: 2 });
    expect(fault['S2']).toBeUndefined();
  });
});

describe('tables for the peer to walk', () => {
  const told = (vm: TestSmmu, sid = SID, hi = 0): WalkTables | undefined => {
    const tables = noWalkTables();
    return vm.model.peerWalk?.describe(sid, NO_PASID, hi, tables) === true ? tables : undefined;
  };

  it('stage 1: with the tags of its answers, and only leaves of one ASID', () => {
    const { vm, root } = stage1();
    const nG = Number(NG);
    expect(told(vm)).toMatchObject({ root, space: 0, sub: 5, expectedMask: nG, expected: nG });
    expect(told(vm, SID + 1)).toBeUndefined();
    expect(told(vm, SID, -1)).toBeUndefined();
  });

  it('stage 2', () => {
    const vm = new TestSmmu().start();
    const root = vm.page(2);
    vm.ste(SID, { Config: STE_CONFIG.S2_TRANSLATE, ...vm.stage2Fields(root) });
    expect(told(vm)).toMatchObject({ root, space: 7, expectedMask: 0, holeInput: false });
    // As wide as the unit's addresses are.
    const narrow = new TestSmmu({ oas: '40' }).start();
    narrow.ste(SID, { Config: STE_CONFIG.S2_TRANSLATE, ...narrow.stage2Fields(narrow.page(2)), S2PS: 2 });
    expect(told(narrow)).toMatchObject({ space: 7, expectedMask: 0 });
  });

  it('are none with tags in addresses, two stages, a bypass, another cache policy, or while the SMMU is off', () => {
    expect(told(stage1({ TBI0: 1 }).vm)).toBeUndefined();
    const vm = new TestSmmu().start();
    vm.stage1(SID, {}, { Config: STE_CONFIG.NESTED, ...vm.stage2Fields(vm.page(2)) });
    expect(told(vm)).toBeUndefined();
    vm.ste(SID + 1, { Config: STE_CONFIG.BYPASS });
    expect(told(vm, SID + 1)).toBeUndefined();
    for (const policy of ['none', 'hostile'])
      expect(told(stage1({}, S1_LEAF, { 'cache-policy': policy }).vm)).toBeUndefined();
    const off = stage1().vm;
    off.write32(CR0.offset, 0);
    expect(told(off)).toBeUndefined();
  });
});
