import { describe, expect, it } from 'vitest';
import {
  AF,
  AP_READ_ONLY,
  AP_USER,
  cfgiSte,
  ENABLES,
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
  tlbi,
  WRITE,
} from '../../../test/support/smmu-unit.js';
import { NO_PASID } from '../../base/ids.js';
import { CMD } from '../../spec/smmuv3/commands.js';
import { CR0 } from '../../spec/smmuv3/registers.js';
import { CD, EATS, S1DSS, STE_CONFIG } from '../../spec/smmuv3/structures.js';
import { REQUEST, TRANSLATE_STATUS } from '../iommu.js';

const IOVA = 0x12_3456_7000n;
const OUT = 0x40_0000n;
const IPA = 0x33_3333_3000n;
const UXN = 1n << 54n;
const DBM = 1n << 51n;
const WRITABLE_CLEAN = PAGE | AF | NG | AP_USER | AP_READ_ONLY | DBM;
const { OK, FAULT, COMPLETER_ABORT } = TRANSLATE_STATUS;
const SAFE = ENABLES.ALL | ENABLES.ATSCHK;

const ask = (vm: TestSmmu, address: bigint, access = READ, ssid = NO_PASID, sid = SID) =>
  vm.ask(sid, address, access, ssid, REQUEST.TRANSLATION);
const use = (vm: TestSmmu, address: bigint, access = READ, ssid = NO_PASID, sid = SID) =>
  vm.ask(sid, address, access, ssid, REQUEST.TRANSLATED);

/** Stage 1, or both, with a mapped page and ATS. */
function attached(
  options: Record<string, string> = {},
  cd: Record<string, number> = {},
  ste: Record<string, number> = {},
  leaf = S1_LEAF,
) {
  const vm = new TestSmmu({ ats: 'on', ...options }).start();
  const tables = vm.stage1(SID, cd, { EATS: EATS.FULL, ...ste });
  const entry = vm.map(tables.root, IOVA, OUT, leaf);
  return { vm, ...tables, entry };
}

function nested(eats: number, enables: number = SAFE, leaf2 = S2_LEAF) {
  const vm = new TestSmmu({ ats: 'on' }).start(enables);
  const root2 = vm.page(2);
  const both = { Config: STE_CONFIG.NESTED, ...vm.stage2Fields(root2), EATS: eats };
  const tables = vm.stage1(SID, {}, both);
  const entry = vm.map(tables.root, IOVA, IPA, S1_LEAF);
  for (let page = 0x10_0000; page < 0x18_0000; page += 4096) {
    vm.map(root2, BigInt(page), BigInt(page), S2_LEAF, 1);
  }
  const entry2 = vm.map(root2, IPA, OUT, leaf2, 1);
  return { vm, root2, entry, entry2, both, ...tables };
}

describe('a translation request', () => {
  it('is answered from the tables, and from the TLB', () => {
    const { vm } = attached();
    expect(ask(vm, IOVA + 0x123n, WRITE)).toEqual({
      ...{ status: OK, stall: 0, output: OUT, log2: 12, space: 0 },
      permissions: READ | WRITE,
    });
    const { walks } = vm.model.counters;
    expect(ask(vm, IOVA, WRITE).output).toBe(OUT);
    expect(vm.translate(SID, IOVA, READ).out).toBe(OUT);
    expect(vm.model.counters.walks).toBe(walks);
  });

  it('sees what was not invalidated, as transactions do', () => {
    const { vm, entry } = attached();
    ask(vm, IOVA);
    vm.memory.poke(entry, 0x50_0000n | S1_LEAF);
    expect(ask(vm, IOVA).output).toBe(OUT);
    vm.submit(tlbi(CMD.TLBI_NH_ASID, { ASID: 5 }));
    expect(ask(vm, IOVA).output).toBe(0x50_0000n);
  });

  it.each([
    ['read-only', S1_LEAF | AP_READ_ONLY, WRITE, READ],
    ['not for the unprivileged', PAGE | AF | NG, WRITE, 0],
    ['writable, not asked for', S1_LEAF, READ, READ | WRITE],
    ['executable, but without a PASID', S1_LEAF, EXECUTE, READ | WRITE],
  ])('gets what is allowed: %s', (_name, leaf, access, permissions) => {
    const { vm } = attached({}, {}, {}, leaf);
    expect(ask(vm, IOVA, access)).toMatchObject({ status: OK, permissions });
    expect(vm.recorded()).toEqual([]);
  });

  it.each([
    [S1_LEAF, EXECUTE, READ | WRITE | EXECUTE],
    [S1_LEAF | UXN, EXECUTE, READ | WRITE],
    [PAGE | AF | NG, WRITE | PRIVILEGED, READ | WRITE],
    // Only execution is allowed to the unprivileged, which a completion can't say.
    [PAGE | AF | NG, EXECUTE, 0],
  ])('with a PASID also asks to execute, and with privilege (%x, %i)', (leaf, access, permissions) => {
    const vm = new TestSmmu({ ats: 'on' }).start();
    const table = vm.page();
    const root = vm.page();
    vm.map(root, IOVA, OUT, leaf);
    vm.cd(table + 3 * CD.bytes, { TTB0: root, ASID: 9 });
    const ste = { Config: STE_CONFIG.S1_TRANSLATE, S1ContextPtr: table, S1CDMax: 2, EATS: EATS.FULL };
    vm.ste(SID, ste);
    expect(ask(vm, IOVA, access, 3)).toMatchObject({ status: OK, permissions });
  });

  it('for what is not mapped gets nothing, of the smallest unit, and records nothing', () => {
    const { vm, entry, root } = attached({ granules: '16k,64k' }, { TG0: 2, T0SZ: 17 });
    expect(root).toBeGreaterThan(0);
    expect(ask(vm, 0x8_0000n)).toMatchObject({ status: OK, permissions: 0, log2: 14 });
    const usual = attached();
    for (const leaf of [0n, OUT | PAGE | AP_USER, (1n << 47n) | S1_LEAF]) {
      usual.vm.memory.poke(usual.entry, leaf);
      usual.vm.cd(usual.cd, { TTB0: usual.root, ASID: 5, IPS: 2, S: 1 });
      expect(ask(usual.vm, IOVA)).toMatchObject({ status: OK, permissions: 0, log2: 12 });
    }
    expect(ask(usual.vm, 1n << 55n)).toMatchObject({ status: OK, permissions: 0 });
    expect([vm.recorded(), usual.vm.recorded(), usual.vm.model.counters.faults]).toEqual([[], [], 0]);
    expect(entry).toBeGreaterThan(0);
  });

  it('sets the Access flag, and the dirty state only when it asks to write', () => {
    const leaf = OUT | (WRITABLE_CLEAN & ~AF);
    const { vm, entry } = attached({}, { HA: 1, HD: 1 });
    vm.memory.poke(entry, leaf);
    expect(ask(vm, IOVA)).toMatchObject({ permissions: READ });
    expect(vm.memory.peek(entry)).toBe(leaf | AF);
    expect(ask(vm, IOVA, WRITE)).toMatchObject({ permissions: READ | WRITE });
    expect(vm.memory.peek(entry)).toBe((leaf | AF) & ~AP_READ_ONLY);
    // Dirty already: writing changes nothing, and is granted unasked.
    expect(ask(vm, IOVA)).toMatchObject({ permissions: READ | WRITE });
  });

  it('sets no flag of a page that it may not use', () => {
    const leaf = OUT | PAGE | NG | DBM | AP_READ_ONLY;
    const { vm, entry } = attached({}, { HA: 1, HD: 1 });
    vm.memory.poke(entry, leaf);
    expect(ask(vm, IOVA, WRITE)).toMatchObject({ status: OK, permissions: 0 });
    expect(vm.memory.peek(entry)).toBe(leaf);
  });

  it('is refused, and recorded, where ATS is not allowed', () => {
    const { vm } = attached({}, {}, { EATS: EATS.NONE });
    vm.stage1(SID + 1, {}, { EATS: EATS.DPT });
    vm.ste(SID + 2, { Config: STE_CONFIG.BYPASS, EATS: EATS.FULL });
    for (const sid of [SID, SID + 1, SID + 2]) {
      expect(ask(vm, IOVA + 5n, WRITE, NO_PASID, sid).status).toBe(FAULT);
      expect(vm.recorded()).toEqual([
        { name: 'F_BAD_ATS_TREQ', StreamID: sid, Span: 1, R: 1, W: 1, InputAddr: IOVA },
      ]);
    }
    ask(vm, IOVA, EXECUTE | PRIVILEGED, 5);
    expect(vm.recorded()).toMatchObject([{ SSV: 1, SubstreamID: 5, R: 1, X: 1, P: 1 }]);
    vm.write32(CR0.offset, ENABLES.EVENTQEN);
    expect(ask(vm, IOVA).status).toBe(FAULT);
    expect(vm.recorded()).toMatchObject([{ name: 'F_BAD_ATS_TREQ' }]);
  });

  it('is refused silently by a stream that aborts, and without IDR0.ATS', () => {
    const { vm } = attached();
    vm.ste(SID + 1, { Config: STE_CONFIG.ABORT, EATS: EATS.FULL });
    expect(ask(vm, IOVA, READ, NO_PASID, SID + 1).status).toBe(FAULT);
    const without = attached({ ats: 'off' }).vm;
    expect(ask(without, IOVA).status).toBe(FAULT);
    expect([vm.recorded(), without.recorded()]).toEqual([[], []]);
  });

  it('is aborted, and not recorded, where the configuration is wrong', () => {
    const { vm, root, cd } = attached();
    vm.ste(SID + 1, { V: 0 });
    vm.ste(SID + 2, { Config: STE_CONFIG.S1_TRANSLATE, S1ContextPtr: RAM_BYTES, EATS: EATS.FULL });
    vm.stage1(SID + 3, { V: 0 }, { EATS: EATS.FULL });
    vm.stage1(SID + 4, {}, { S1CDMax: 1, S1DSS: S1DSS.TERMINATE, EATS: EATS.FULL });
    for (const sid of [SID + 1, SID + 2, SID + 3, SID + 4, 0x100]) {
      expect(ask(vm, IOVA, READ, NO_PASID, sid).status).toBe(COMPLETER_ABORT);
    }
    expect(ask(vm, IOVA, READ, 7).status).toBe(COMPLETER_ABORT);
    vm.memory.poke(root, BigInt(RAM_BYTES) | PAGE);
    expect(ask(vm, IOVA).status).toBe(COMPLETER_ABORT);
    expect(vm.recorded()).toEqual([]);
    expect(cd).toBeGreaterThan(0);
  });

  it('skips stage 1 where S1DSS says so', () => {
    const { vm } = attached({}, {}, { S1CDMax: 1, S1DSS: S1DSS.BYPASS });
    expect(ask(vm, IOVA)).toMatchObject({ output: 0n, log2: 48, permissions: READ | WRITE });
    expect(ask(vm, 1n << 48n)).toMatchObject({ status: OK, permissions: 0 });
  });
});

describe('a translation request through both stages', () => {
  it('gives the physical address with full ATS, with what both allow', () => {
    const { vm } = nested(EATS.FULL, ENABLES.ALL, PAGE | AF | (1n << 6n));
    expect(ask(vm, IOVA, WRITE)).toMatchObject({ output: OUT, permissions: READ, space: 7 });
  });

  it('gives the intermediate one with split-stage ATS, with what both allow', () => {
    const { vm } = nested(EATS.SPLIT, SAFE, PAGE | AF | (1n << 6n));
    expect(ask(vm, IOVA + 0x10n, WRITE)).toMatchObject({ output: IPA, permissions: READ, log2: 12 });
    // Without checks split-stage ATS is none.
    vm.write32(CR0.offset, ENABLES.ALL);
    expect(ask(vm, IOVA).status).toBe(FAULT);
    expect(vm.recorded()).toMatchObject([{ name: 'F_BAD_ATS_TREQ' }]);
  });

  it('is denied, not faulted, by stage 2, on tables and descriptors too', () => {
    for (const at of ['output', 'table', 'descriptor'] as const) {
      const { vm, root2, root, cd, entry2 } = nested(EATS.FULL);
      const address = at === 'table' ? root : cd;
      if (at === 'output') vm.memory.poke(entry2, 0n);
      else vm.memory.poke(vm.map(root2, BigInt(address), BigInt(address), S2_LEAF, 1), 0n);
      expect(ask(vm, IOVA)).toMatchObject({ status: OK, permissions: 0 });
      expect(vm.recorded()).toEqual([]);
    }
  });

  it('does not see an abort of stage 2 behind what stage 1 denies', () => {
    const { vm, root2, entry } = nested(EATS.FULL);
    vm.memory.poke(root2 + Number(IPA >> 30n) * 8, BigInt(RAM_BYTES) | PAGE);
    expect(ask(vm, IOVA).status).toBe(COMPLETER_ABORT);
    vm.memory.poke(entry, IPA | PAGE | AF | NG);
    expect(ask(vm, IOVA)).toMatchObject({ status: OK, permissions: 0 });
  });

  it('is of stage 1 alone with split-stage ATS, also where the TLB knows both', () => {
    const { vm } = nested(EATS.SPLIT);
    expect(vm.translate(SID, IOVA, READ).out).toBe(OUT);
    expect(ask(vm, IOVA)).toMatchObject({ status: OK, output: IPA });
  });

  it.each([
    [EATS.FULL, OUT],
    [EATS.SPLIT, IPA],
  ])('is of stage 2 alone where S1DSS skips stage 1 (EATS %i)', (eats, output) => {
    const { vm, both, cd } = nested(eats);
    vm.ste(SID, { ...both, S1ContextPtr: cd, S1CDMax: 1, S1DSS: S1DSS.BYPASS });
    expect(ask(vm, IPA, WRITE)).toMatchObject({ output, permissions: READ | WRITE, log2: 12 });
    expect(ask(vm, 1n << 48n)).toMatchObject({ status: OK, permissions: 0 });
  });
});

describe('a translated transaction', () => {
  it('passes without looking while ATSCHK is clear, within OAS', () => {
    const { vm } = attached();
    expect(use(vm, 0xdead_0000n, WRITE, NO_PASID, 0x100)).toMatchObject({
      status: OK,
      output: 0n,
      log2: 48,
      permissions: READ | WRITE,
    });
    expect(use(vm, 1n << 48n).status).toBe(FAULT);
    expect(vm.recorded()).toEqual([]);
  });

  it('passes with ATSCHK where STE.EATS allows ATS', () => {
    const { vm } = attached();
    vm.write32(CR0.offset, SAFE);
    expect(use(vm, 0xdead_0000n)).toMatchObject({ status: OK, log2: 48 });
    // A PASID on it is not looked at (PASIDTT is clear).
    expect(use(vm, 0xdead_0000n, WRITE, 77).status).toBe(OK);
  });

  it('is forbidden where it is not, and while the SMMU is off', () => {
    const { vm } = attached({}, {}, { EATS: EATS.NONE });
    vm.ste(SID + 1, { Config: STE_CONFIG.BYPASS, EATS: EATS.FULL });
    vm.write32(CR0.offset, SAFE);
    for (const sid of [SID, SID + 1]) {
      expect(use(vm, IOVA + 5n, READ | EXECUTE | PRIVILEGED, 9, sid).status).toBe(FAULT);
      expect(vm.recorded()).toEqual([
        { name: 'F_TRANSL_FORBIDDEN', StreamID: sid, RnW: 1, InputAddr: IOVA + 5n },
      ]);
    }
    vm.write32(CR0.offset, ENABLES.EVENTQEN);
    expect(use(vm, IOVA, WRITE).status).toBe(FAULT);
    expect(vm.recorded()).toEqual([{ name: 'F_TRANSL_FORBIDDEN', StreamID: SID, InputAddr: IOVA }]);
  });

  it('is aborted silently where the stream aborts or its configuration is wrong, and without IDR0.ATS', () => {
    const { vm } = attached();
    vm.write32(CR0.offset, SAFE);
    vm.ste(SID + 1, { Config: STE_CONFIG.ABORT });
    vm.ste(SID + 2, { V: 0 });
    for (const sid of [SID + 1, SID + 2, 0x100]) {
      expect(use(vm, IOVA, READ, NO_PASID, sid).status).toBe(FAULT);
    }
    const without = attached({ ats: 'off' }).vm;
    expect(use(without, IOVA).status).toBe(FAULT);
    expect([vm.recorded(), without.recorded()]).toEqual([[], []]);
  });

  it.each([0, 1])('has its faults of stage 2 merged where MEV (%i) allows it', (MEV) => {
    const { vm, both, cd } = nested(EATS.SPLIT);
    vm.ste(SID, { ...both, S1ContextPtr: cd, MEV });
    for (let n = 0; n < 3; n++) expect(use(vm, IPA + 0x1000n).status).toBe(FAULT);
    expect(vm.recorded()).toHaveLength(MEV === 1 ? 1 : 3);
  });

  it('goes through stage 2 with split-stage ATS, whose faults are recorded', () => {
    const { vm, entry2, both, cd } = nested(EATS.SPLIT);
    expect(use(vm, IPA + 0x10n, WRITE)).toMatchObject({ status: OK, output: OUT, log2: 12, space: 7 });
    expect(use(vm, IPA + 0x1000n, WRITE, 5).status).toBe(FAULT);
    expect(vm.recorded()).toEqual([
      {
        ...{ name: 'F_TRANSLATION', StreamID: SID, S2: 1, CLASS: 2 },
        ...{ InputAddr: IPA + 0x1000n, IPA: Number(IPA + 0x1000n) },
      },
    ]);
    expect(use(vm, 1n << 48n).status).toBe(FAULT);
    expect(vm.recorded()).toMatchObject([{ name: 'F_ADDR_SIZE' }]);
    // The same TLB entries as of a stream with stage 2 alone.
    vm.memory.poke(entry2, 0n);
    expect(use(vm, IPA, WRITE).status).toBe(OK);
    vm.submit(tlbi(CMD.TLBI_S2_IPA, { VMID: 7, High: 0x33, Address: 0x3333_3000 }));
    expect(use(vm, IPA, WRITE).status).toBe(FAULT);
    vm.recorded();
    vm.ste(SID, { ...both, S1ContextPtr: cd, S2R: 0 });
    vm.submit(cfgiSte());
    expect(use(vm, IPA, WRITE).status).toBe(FAULT);
    expect(vm.recorded()).toEqual([]);
  });
});
