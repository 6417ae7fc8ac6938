/**
 * Faults put into our models that stock QEMU beside them does not show, for it has the same fault,
 * or a difference there is known. The third reading has to see each. No QEMU takes part.
 */
import { afterEach, describe, expect, it, vi } from 'vitest';
import type * as Vmsa from '../../src/spec/pagetable/vmsa.js';
import { CD } from '../../src/spec/smmuv3/structures.js';
import type * as Types from '../../src/walk/types.js';
import type * as Walk from '../../src/walk/walk.js';
import { Rng } from '../fuzz/rng.js';
import { reset, secondBus, zero } from './operations.js';
import { OurMachine } from './ours.js';
import { SMMU } from './smmu.js';
import type { MachineKind, Suite } from './suite.js';
import { OurSide } from './third.js';
import { VTD } from './vtd.js';

const mutant = vi.hoisted(() => ({ name: '' }));

/**
 * Root tables of stage 2 with as many entries as one table has: the index among several is lost.
 */
vi.mock('../../src/spec/pagetable/vmsa.js', async (original) => {
  const real = await original<typeof Vmsa>();
  return {
    ...real,
    vmsaStage2: (params: Parameters<typeof real.vmsaStage2>[0]) => {
      const format = real.vmsaStage2(params);
      if (mutant.name !== 'concatenation') return format;
      const indexMask = format.root.indexMask & (2 ** (params.granule - 3) - 1);
      return { ...format, root: { ...format.root, indexMask } };
    },
  };
});

/** An access that is refused for lack of rights leaves the Accessed bit of the leaf set. */
vi.mock('../../src/walk/walk.js', async (original) => {
  const real = await original<typeof Walk>();
  const { WALK } = await vi.importActual<typeof Types>('../../src/walk/types.js');
  const walk: typeof real.walk = (format, memory, root, lo, hi, access, result) => {
    const outcome = real.walk(format, memory, root, lo, hi, access, result);
    if (mutant.name === 'accessed' && outcome === WALK.PERMISSION) {
      memory.cas32(result.entryAddress, result.entryLo, result.entryLo | format.accessed);
    }
    return outcome;
  };
  return { ...real, walk };
});

const CASES = 40;

/**
 * How many cases on a kind of machine are not what the third reading says, and the first thing that
 * was not.
 */
function caught<K extends MachineKind>(
  suite: Suite<K>,
  kinds: readonly K[],
  count = CASES,
): { cases: number; read: number; first: string } {
  const readings = { read: 0, undecided: 0 };
  let [cases, first] = [0, ''];
  for (const kind of kinds) {
    const machine = new OurMachine(kind.ours);
    let extent = 0;
    for (let seed = 1; seed <= count; seed++) {
      const { script } = suite.generate(new Rng(seed), kind);
      extent = Math.max(extent, script.used);
      machine.run([reset, secondBus(script.bus), zero(script.arena, extent)]);
      const side = new OurSide(suite, kind, machine, readings);
      for (const step of script.steps) {
        const { wrong } = side.serve(step);
        if (wrong.length === 0) continue;
        cases++;
        if (first === '') first = `${kind.name}, seed ${seed}: ${step.text}: ${wrong.join('; ')}`;
        break;
      }
    }
  }
  return { cases, read: readings.read, first };
}

const stock = <K extends MachineKind>(suite: Suite<K>, ...names: string[]): K[] =>
  suite.kinds.filter(({ name }) => names.includes(name));

afterEach(() => {
  mutant.name = '';
  vi.restoreAllMocks();
});

describe('the third reading', () => {
  it('agrees with our models as they are', () => {
    const runs = [
      caught(VTD, [...VTD.kinds, ...VTD.alone], 10),
      caught(SMMU, [...SMMU.kinds, ...SMMU.alone], 10),
    ];
    expect(runs.map(({ first }) => first)).toEqual(['', '']);
    for (const { read } of runs) expect(read).toBeGreaterThan(500);
  });

  it.each(['stage-2', 'nested'])('sees the index of concatenated stage-2 tables lost (%s)', (kind) => {
    mutant.name = 'concatenation';
    const { cases, first } = caught(SMMU, stock(SMMU, kind));
    expect(cases, first).toBeGreaterThan(0);
  });

  it.each(['stage-1', 'nested'])('sees TBI0 used for both halves (%s)', (kind) => {
    vi.spyOn(CD.get, 'TBI1').mockImplementation(CD.get.TBI0);
    const { cases, first } = caught(SMMU, stock(SMMU, kind));
    expect(cases, first).toBeGreaterThan(0);
  });

  it('sees a refused access set Accessed in the leaf (VT-d first stage)', () => {
    mutant.name = 'accessed';
    const { cases, first } = caught(VTD, stock(VTD, 'first-48'));
    expect(cases, first).toBeGreaterThan(0);
    expect(first).toContain('word at');
  });

  it('sees a refused access set the Access flag (SMMUv3 with hardware updates)', () => {
    mutant.name = 'accessed';
    const { cases, first } = caught(SMMU, SMMU.alone);
    expect(cases, first).toBeGreaterThan(0);
    expect(first).toContain('word at');
  });
});
