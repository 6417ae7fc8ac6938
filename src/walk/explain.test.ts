import { describe, expect, it } from 'vitest';
import { ArrayMemory } from '../memory/array.js';
import { RIGHT } from '../spec/pagetable/format.js';
import { vtdFirstStage, vtdSecondStage } from '../spec/pagetable/vtd.js';
import { explain, explainNested } from './explain.js';

const CAPS = {
  hostAddressWidth: 46,
  secondStage2M: true,
  secondStage1G: true,
  firstStage1G: true,
  snoopControl: false,
  transientMapping: false,
};
const SECOND = vtdSecondStage(CAPS, { levels: 3, accessedDirty: true });
const FIRST = vtdFirstStage(CAPS, { levels: 4, writeProtect: true, extendedAccessed: false });

describe('explain', () => {
  it('names every entry, index, field and what would be set, and changes nothing', () => {
    const memory = new ArrayMemory([{ base: 0, bytes: 4 * 4096 }]);
    memory.poke(8, 0x1003n);
    memory.poke(0x1000 + 2 * 8, 0x1_4000_0081n | 1n);
    const text = explain(SECOND, memory, 0, 0x4040_1234, 0, RIGHT.READ);
    expect(text.outcome).toBe('OK');
    expect(text.output).toBe('0x140001234');
    expect(text.bytes).toBe(2 ** 21);
    expect(text.rights).toBe('R');
    expect(text.steps.map((s) => [s.name, s.index, s.raw, s.verdict, s.rights, s.sets])).toEqual([
      ['SS-PDPTE', 1, '0x0000000000001003', 'table', 'R W', ['A']],
      ['SS-PDE', 2, '0x0000000140000081', 'page of 2 MiB', 'R', ['A']],
    ]);
    expect(text.steps[1]?.fields).toMatchObject({ R: 1, W: 0, PS: 1, A: 0, SNP: 0, ADDR: 0x1_4000_0000 });
    expect(memory.peek(8)).toBe(0x1003n);
  });

  it('shows where each entry is and its declared fields, of ignored ones those that are set', () => {
    const memory = new ArrayMemory([{ base: 0, bytes: 4 * 4096 }]);
    memory.poke(8, 0x1003n);
    memory.poke(0x1000 + 2 * 8, 0x4000_0081n | (1n << 9n) | (1n << 52n));
    const plain = vtdSecondStage(CAPS, { levels: 3, accessedDirty: false });
    const text = explain(plain, memory, 0, 0x4040_1234, 0, 0);
    expect(text).toMatchObject({ formats: [plain.name], access: '-', rights: 'R', output2: [] });
    expect(text.steps.map((s) => [s.table, s.address, s.sets, s.through])).toEqual([
      ['0x0', '0x8', [], []],
      ['0x1000', '0x1010', [], []],
    ]);
    const ignored = Object.keys(text.steps[1]?.fields ?? {}).filter((name) => name.startsWith('IGN'));
    expect(Object.keys(text.steps[0]?.fields ?? {}).filter((name) => name.startsWith('IGN'))).toEqual([]);
    expect(ignored.length).toBeGreaterThan(0);
  });

  it('names sizes, and an output above 4 GiB with its offset', () => {
    const memory = new ArrayMemory([{ base: 0, bytes: 4096 }]);
    memory.poke(8 * 8, 0x12_4000_0083n);
    const text = explain(SECOND, memory, 0, 0x1234_5678, 2, RIGHT.READ);
    expect(text.steps[0]?.verdict).toBe('page of 1 GiB');
    expect([text.output, text.bytes]).toEqual(['0x1252345678', 2 ** 30]);
  });

  it('has no output where there is none, and the rights where they are the reason', () => {
    const memory = new ArrayMemory([{ base: 0, bytes: 4096 }]);
    const none = { output: undefined, bytes: undefined };
    const look = (entry: bigint, access: number): ReturnType<typeof explain> => {
      memory.poke(0, entry);
      return explain(SECOND, memory, 0, 0, 0, access);
    };
    expect(look(0n, RIGHT.READ)).toMatchObject({ outcome: 'NOT_PRESENT', ...none, rights: '-' });
    expect(look(0x82n, RIGHT.READ)).toMatchObject({ outcome: 'PERMISSION', ...none, rights: 'W' });
    expect(look(0x7000_0003n, RIGHT.READ).steps[1]).toMatchObject({ fields: {}, rights: '', raw: undefined });
  });

  it('says which reserved bits are set', () => {
    const memory = new ArrayMemory([{ base: 0, bytes: 4096 }]);
    memory.poke(0, 0x4003_0000_0000_0883n);
    const text = explain(SECOND, memory, 0, 0, 0, RIGHT.READ);
    expect(text.outcome).toBe('RESERVED');
    expect(text.steps[0]?.verdict).toBe('reserved bits set: 62, 49:48, 11');
  });

  it('says that a table is not in memory, and where a right was lost', () => {
    const memory = new ArrayMemory([{ base: 0, bytes: 3 * 4096 }]);
    memory.poke(0, 0x7000_0003n);
    expect(explain(SECOND, memory, 0, 0, 0, RIGHT.READ).steps[1]).toMatchObject({
      raw: undefined,
      address: '0x70000000',
      verdict: 'the table is not in guest memory',
    });
    memory.poke(0, 0x1001n);
    memory.poke(0x1000, 0x2003n);
    memory.poke(0x2000, 0x5003n);
    const text = explain(SECOND, memory, 0, 0, 0, RIGHT.WRITE);
    expect(text.outcome).toBe('PERMISSION');
    expect(text.steps.map((s) => s.rights)).toEqual(['R', 'R', 'R']);
  });
});

describe('explainNested', () => {
  /**
   * Stage 1 at intermediate 0x0.. (pages 0..3), stage 2 in pages 8..10 maps intermediate page i to
   * page i.
   */
  function nested(): ArrayMemory {
    const memory = new ArrayMemory([{ base: 0, bytes: 16 * 4096 }]);
    memory.poke(0, 0x1007n);
    memory.poke(0x1000, 0x2007n);
    memory.poke(0x2000, 0x3007n);
    memory.poke(0x3000 + 5 * 8, 0x4007n);
    memory.poke(0x8000, 0x9003n);
    memory.poke(0x9000, 0xa003n);
    for (let i = 0; i < 5; i++) memory.poke(0xa000 + i * 8, BigInt(i * 4096) | 3n);
    return memory;
  }

  it('shows stage 2 below each stage-1 entry, and for the output', () => {
    const memory = nested();
    const text = explainNested(FIRST, 0, memory, SECOND, 0x8000, 0x5678, 0, RIGHT.WRITE);
    expect(text.outcome).toBe('OK');
    expect(text.formats).toEqual([FIRST.name, SECOND.name]);
    expect(text.output).toBe('0x4678');
    expect(text.steps[0]?.through.map((s) => s.through)).toEqual([[], [], []]);
    expect(text.steps.map((s) => [s.name, s.address, s.verdict, s.sets])).toEqual([
      ['FS-PML4E', '0x0', 'table', ['A']],
      ['FS-PDPTE', '0x1000', 'table', ['A']],
      ['FS-PDE', '0x2000', 'table', ['A']],
      ['FS-PTE', '0x3028', 'page of 4 KiB', ['A', 'D']],
    ]);
    expect(text.steps.map((s) => s.through.map((t) => t.name))).toEqual(
      Array.from({ length: 4 }, () => ['SS-PDPTE', 'SS-PDE', 'SS-PTE']),
    );
    expect(text.output2.map((s) => [s.index, s.verdict])).toEqual([
      [0, 'table'],
      [0, 'table'],
      [4, 'page of 4 KiB'],
    ]);
    expect(memory.peek(0x3028)).toBe(0x4007n);
  });

  it('shows where stage 2 refused a fetch, an update and the output', () => {
    const fetch = nested();
    fetch.poke(0xa000 + 2 * 8, 0n);
    const refused = explainNested(FIRST, 0, fetch, SECOND, 0x8000, 0x5678, 0, RIGHT.READ);
    expect(refused.outcome).toBe('STAGE2_ON_FETCH: NOT_PRESENT');
    expect(refused.output2).toEqual([]);
    expect(refused.steps.at(-1)).toMatchObject({
      name: 'FS-PDE',
      raw: undefined,
      verdict: 'stage 2 refused the access to this entry',
    });
    expect(refused.steps.at(-1)?.through.at(-1)?.verdict).toBe('not present');

    const update = nested();
    update.poke(0xa000 + 1 * 8, 0x1001n);
    const locked = explainNested(FIRST, 0, update, SECOND, 0x8000, 0x5678, 0, RIGHT.READ);
    expect(locked.outcome).toBe('STAGE2_ON_FETCH: PERMISSION');
    expect(locked.steps.at(-1)?.name).toBe('FS-PDPTE');
    expect(locked.steps.at(-1)?.through.at(-1)?.verdict).toBe(
      'the rights on the way do not allow the access',
    );

    const output = nested();
    output.poke(0xa000 + 4 * 8, 0x4001n);
    const last = explainNested(FIRST, 0, output, SECOND, 0x8000, 0x5678, 0, RIGHT.WRITE);
    expect(last.outcome).toBe('STAGE2: PERMISSION');
    expect(last.steps.at(-1)?.verdict).toBe('page of 4 KiB');
    expect(last.output2.at(-1)?.verdict).toBe('the rights on the way do not allow the access');
  });
});
