import { describe, expect, it } from 'vitest';
import { contextEntry, READ, TestMachine, WRITE } from '../../../test/support/vtd-unit.js';
import { ANY, NO_PASID } from '../../base/ids.js';
import { type DumpNode, emptyResult, type TranslateResult } from '../iommu.js';

const RID = 0x18;
const PWSNP = 1n << 23n;

function enumerate(vm: TestMachine, rid: number, from = 0n, pasid = NO_PASID) {
  const result: TranslateResult = emptyResult();
  const lo = Number(from & 0xffffffffn);
  const more = vm.model.survey.enumerate(rid, pasid, lo, Number(from >> 32n), result);
  return { more, ...vm.describe(result, 0n) };
}

function legacy() {
  const vm = new TestMachine();
  const root = vm.page();
  vm.context(RID, ...contextEntry(root, 5));
  vm.setRoot(0);
  vm.enable();
  return { vm, root };
}

describe('enumerate', () => {
  it('is the identity while translation is off and for pass-through', () => {
    const vm = new TestMachine();
    expect(enumerate(vm, RID)).toMatchObject({ more: false, count: 1, spans: [{ in: 0n, log2: 64 }] });
    expect(enumerate(vm, RID, 0x1000n).count).toBe(0);
    vm.context(RID, ...contextEntry(0, 3, { tt: 2 }));
    vm.setRoot(0);
    vm.enable();
    expect(enumerate(vm, RID)).toMatchObject({ count: 1, space: 3, spans: [{ log2: 64, permissions: 3 }] });
  });

  it('joins contiguous pages into aligned blocks, ascending', () => {
    const { vm, root } = legacy();
    for (let page = 3n; page < 21n; page++) vm.mapSecond(root, 4, page * 4096n, 0x10_0000n + page * 4096n);
    vm.mapSecond(root, 4, 0x40_0000n, 0x80_0000n, 2, 1n);
    const found = enumerate(vm, RID);
    expect(found.more).toBe(false);
    expect(found.spans.map((span) => [span.in, span.log2, span.permissions])).toEqual([
      [0x3000n, 12, 3],
      [0x4000n, 14, 3],
      [0x8000n, 15, 3],
      [0x1_0000n, 14, 3],
      [0x1_4000n, 12, 3],
      [0x40_0000n, 21, 1],
    ]);
  });

  it('joins blocks of 4 GiB and more', () => {
    const { vm, root } = legacy();
    for (let page = 8n; page < 17n; page++) vm.mapSecond(root, 4, page << 30n, (page + 8n) << 30n, 3);
    expect(enumerate(vm, RID).spans).toMatchObject([
      { in: 8n << 30n, out: 16n << 30n, log2: 33 },
      { in: 16n << 30n, out: 24n << 30n, log2: 30 },
    ]);
  });

  it('goes on where it stopped', () => {
    const { vm, root } = legacy();
    for (let page = 0n; page < 150n; page++) vm.mapSecond(root, 4, page * 8192n, page * 4096n);
    const inputs: bigint[] = [];
    let from = 0n;
    for (let round = 0; round < 10; round++) {
      const found = enumerate(vm, RID, from);
      for (const span of found.spans) inputs.push(span.in);
      if (!found.more) break;
      from = (found.spans.at(-1)?.in ?? 0n) + 4096n;
    }
    expect(inputs).toEqual(Array.from({ length: 150 }, (_, page) => BigInt(page) * 8192n));
  });

  it('tells of what a model lets through where it may set no bit', () => {
    const vm = new TestMachine();
    const { directory } = vm.scalableContext(RID, { paside: true });
    const root = vm.page();
    const leaf = vm.mapFirst(root, 4, 0x1000n, 0x50_0000n);
    vm.pasidEntry(directory, 4, 1n | (1n << 6n), 1n, BigInt(root));
    vm.setRoot(1);
    vm.enable();
    expect(enumerate(vm, RID, 0n, 4)).toMatchObject({ ok: true, count: 0 });
    // Some walk that may sets them.
    vm.pasidEntry(directory, 5, 1n | (1n << 6n), 1n | PWSNP, BigInt(root));
    vm.translate(RID, 0x1000n, READ, 5);
    expect(enumerate(vm, RID, 0n, 4).spans).toMatchObject([{ out: 0x50_0000n, permissions: READ }]);
    vm.translate(RID, 0x1000n, WRITE, 5);
    expect(enumerate(vm, RID, 0n, 4).spans).toMatchObject([{ permissions: READ | WRITE }]);
    expect(vm.memory.peek(leaf)).toBe(0x50_0067n);
  });

  it('never faults, never sets A or D, reads tables afresh', () => {
    const vm = new TestMachine();
    const { directory } = vm.scalableContext(RID, { paside: true });
    const root = vm.page();
    const leaf = vm.mapFirst(root, 4, 0x1000n, 0x50_0000n);
    vm.pasidEntry(directory, 4, 1n | (1n << 6n), 1n | PWSNP, BigInt(root));
    vm.setRoot(1);
    vm.enable();
    expect(enumerate(vm, RID).ok).toBe(false);
    expect(enumerate(vm, RID, 0n, 4)).toMatchObject({ count: 1, space: 1, sub: 4 });
    expect(vm.memory.peek(leaf)).toBe(0x50_0007n);
    vm.mapFirst(root, 4, 0x1000n, 0x60_0000n);
    expect(enumerate(vm, RID, 0n, 4).spans[0].out).toBe(0x60_0000n);
    expect(vm.events.filter((event) => event.kind === 'fault')).toEqual([]);
  });

  it('ends in bounded time on tables that refer to themselves', () => {
    const { vm, root } = legacy();
    for (let index = 0; index < 512; index++) vm.entry(root + index * 8, BigInt(root) | 3n);
    const found = enumerate(vm, RID);
    expect(found.count).toBeGreaterThan(0);
  });
});

describe('concerns', () => {
  const everything = { space: ANY, sub: ANY, rid: ANY, pasid: ANY, lo: 0, hi: 0, log2Size: 64 };
  const of = (vm: TestMachine, scope: Partial<typeof everything>): number[] => {
    const all = { ...everything, ...scope };
    return [0x18, 0x20, 0x28].filter(
      (rid) => (all.rid === ANY || all.rid === rid) && vm.model.spaces.concerns(all, rid),
    );
  };

  it('by requester and by domain in legacy mode', () => {
    const { vm } = legacy();
    vm.context(0x20, ...contextEntry(0, 6, { tt: 2 }));
    expect(of(vm, {})).toEqual([0x18, 0x20, 0x28]);
    expect(of(vm, { rid: 0x28 })).toEqual([0x28]);
    expect(of(vm, { space: 5 })).toEqual([0x18]);
    expect(of(vm, { space: 6 })).toEqual([0x20]);
    expect(of(vm, { space: 7 })).toEqual([]);
  });

  it('counts what the context-cache still holds', () => {
    const { vm } = legacy();
    vm.translate(RID, 0x1000n, READ);
    vm.context(RID, 0n, 0n);
    expect(of(vm, { space: 5 })).toEqual([0x18]);
  });
});

function find(nodes: readonly DumpNode[], label: string): DumpNode | undefined {
  for (const node of nodes) {
    if (node.label.startsWith(label)) return node;
    const found = find(node.children ?? [], label);
    if (found) return found;
  }
  return undefined;
}

const tree = (vm: TestMachine, rid?: number): DumpNode =>
  vm.model.dumper.dump({
    registers: false,
    tables: true,
    maxLeaves: 4,
    ...(rid !== undefined && { rid }),
  })[0];

describe('dump', () => {
  it('prints registers with named bits and faults with their reason', () => {
    const { vm } = legacy();
    vm.translate(RID, 0x7000n, WRITE);
    const nodes = vm.model.dumper.dump({ registers: true, tables: false, maxLeaves: 10 });
    expect(find(nodes, 'GSTS_REG')).toMatchObject({
      raw: '0xc0000000',
      fields: { TES: 1, RTPS: 1, QIES: 0 },
    });
    expect(find(nodes, 'RTADDR_REG')).toMatchObject({ fields: { RTA: '0x1000', TTM: '0 (legacy)' } });
    expect(find(nodes, 'FRCD_REG[0]')?.fields).toMatchObject({
      SID: 0x18,
      FI: '0x7000',
      FR: '0x5 LGN.2: no write permission',
    });
    expect(find(nodes, 'FRCD_REG[1]')).toBeUndefined();
  });

  it('prints the legacy tree with joined ranges', () => {
    const { vm, root } = legacy();
    for (let page = 0n; page < 5n; page++) vm.mapSecond(root, 4, page * 4096n, 0x10_0000n + page * 4096n);
    vm.mapSecond(root, 4, 0x4000_0000n, 0x80_0000n, 2, 1n);
    const nodes = vm.model.dumper.dump({ registers: false, tables: true, maxLeaves: 10 });
    expect(find(nodes, 'context 00:03.0')?.fields).toMatchObject({ DID: 5, AW: '2 (48-bit)' });
    expect(find(nodes, 'second-stage 4-level')?.children).toEqual([
      {
        label: '0x0000000000000000-0x0000000000004fff',
        fields: { to: '0x0000000000100000', access: 'rw', page: '4 KiB', pages: 5 },
      },
      {
        label: '0x0000000040000000-0x00000000401fffff',
        fields: { to: '0x0000000000800000', access: 'r-', page: '2 MiB', pages: 1 },
      },
    ]);
    expect(find(nodes, 'second-stage 4-level')).not.toHaveProperty('note');
    // The same size and place, with other rights.
    vm.mapSecond(root, 4, 0x5000n, 0x10_5000n, 1, 2n);
    expect(find([tree(vm)], 'second-stage 4-level')?.children).toMatchObject([
      { fields: { access: 'rw', pages: 5 } },
      { fields: { access: '-w', pages: 1 } },
      {},
    ]);
    const short = vm.model.dumper.dump({ registers: false, tables: true, maxLeaves: 1 });
    expect(find(short, 'second-stage')).toMatchObject({ note: 'more translations above' });
  });

  it('prints PASID entries and why a requester is blocked', () => {
    const vm = new TestMachine();
    const { directory } = vm.scalableContext(0x0198, { paside: true, ridPasid: 2 });
    const root = vm.page();
    vm.mapFirst(root, 5, 0x1000n, 0x50_0000n);
    vm.pasidEntry(directory, 2, 1n | (4n << 6n), 1n);
    vm.pasidEntry(directory, 70, 1n | (1n << 6n), 3n | PWSNP, BigInt(root) | 4n);
    vm.pasidEntry(directory, 71, 1n);
    vm.setRoot(1);
    vm.enable();
    const nodes = vm.model.dumper.dump({ registers: false, tables: true, maxLeaves: 10, rid: 0x0198 });
    expect(find(nodes, 'PASID 0x2 (RID_PASID)')?.children).toEqual([{ label: 'pass-through' }]);
    expect(find(nodes, 'PASID 0x46')?.fields).toMatchObject({ PGTT: '1 (first-stage)', DID: 3 });
    expect(find(nodes, 'first-stage 5-level')?.children).toHaveLength(1);
    expect(find(nodes, 'blocked')).toMatchObject({ note: expect.stringMatching(/SPT\.4/) });
  });

  const labels = (nodes: readonly DumpNode[] = []): string[] => nodes.map(({ label }) => label);

  it('prints raw words by the width of what they are, the highest first', () => {
    const { vm } = legacy();
    vm.translate(RID, 0x7000n, WRITE);
    const nodes = vm.model.dumper.dump({ registers: true, tables: false, maxLeaves: 10 });
    expect(find(nodes, 'RTADDR_REG')?.raw).toBe('0x0000000000001000');
    expect(find(nodes, 'FRCD_REG[0]')?.raw).toBe('0x8000000500000018 0x0000000000007000');
    expect(find(nodes, 'GCMD_REG')).toBeUndefined();
  });

  it('says why there are no tables to print', () => {
    const vm = new TestMachine();
    vm.setRoot(3);
    expect(tree(vm)).toEqual({ label: 'root table at 0x1000', note: 'TTM 3 uses no tables' });
    vm.setRoot(0, 0x40_0000);
    expect(tree(vm)).toEqual({
      label: 'root table at 0x400000',
      children: [],
      note: 'root[00] is not in memory',
    });
  });

  it('prints one requester, or all of every bus, those too that only suppress faults', () => {
    const { vm } = legacy();
    vm.context(0x20, 2n, 0n);
    vm.context(0x0301, ...contextEntry(0, 6, { tt: 2 }));
    const all = tree(vm);
    expect(labels(all.children)).toEqual(['root[00]', 'root[03]']);
    expect(labels(all.children?.[0].children)).toEqual(['context 00:03.0', 'context 00:04.0']);
    expect(all.children?.[0].children?.[1]).toMatchObject({ fields: { P: 0, FPD: 1 } });
    expect(all.children?.[0].children?.[1].children).toBeUndefined();
    const one = tree(vm, 0x0301);
    expect(labels(one.children)).toEqual(['root[03]']);
    expect(one.children?.[0].children).toMatchObject([
      {
        label: 'context 03:00.1',
        raw: '0x0000000000000602 0x0000000000000009',
        children: [{ label: 'pass-through' }],
      },
    ]);
    expect(tree(vm, 0x0302).children).toMatchObject([{ label: 'root[03]', children: [] }]);
  });

  it('ends after 512 contexts, and says how many more there are', () => {
    const vm = new TestMachine();
    for (let rid = 0; rid < 514; rid++) vm.context(rid, ...contextEntry(0, 3, { tt: 2 }));
    vm.setRoot(0);
    const { children = [], note } = tree(vm);
    expect(children.map((bus) => bus.children?.length)).toEqual([256, 256, 0]);
    expect(note).toBe('2 more contexts');
    vm.context(513, 0n, 0n);
    vm.context(512, 0n, 0n);
    expect(tree(vm).note).toBeUndefined();
  });

  it('prints both halves of a bus in scalable mode, and PASIDs wherever they are', () => {
    const vm = new TestMachine();
    vm.scalableContext(0x0108);
    vm.setRoot(1);
    expect(labels(tree(vm).children)).toEqual(['root[01]']);
    const { directory } = vm.scalableContext(0x0198, { paside: true });
    vm.pasidEntry(directory, 0, 1n | (4n << 6n), 3n);
    vm.pasidEntry(directory, 65, 2n, 0n);
    vm.pasidEntry(directory, 131, 1n | (4n << 6n), 4n);
    const [bus] = tree(vm).children ?? [];
    expect(labels(bus.children)).toEqual(['context 01:01.0', 'context 01:13.0']);
    expect(bus.children?.[0].children).toEqual([]);
    const upper = bus.children?.[1].children ?? [];
    expect(labels(upper)).toEqual(['PASID 0x0 (RID_PASID)', 'PASID 0x41', 'PASID 0x83']);
    expect(upper.map(({ fields, children }) => [fields?.['FPD'], fields?.['DID'], children?.length])).toEqual(
      [
        [0, 3, 1],
        [1, 0, undefined],
        [0, 4, 1],
      ],
    );
    expect(upper[2].raw).toBe('0x0000000000000000 0x0000000000000004 0x0000000000000101');
  });

  it('prints 64 PASIDs of a requester, and says that there are more', () => {
    const vm = new TestMachine();
    const { directory } = vm.scalableContext(RID, { paside: true });
    for (let pasid = 1; pasid <= 64; pasid++) vm.pasidEntry(directory, pasid, 1n | (4n << 6n), 3n);
    vm.setRoot(1);
    const context = () => tree(vm, RID).children?.[0].children?.[0];
    expect([context()?.children?.length, context()?.note]).toEqual([64, undefined]);
    vm.pasidEntry(directory, 65, 1n | (4n << 6n), 3n);
    vm.pasidEntry(directory, 66, 1n | (4n << 6n), 3n);
    expect([context()?.children?.length, context()?.note]).toEqual([64, '1 or more further PASIDs']);
  });
});
