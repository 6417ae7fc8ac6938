import { describe, expect, it } from 'vitest';
import { ENABLES, READ, S1_LEAF, S2_LEAF, SID, TestSmmu } from '../../../test/support/smmu-unit.js';
import { ANY, NO_PASID } from '../../base/ids.js';
import { pack } from '../../spec/define.js';
import { CR0, GBPA, STRTAB_BASE, STRTAB_BASE_CFG } from '../../spec/smmuv3/registers.js';
import { STE, STE_CONFIG } from '../../spec/smmuv3/structures.js';
import {
  type DumpNode,
  type InvalidateScope,
  MAX_SPANS,
  SPAN_WORDS,
  type TranslateResult,
} from '../iommu.js';

const IOVA = 0x12_3456_7000n;

function enumerate(vm: TestSmmu, sid: number, from = 0n) {
  const spans = new Uint32Array(MAX_SPANS * SPAN_WORDS);
  const result: TranslateResult = { status: -1, count: 0, spans, space: 0, sub: 0, stall: 0 };
  const lo = Number(from & 0xffff_ffffn);
  const more = vm.model.survey.enumerate(sid, NO_PASID, lo, Number(from >> 32n), result);
  const found = [];
  for (let index = 0; index < result.count; index++) {
    const [inLo, inHi, outLo, , log2, permissions] = spans.subarray(index * SPAN_WORDS);
    found.push({ in: (BigInt(inHi) << 32n) | BigInt(inLo), out: outLo, log2, permissions });
  }
  return { more, found, status: result.status, space: result.space, sub: result.sub };
}

const scope = (fields: Partial<InvalidateScope>): InvalidateScope => ({
  space: ANY,
  sub: ANY,
  rid: ANY,
  pasid: ANY,
  lo: 0,
  hi: 0,
  log2Size: 64,
  ...fields,
});

/** Streams that a scope does not exclude, and that the model says it concerns. */
function concerned(vm: TestSmmu, fields: Partial<InvalidateScope>): number[] {
  const of = scope(fields);
  return [1, 2, 3].filter((rid) => (of.rid === ANY || of.rid === rid) && vm.model.spaces.concerns(of, rid));
}

describe('enumerate', () => {
  it('lists both halves of stage 1, contiguous pages joined', () => {
    const vm = new TestSmmu().start();
    const upper = vm.page();
    const { root } = vm.stage1(SID, { EPD1: 0, T1SZ: 16, TG1: 2, TTB1: upper });
    vm.map(root, 0x1000n, 0x40_0000n, S1_LEAF);
    vm.map(root, IOVA & ~0x1fffn, 0x40_2000n, S1_LEAF);
    vm.map(root, (IOVA & ~0x1fffn) + 0x1000n, 0x40_3000n, S1_LEAF | (1n << 7n));
    vm.map(upper, 0xffff_8000_0000_2000n, 0x50_0000n, S1_LEAF);
    vm.map(upper, 0xffff_8000_0000_3000n, 0x50_1000n, S1_LEAF);
    const all = enumerate(vm, SID);
    expect(all).toEqual({
      more: false,
      status: 0,
      space: 0,
      sub: 5,
      found: [
        { in: 0x1000n, out: 0x40_0000, log2: 12, permissions: 3 },
        { in: IOVA & ~0x1fffn, out: 0x40_2000, log2: 12, permissions: 3 },
        { in: (IOVA & ~0x1fffn) + 0x1000n, out: 0x40_3000, log2: 12, permissions: 1 },
        { in: 0xffff_8000_0000_2000n, out: 0x50_0000, log2: 13, permissions: 3 },
      ],
    });
    expect(enumerate(vm, SID, IOVA).found).toHaveLength(2);
    expect(enumerate(vm, SID, 0xffff_8000_0000_4000n).found).toEqual([]);
  });

  it('says that more follows, and goes on from there', () => {
    const vm = new TestSmmu().start();
    const root = vm.page(2);
    vm.ste(SID, { Config: STE_CONFIG.S2_TRANSLATE, ...vm.stage2Fields(root) });
    for (let page = 0n; page < 70n; page++) vm.map(root, page * 0x2000n, 0x1_0000n, S2_LEAF, 1);
    const first = enumerate(vm, SID);
    expect([first.more, first.found.length, first.space, first.sub]).toEqual([true, 64, 7, ANY]);
    const rest = enumerate(vm, SID, (first.found.at(-1)?.in ?? 0n) + 0x1000n);
    expect([rest.more, rest.found.length]).toEqual([false, 6]);
  });

  it('shows bypass as one span, and nothing where transactions abort', () => {
    const vm = new TestSmmu();
    expect(enumerate(vm, SID).found).toEqual([{ in: 0n, out: 0, log2: 48, permissions: 3 }]);
    vm.write32(GBPA.offset, 0x8010_0000);
    expect(enumerate(vm, SID)).toMatchObject({ status: 1, found: [] });
    vm.start();
    vm.ste(1, { Config: STE_CONFIG.BYPASS });
    expect(enumerate(vm, 1).found).toEqual([{ in: 0n, out: 0, log2: 48, permissions: 3 }]);
    expect(enumerate(vm, 2).status).toBe(1);
    expect(vm.recorded()).toEqual([]);
  });
});

describe('concerns', () => {
  it('goes by VMID and ASID, by what is cached too, and never rules out substreams', () => {
    const vm = new TestSmmu().start();
    vm.stage1(1, { ASID: 5 }, { S2VMID: 7 });
    vm.stage1(2, { ASID: 6 }, { S2VMID: 7 });
    vm.ste(3, { Config: STE_CONFIG.S2_TRANSLATE, ...vm.stage2Fields(vm.page(2), 8) });
    expect(concerned(vm, {})).toEqual([1, 2, 3]);
    expect(concerned(vm, { space: 7 })).toEqual([1, 2]);
    expect(concerned(vm, { space: 7, sub: 6 })).toEqual([2]);
    expect(concerned(vm, { space: 8 })).toEqual([3]);
    expect(concerned(vm, { rid: 3 })).toEqual([3]);
    vm.ste(3, { Config: STE_CONFIG.ABORT });
    expect(concerned(vm, { space: 8 })).toEqual([3]);
    vm.stage1(1, { ASID: 5 }, { S2VMID: 7, S1CDMax: 4 });
    expect(concerned(vm, { space: 99 })).toEqual([1]);
  });
});

describe('dump', () => {
  const labels = (nodes: readonly DumpNode[] = []): string[] =>
    nodes.flatMap((node) => [node.label, ...labels(node.children)]);

  it('names registers, streams, substreams and ranges', () => {
    const vm = new TestSmmu().start();
    const { root } = vm.stage1(SID);
    vm.map(root, 0x1000n, 0x40_0000n, S1_LEAF);
    vm.map(root, 0x2000n, 0x40_1000n, S1_LEAF);
    vm.ste(1, { Config: STE_CONFIG.BYPASS });
    const before = vm.memory.peek(root);
    const nodes = vm.model.dumper.dump({ registers: true, tables: true, maxLeaves: 8 });
    const text = labels(nodes);
    expect(text).toContain('SMMU_CR0ACK');
    expect(text).toContain('linear stream table at 0x8000');
    expect(text).toContain('STE 00:03.0');
    expect(text).toContain('0x0000000000001000-0x0000000000002fff');
    expect(text.filter((label) => label.startsWith('STE'))).toHaveLength(2);
    expect(vm.memory.peek(root)).toBe(before);
    const one = vm.model.dumper.dump({ registers: false, tables: true, rid: 1, maxLeaves: 8 });
    expect(labels(one)).toEqual(['linear stream table at 0x8000', 'STE 00:00.1', 'no SubstreamID']);
    expect(vm.translate(SID, 0x1000n, READ).ok).toBe(true);
  });

  it('says once that neighbours abort, and shows one that stands alone or is asked for', () => {
    const vm = new TestSmmu().start();
    for (const sid of [0, 1, 2, 6]) vm.ste(sid, { Config: STE_CONFIG.ABORT });
    vm.ste(3, { Config: STE_CONFIG.BYPASS });
    const [table] = vm.model.dumper.dump({ registers: false, tables: true, maxLeaves: 8 });
    expect(table.children?.map(({ label, note }) => [label, note])).toEqual([
      ['STE 00:00.0-00:00.2', '3 entries: abort'],
      ['STE 00:00.3', undefined],
      ['STE 00:00.6', undefined],
    ]);
    expect(table.children?.[2]).toMatchObject({ raw: '0x0000000000000001', fields: { Config: '0 (abort)' } });
    const [one] = vm.model.dumper.dump({ registers: false, tables: true, rid: 1, maxLeaves: 8 });
    expect(one.children?.map(({ label }) => label)).toEqual(['STE 00:00.1']);
  });

  const table = (vm: TestSmmu): DumpNode =>
    vm.model.dumper.dump({ registers: false, tables: true, maxLeaves: 8 })[0];

  it('prints raw words by the width of what they are, the highest that says something first', () => {
    const vm = new TestSmmu().start();
    const [{ children: registers = [] }] = vm.model.dumper.dump({
      registers: true,
      tables: false,
      maxLeaves: 1,
    });
    const raw = (name: string) => registers.find(({ label }) => label === name)?.raw;
    expect([raw('SMMU_CR0'), raw('SMMU_STRTAB_BASE')]).toEqual(['0x0000000d', '0x0000000000008000']);
    vm.ste(SID, { Config: STE_CONFIG.S2_TRANSLATE, ...vm.stage2Fields(vm.page(2)) });
    const words = table(vm).children?.[0].raw?.split(' ');
    expect(words).toHaveLength(4);
    expect(words?.at(-1)).toBe('0x000000000000000d');
  });

  it('prints what each substream has, or why it has nothing', () => {
    const vm = new TestSmmu().start();
    const contexts = vm.page();
    const root = vm.page();
    vm.cd(contexts, { TTB0: root, ASID: 8, EPD1: 0, T1SZ: 16, TG1: 2, TTB1: vm.page() });
    vm.cd(contexts + 5 * 64, { TTB0: root, ASID: 9 });
    vm.cd(contexts + 15 * 64, { TTB0: root, ASID: 10 });
    vm.ste(SID, { Config: STE_CONFIG.S1_TRANSLATE, S1ContextPtr: contexts, S1CDMax: 4 });
    vm.map(root, 0x1000n, 0x40_0000n, S1_LEAF);
    const [stream] = table(vm).children ?? [];
    expect(stream.note).toBeUndefined();
    const found = stream.children?.map(({ label, note, fields }) => [label, note, fields?.['ASID']]);
    expect(found).toEqual([
      ['no SubstreamID', 'F_STREAM_DISABLED', undefined],
      ['SubstreamID 0x5', undefined, 9],
      ['SubstreamID 0xf', undefined, 10],
    ]);
    expect(stream.children?.[1].children).toMatchObject([{ children: [{ fields: { pages: 1 } }] }]);
    // Requests without SubstreamID take the first descriptor, which has two halves.
    vm.ste(SID, { Config: STE_CONFIG.S1_TRANSLATE, S1ContextPtr: contexts, S1CDMax: 4, S1DSS: 2 });
    expect(table(vm).children?.[0].children?.[0]).toMatchObject({ fields: { ASID: 8 }, children: [{}, {}] });
    vm.cd(contexts, { V: 0 });
    expect(table(vm).children?.[0].children?.[0]).toEqual({ label: 'no SubstreamID', note: 'C_BAD_CD' });
    vm.ste(SID, { Config: STE_CONFIG.ABORT });
    expect(table(vm).children?.[0].children).toEqual([{ label: 'no SubstreamID', note: 'aborted' }]);
  });

  it('looks for no substreams where there are none', () => {
    const vm = new TestSmmu({ 'ssid-bits': '0' }).start();
    vm.stage1(SID);
    expect(labels(table(vm).children?.[0].children)).toEqual(['no SubstreamID', expect.any(String)]);
  });

  it('ends after 64 substreams of a stream and 512 streams, and says how many more there are', () => {
    const vm = new TestSmmu();
    const streams = vm.page(16);
    vm.start();
    vm.write32(CR0.offset, 0);
    vm.write64(STRTAB_BASE.offset, streams);
    vm.write32(STRTAB_BASE_CFG.offset, 10);
    vm.write32(CR0.offset, ENABLES.ALL);
    for (let sid = 0; sid < 515; sid++)
      vm.store(streams + sid * 64, pack(STE, { V: 1, Config: STE_CONFIG.BYPASS }));
    vm.store(streams + 513 * 64, new Uint32Array(16));
    const { children = [], note } = table(vm);
    expect([children.length, note]).toEqual([512, '2 more streams']);
    const contexts = vm.page(2);
    for (let ssid = 1; ssid < 67; ssid++) vm.cd(contexts + ssid * 64, { TTB0: 0x1000 });
    const s1 = { V: 1, Config: STE_CONFIG.S1_TRANSLATE, S1ContextPtr: contexts, S1CDMax: 7 };
    vm.store(streams, pack(STE, s1));
    const [stream] = table(vm).children ?? [];
    expect([stream.children?.length, stream.note]).toEqual([65, '2 more substreams']);
  });

  it('gives up looking for substreams in tables that claim to be large', () => {
    const vm = new TestSmmu().start();
    // Two levels, the first of which is empty.
    const large = { S1ContextPtr: vm.page(), S1CDMax: 16, S1Fmt: 1 };
    for (const sid of [1, 2, 3]) vm.ste(sid, { Config: STE_CONFIG.S1_TRANSLATE, ...large });
    const looks = (1 << 17) - 2 * 0xffff;
    expect(table(vm).children?.map(({ note }) => note)).toEqual([
      undefined,
      undefined,
      `gave up looking for substreams at 0x${looks + 1}`,
    ]);
  });
});
