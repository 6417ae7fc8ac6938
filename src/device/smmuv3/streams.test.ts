import { describe, expect, it } from 'vitest';
import {
  RAM_BYTES,
  READ,
  S1_LEAF,
  S2_LEAF,
  SID,
  STREAM_TABLE,
  TestSmmu,
  WRITE,
} from '../../../test/support/smmu-unit.js';
import { pack } from '../../spec/define.js';
import { CR0, CR2, STRTAB_BASE, STRTAB_BASE_CFG } from '../../spec/smmuv3/registers.js';
import { CD, L1CD, L1STD, S1DSS, S1FMT, STE, STE_CONFIG } from '../../spec/smmuv3/structures.js';

const IOVA = 0x12_3456_7000n;
const OUT = 0x40_0000n;

describe('stream table', () => {
  it('aborts silently, bypasses, and refuses what is not valid', () => {
    const vm = new TestSmmu().start();
    vm.ste(1, { Config: STE_CONFIG.ABORT });
    vm.ste(2, { Config: 3 });
    vm.ste(3, { Config: STE_CONFIG.BYPASS });
    vm.ste(4, { V: 0, Config: STE_CONFIG.BYPASS });
    expect(vm.fault(1, IOVA, READ).name).toBe('silent');
    expect(vm.fault(2, IOVA, READ).name).toBe('silent');
    expect(vm.translate(3, IOVA, READ | WRITE)).toMatchObject({ ok: true, out: IOVA });
    expect(vm.fault(4, IOVA, READ)).toEqual({ name: 'C_BAD_STE', StreamID: 4 });
  });

  it('keeps bypassed addresses within OAS', () => {
    const vm = new TestSmmu({ oas: '40' }).start();
    vm.ste(SID, { Config: STE_CONFIG.BYPASS });
    expect(vm.translate(SID, 0xff_ffff_f000n, READ).ok).toBe(true);
    expect(vm.fault(SID, 0x100_0000_0000n, WRITE)).toEqual({
      name: 'F_ADDR_SIZE',
      StreamID: SID,
      CLASS: 2,
      InputAddr: 0x100_0000_0000n,
    });
  });

  it('records a StreamID out of range only with RECINVSID', () => {
    const vm = new TestSmmu().start();
    expect(vm.fault(0x100, IOVA, READ).name).toBe('silent');
    vm.write32(CR0.offset, 0);
    vm.write32(CR2.offset, 2);
    vm.write32(CR0.offset, 13);
    expect(vm.fault(0x100, IOVA, READ, 3)).toEqual({
      name: 'C_BAD_STREAMID',
      StreamID: 0x100,
      SSV: 1,
      SubstreamID: 3,
    });
  });

  it('reports a stream table that is not in memory', () => {
    const vm = new TestSmmu();
    vm.write64(STRTAB_BASE.offset, 0x12_0000_0000);
    vm.write32(STRTAB_BASE_CFG.offset, 8);
    vm.write64(0xa0, 0x2_0004);
    vm.write32(CR0.offset, 5);
    expect(vm.fault(SID, IOVA, READ)).toEqual({
      name: 'F_STE_FETCH',
      StreamID: SID,
      FetchAddr: 0x12_0000_0000 + SID * 64,
    });
  });

  it.each([6, 8, 10])('walks two levels split at %i, with 2^(Span-1) entries', (split) => {
    const vm = new TestSmmu();
    const table = vm.page(256);
    const leaf = vm.page(16);
    vm.write64(STRTAB_BASE.offset, table);
    vm.write32(STRTAB_BASE_CFG.offset, 16 | (split << 6) | (1 << 16));
    vm.write64(0xa0, 0x2_0004);
    vm.write32(CR2.offset, 2);
    vm.write32(CR0.offset, 5);
    const sid = (3 << split) | 5;
    vm.store(table + 3 * 8, pack(L1STD, { Span: 4, L2Ptr: leaf }));
    vm.store(leaf + 5 * 64, pack(STE, { V: 1, Config: STE_CONFIG.BYPASS }));
    vm.store(leaf + 8 * 64, pack(STE, { V: 1, Config: STE_CONFIG.BYPASS }));
    expect(vm.translate(sid, IOVA, READ).ok).toBe(true);
    // Index 8 is beyond a span of 8; the next first-level entry has none; 12 is reserved.
    expect(vm.fault((3 << split) | 8, IOVA, READ).name).toBe('C_BAD_STREAMID');
    expect(vm.fault(4 << split, IOVA, READ).name).toBe('C_BAD_STREAMID');
    vm.store(table + 5 * 8, pack(L1STD, { Span: 12, L2Ptr: leaf }));
    expect(vm.fault((5 << split) | 5, IOVA, READ).name).toBe('C_BAD_STREAMID');
    // A span that is larger than the split has no more to say than a reserved one.
    vm.store(table + 6 * 8, pack(L1STD, { Span: split + 2, L2Ptr: leaf }));
    expect(vm.fault((6 << split) | 5, IOVA, READ).name).toBe('C_BAD_STREAMID');
    vm.store(table + 6 * 8, pack(L1STD, { Span: split + 1, L2Ptr: leaf }));
    expect(vm.translate((6 << split) | 5, IOVA, READ).ok).toBe(true);
  });

  it.each([
    ['a stage 2 that is AArch32', { S2AA64: 0 }],
    ['a big-endian stage 2', { S2ENDI: 1 }],
    ['full ATS with a stage 2 that stalls', { S2S: 1, EATS: 1 }],
    ['split-stage ATS with a stage 2 that stalls', { S2S: 1, EATS: 2 }],
    ['split-stage ATS without a stage 1', { Config: STE_CONFIG.S2_TRANSLATE, EATS: 2 }],
    ['split-stage ATS without a stage 2', { Config: STE_CONFIG.S1_TRANSLATE, EATS: 2 }],
    ['a reserved granule', { S2TG: 3 }],
    ['an input size below the least', { S2T0SZ: 40 }],
    ['an input size above IAS', { S2T0SZ: 15 }],
    ['a start level that does not fit', { S2SL0: 0 }],
    ['a table beyond the output size', { S2PS: 0, S2TTB: 0x1_0000_0000 }],
    ['more substreams than there are', { S1CDMax: 17 }],
  ] as [string, Record<string, number>][])('refuses %s', (_name, fields) => {
    const vm = new TestSmmu({ ats: 'on' }).start();
    const root = vm.page(2);
    vm.stage1(SID, {}, { Config: STE_CONFIG.NESTED, ...vm.stage2Fields(root), ...fields });
    expect(vm.fault(SID, IOVA, READ)).toEqual({ name: 'C_BAD_STE', StreamID: SID });
  });

  it('refuses stalls, and their prohibition, where they are not there', () => {
    const vm = new TestSmmu({ stall: 'off' }).start();
    const root = vm.page(2);
    vm.stage1(SID, {}, { Config: STE_CONFIG.NESTED, ...vm.stage2Fields(root), S2S: 1 });
    vm.stage1(SID + 1, {}, { S1STALLD: 1 });
    vm.stage1(SID + 2, { S: 1 });
    vm.stage1(SID + 3, {}, { EATS: 2, STRW: 2 });
    expect(vm.fault(SID, IOVA, READ).name).toBe('C_BAD_STE');
    expect(vm.fault(SID + 1, IOVA, READ).name).toBe('C_BAD_STE');
    expect(vm.fault(SID + 2, IOVA, READ).name).toBe('C_BAD_CD');
    // EATS counts only with ATS, STRW only with HYP.
    expect(vm.fault(SID + 3, IOVA, READ).name).toBe('F_TRANSLATION');
  });

  it('refuses two levels of context descriptors where they are not there', () => {
    const vm = new TestSmmu({ 'two-level': 'off' }).start();
    vm.stage1(SID, {}, { S1Fmt: S1FMT.TWO_LEVEL_4K, S1CDMax: 8, S1DSS: S1DSS.SSID0 });
    vm.stage1(SID + 1, {}, { S1Fmt: S1FMT.TWO_LEVEL_4K });
    vm.stage1(SID + 2, {}, { S1Fmt: S1FMT.LINEAR, S1CDMax: 1, S1DSS: S1DSS.SSID0 });
    expect(vm.fault(SID, IOVA, READ).name).toBe('C_BAD_STE');
    // One descriptor alone needs no table of them.
    expect(vm.fault(SID + 1, IOVA, READ).name).toBe('F_TRANSLATION');
    expect(vm.fault(SID + 2, IOVA, READ).name).toBe('F_TRANSLATION');
  });

  it('refuses context descriptors and their tables beyond OAS', () => {
    const vm = new TestSmmu({ oas: '40' }).start();
    const table = vm.page();
    vm.ste(SID, { Config: STE_CONFIG.S1_TRANSLATE, S1ContextPtr: 2 ** 40 });
    expect(vm.fault(SID, IOVA, READ).name).toBe('C_BAD_STE');
    vm.store(table, pack(L1CD, { V: 1, L2Ptr: 2 ** 40 }));
    const s1 = { Config: STE_CONFIG.S1_TRANSLATE, S1ContextPtr: table, S1CDMax: 8, S1Fmt: 1, S1DSS: 2 };
    vm.ste(SID + 1, s1);
    expect(vm.fault(SID + 1, IOVA, READ)).toEqual({ name: 'C_BAD_SUBSTREAMID', StreamID: SID + 1 });
    expect(vm.fault(SID + 1, IOVA, READ, 5)).toMatchObject({ SubstreamID: 5 });
  });

  it('refuses stages that are not there', () => {
    const first = new TestSmmu({ stages: '2' }).start();
    first.stage1(SID);
    expect(first.fault(SID, IOVA, READ).name).toBe('C_BAD_STE');
    const second = new TestSmmu({ stages: '1' }).start();
    second.ste(SID, { Config: STE_CONFIG.S2_TRANSLATE, ...second.stage2Fields(second.page(2)) });
    expect(second.fault(SID, IOVA, READ).name).toBe('C_BAD_STE');
  });
});

describe('context descriptors', () => {
  it.each([
    ['V clear', { V: 0 }],
    ['AArch32', { AA64: 0 }],
    ['big-endian tables', { ENDI: 1 }],
    ['terminations that are not aborts', { A: 0 }],
    ['a reserved granule', { TG0: 3 }],
    ['an input size below the least', { T0SZ: 40 }],
    ['an input size above the most', { T0SZ: 15 }],
    ['a table beyond IPS', { IPS: 0, TTB0: 0x1_0000_0000 }],
    ['a TTB1 that is ILLEGAL', { EPD1: 0, TG1: 0, T1SZ: 16 }],
  ] as [string, Record<string, number>][])('refuses %s', (_name, fields) => {
    const vm = new TestSmmu().start();
    vm.stage1(SID, fields);
    expect(vm.fault(SID, IOVA, READ)).toEqual({ name: 'C_BAD_CD', StreamID: SID });
  });

  it('looks at HTTU before it allows HA and HD', () => {
    const none = new TestSmmu({ httu: 'off' }).start();
    none.stage1(SID, { HA: 1 });
    expect(none.fault(SID, IOVA, READ).name).toBe('C_BAD_CD');
    const access = new TestSmmu({ httu: 'access' }).start();
    access.stage1(SID, { HA: 1 });
    access.stage1(SID + 1, { HA: 1, HD: 1 });
    expect(access.fault(SID, IOVA, READ).name).toBe('F_TRANSLATION');
    expect(access.fault(SID + 1, IOVA, READ).name).toBe('C_BAD_CD');
  });

  it('reports one that is not in memory', () => {
    const vm = new TestSmmu().start();
    vm.ste(SID, { Config: STE_CONFIG.S1_TRANSLATE, S1ContextPtr: RAM_BYTES + 0x40 });
    expect(vm.fault(SID, IOVA, READ)).toEqual({
      name: 'F_CD_FETCH',
      StreamID: SID,
      FetchAddr: RAM_BYTES + 0x40,
    });
  });

  it('finds them in a linear table', () => {
    const vm = new TestSmmu().start();
    const table = vm.page();
    const root = vm.page();
    vm.map(root, IOVA, OUT, S1_LEAF);
    vm.cd(table + 5 * 64, { TTB0: root, ASID: 9 });
    vm.ste(SID, { Config: STE_CONFIG.S1_TRANSLATE, S1ContextPtr: table, S1CDMax: 4 });
    expect(vm.translate(SID, IOVA, READ, 5)).toMatchObject({ out: OUT, sub: 9 });
    expect(vm.fault(SID, IOVA, READ, 6)).toEqual({
      name: 'C_BAD_CD',
      StreamID: SID,
      SSV: 1,
      SubstreamID: 6,
    });
    expect(vm.fault(SID, IOVA, READ, 16).name).toBe('C_BAD_SUBSTREAMID');
  });

  it.each([
    [S1FMT.TWO_LEVEL_4K, 6],
    [S1FMT.TWO_LEVEL_64K, 10],
  ])('finds them in two levels, format %i', (format, split) => {
    const vm = new TestSmmu().start();
    const table = vm.page(16);
    const leaf = vm.page(16);
    const root = vm.page();
    const ssid = (3 << split) | 7;
    vm.map(root, IOVA, OUT, S1_LEAF);
    vm.store(table + 3 * 8, pack(L1CD, { V: 1, L2Ptr: leaf }));
    vm.cd(leaf + 7 * CD.bytes, { TTB0: root });
    vm.ste(SID, {
      Config: STE_CONFIG.S1_TRANSLATE,
      S1ContextPtr: table,
      S1CDMax: 16,
      S1Fmt: format,
    });
    expect(vm.translate(SID, IOVA, READ, ssid).out).toBe(OUT);
    expect(vm.fault(SID, IOVA, READ, 4 << split)).toEqual({
      name: 'C_BAD_SUBSTREAMID',
      StreamID: SID,
      SubstreamID: 4 << split,
    });
  });

  it('treats transactions without SubstreamID as S1DSS says', () => {
    const vm = new TestSmmu().start();
    const table = vm.page();
    const root = vm.page();
    vm.map(root, IOVA, OUT, S1_LEAF);
    vm.cd(table, { TTB0: root });
    vm.cd(table + 64, { TTB0: root });
    const common = { Config: STE_CONFIG.S1_TRANSLATE, S1ContextPtr: table, S1CDMax: 2 };
    vm.ste(1, { ...common, S1DSS: S1DSS.TERMINATE });
    vm.ste(2, { ...common, S1DSS: S1DSS.BYPASS });
    vm.ste(3, { ...common, S1DSS: S1DSS.SSID0 });
    expect(vm.fault(1, IOVA, READ)).toEqual({ name: 'F_STREAM_DISABLED', StreamID: 1 });
    expect(vm.translate(2, IOVA, READ).out).toBe(IOVA);
    expect(vm.translate(3, IOVA, READ).out).toBe(OUT);
    expect(vm.translate(1, IOVA, READ, 0).out).toBe(OUT);
    expect(vm.translate(3, IOVA, READ, 1).out).toBe(OUT);
    expect(vm.fault(3, IOVA, READ, 0)).toEqual({ name: 'F_STREAM_DISABLED', StreamID: 3 });
  });

  it('refuses stalls that the stream forbids, and ignores what EPD leaves unused', () => {
    const vm = new TestSmmu().start();
    vm.stage1(1, { S: 1 }, { S1STALLD: 1 });
    vm.stage1(2, { S: 1 });
    vm.stage1(3, { EPD0: 1, EPD1: 1, ENDI: 1, TG0: 3 });
    expect(vm.fault(1, IOVA, READ)).toEqual({ name: 'C_BAD_CD', StreamID: 1 });
    expect(vm.fault(2, IOVA, READ).name).toBe('F_TRANSLATION');
    expect(vm.fault(3, IOVA, READ).name).toBe('F_TRANSLATION');
  });

  it('refuses a SubstreamID where no stage 1 takes it', () => {
    const vm = new TestSmmu().start();
    vm.ste(1, { Config: STE_CONFIG.BYPASS });
    vm.ste(2, { Config: STE_CONFIG.S2_TRANSLATE, ...vm.stage2Fields(vm.page(2)) });
    vm.stage1(3);
    for (const sid of [1, 2, 3]) {
      expect(vm.fault(sid, IOVA, READ, 1).name).toBe('C_BAD_SUBSTREAMID');
    }
    expect(STREAM_TABLE % 64).toBe(0);
  });

  it('fetches them through stage 2, whose faults are of class CD', () => {
    const vm = new TestSmmu().start();
    const root2 = vm.page(2);
    const root1 = vm.page();
    const cd = vm.page();
    const ipaCd = 0x80_0000_1000n;
    vm.ste(SID, {
      Config: STE_CONFIG.NESTED,
      S1ContextPtr: Number(ipaCd),
      ...vm.stage2Fields(root2),
    });
    expect(vm.fault(SID, IOVA, WRITE)).toEqual({
      name: 'F_TRANSLATION',
      StreamID: SID,
      S2: 1,
      IPA: Number(ipaCd),
      InputAddr: IOVA,
    });
    vm.cd(cd, { TTB0: root1 });
    vm.map(root2, ipaCd, BigInt(cd), S2_LEAF, 1);
    expect(vm.fault(SID, IOVA, WRITE)).toMatchObject({ name: 'F_TRANSLATION', CLASS: 1, IPA: root1 });
  });
});
