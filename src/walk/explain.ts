/**
 * One translation step by step, as data, for people. The steps come from the walker itself: it runs
 * over memory that remembers what was read and lets no update through, so an explanation can't
 * differ from what a request would get.
 */

import { hex, hex64, join, type PhysicalAddress } from '../base/u64.js';
import type { GuestMemory } from '../memory/guest-memory.js';
import { ReadOnlyMemory } from '../memory/read-only.js';
import { decode } from '../spec/define.js';
import { type FormatLevel, type PageTableFormat, RIGHT } from '../spec/pagetable/format.js';
import { indexIn, levelOf } from './neighbours.js';
import { StageTwo, walkNested } from './nested.js';
import { WALK, WalkResult } from './types.js';
import { rightsOf, walk } from './walk.js';

/** One entry on the way. */
export interface ExplainStep {
  readonly stage: 1 | 2;
  readonly level: number;
  /** The specification's name of the entry, e.g. `SS-PDE`. */
  readonly name: string;
  /**
   * Addresses in hexadecimal; of stage-1 tables in a nested walk they are intermediate addresses.
   */
  readonly table: string;
  readonly index: number;
  readonly address: string;
  /** The entry, or undefined when it could not be read. */
  readonly raw: string | undefined;
  /**
   * The entry's fields by the specification's names; ignored fields only where they are not zero.
   */
  readonly fields: Readonly<Record<string, number>>;
  /** What all entries so far allow, e.g. `R W`. */
  readonly rights: string;
  /** What the walk made of it. */
  readonly verdict: string;
  /** Fields that the walk would change in it: Accessed and Dirty state. */
  readonly sets: readonly string[];
  /** Nested: how stage 2 translated the address of this entry. */
  readonly through: readonly ExplainStep[];
}

interface Explanation {
  /** Names of the formats, stage 1 first. */
  readonly formats: readonly string[];
  readonly input: string;
  /** e.g. `R`, `W`, or `-` for a mere look. */
  readonly access: string;
  readonly steps: readonly ExplainStep[];
  /** Nested: stage 2 translating the output of stage 1. */
  readonly output2: readonly ExplainStep[];
  /**
   * Name of the outcome as in {@link WALK}; for a nested refusal `STAGE2: NOT_PRESENT` and the
   * like.
   */
  readonly outcome: string;
  /** Output address of exactly this input, when there is one. */
  readonly output: string | undefined;
  /** Size of the page that it lies in, in bytes. */
  readonly bytes: number | undefined;
  readonly rights: string;
}

interface Load {
  readonly address: number;
  readonly ok: boolean;
  readonly lo: number;
  readonly hi: number;
  /** Bits of the low half that the walk went on to change. */
  changed: number;
}

/** Passes reads on and remembers them; pretends to make exchanges. */
class DryRun extends ReadOnlyMemory {
  readonly loads: Load[] = [];
  readonly #pretended = new Map<number, number>();
  #checking = -1;

  override load64(gpa: PhysicalAddress): boolean {
    const ok = this.memory.load64(gpa);
    if (ok) {
      this.lo = this.#pretended.get(gpa) ?? this.memory.lo;
      this.hi = this.memory.hi;
    }
    // The walk looks again at what it has just exchanged; that is no step of its own.
    if (this.#checking === gpa) this.#checking = -1;
    else this.loads.push({ address: gpa, ok, lo: ok ? this.lo : 0, hi: ok ? this.hi : 0, changed: 0 });
    return ok;
  }

  override cas32(gpa: PhysicalAddress, expected: number, value: number): boolean {
    const last = this.loads.findLast((load) => load.address === gpa);
    if (last) last.changed |= value ^ expected;
    this.#pretended.set(gpa, value);
    this.#checking = gpa;
    return true;
  }
}

/** One translation by stage 2: what it was for, and the loads that it made. */
interface Through {
  readonly lo: number;
  readonly hi: number;
  readonly from: number;
  to: number;
  failed: number;
  use: 'fetch' | 'update' | 'output';
  /** The stage-1 entry that was fetched; absent when stage 2 refused. */
  entry: Load | undefined;
}

/** A second stage that remembers its translations. */
class TracedStageTwo extends StageTwo {
  readonly translations: Through[] = [];

  constructor(readonly dry: DryRun) {
    super(dry);
  }

  override translate(lo: number, hi: number, access: number): boolean {
    const from = this.dry.loads.length;
    const one: Through = { lo, hi, from, to: 0, failed: WALK.OK, use: 'output', entry: undefined };
    this.translations.push(one);
    const done = super.translate(lo, hi, access);
    one.to = this.dry.loads.length;
    if (!done) one.failed = this.failed;
    return done;
  }

  override load64(ipa: PhysicalAddress): boolean {
    const ok = super.load64(ipa);
    const one = this.translations.at(-1);
    if (one) {
      one.entry = this.dry.loads[one.to];
      // Without a load of its own it was the second look after an update.
      one.use = one.entry !== undefined || one.failed !== WALK.OK ? 'fetch' : 'update';
    }
    return ok;
  }

  override cas32(ipa: PhysicalAddress, expected: number, value: number): boolean {
    const done = super.cas32(ipa, expected, value);
    const one = this.translations.at(-1);
    if (one) one.use = 'update';
    return done;
  }
}

/** Explains `walk(format, memory, root, lo, hi, access)`. Changes nothing. */
export function explain(
  format: PageTableFormat,
  memory: GuestMemory,
  root: PhysicalAddress,
  lo: number,
  hi: number,
  access: number,
): Explanation {
  const dry = new DryRun(memory);
  const result = new WalkResult();
  walk(format, dry, root, lo, hi, access, result);
  const steps = stepsOf(1, format, dry.loads, lo, hi, result.outcome, []);
  return summary([format.name], lo, hi, access, steps, [], result);
}

/** Explains `walkNested` with the same arguments. Changes nothing. */
export function explainNested(
  format1: PageTableFormat,
  root1: PhysicalAddress,
  memory: GuestMemory,
  format2: PageTableFormat,
  root2: PhysicalAddress,
  lo: number,
  hi: number,
  access: number,
): Explanation {
  const dry = new DryRun(memory);
  const stage2 = new TracedStageTwo(dry);
  const result = new WalkResult();
  walkNested(format1, root1, stage2, format2, root2, lo, hi, access, result);
  const first: Load[] = [];
  const through: ExplainStep[][] = [];
  let output2: ExplainStep[] = [];
  for (const one of stage2.translations) {
    const steps = stepsOf(2, format2, dry.loads.slice(one.from, one.to), one.lo, one.hi, one.failed, []);
    if (one.use === 'fetch') {
      // Shown at the address that stage 1 knows it by.
      const address = join(one.lo, one.hi);
      first.push({ ...(one.entry ?? { ok: false, lo: 0, hi: 0, changed: 0 }), address });
      through.push(steps);
    } else if (one.use === 'output') {
      output2 = steps;
    } else if (one.failed !== WALK.OK) {
      through[first.length - 1] = steps;
    }
  }
  const outcome1 = result.outcome === WALK.STAGE2 ? WALK.OK : result.outcome;
  const steps = stepsOf(1, format1, first, lo, hi, outcome1, through);
  return summary([format1.name, format2.name], lo, hi, access, steps, output2, result);
}

/** The loads of one walk from the root down, as steps. */
function stepsOf(
  stage: 1 | 2,
  format: PageTableFormat,
  loads: readonly Load[],
  lo: number,
  hi: number,
  outcome: number,
  through: readonly (readonly ExplainStep[])[],
): ExplainStep[] {
  let aboveLo = -1;
  let aboveHi = 0;
  return loads.map((load, i) => {
    const at = levelOf(format, format.levels - i);
    const index = indexIn(at, lo, hi);
    const last = i === loads.length - 1;
    const leaf = (load.lo & at.leafMask) === at.leafValue;
    if (!leaf) {
      aboveLo &= load.lo | format.keepLo;
      aboveHi |= load.hi;
    }
    const rights = leaf
      ? rightsOf(format, aboveLo & load.lo, load.hi, aboveHi, 0)
      : rightsOf(format, aboveLo & format.openLo, 0, aboveHi, 0);
    const shape = leaf ? format.leafLayouts[at.level] : format.tableLayouts[at.level];
    return {
      stage,
      level: at.level,
      name: format.entryNames[at.level] ?? `level ${at.level}`,
      table: hex(load.address - index * 8),
      index,
      address: hex(load.address),
      raw: load.ok ? hex64(load.lo, load.hi) : undefined,
      fields: load.ok && shape ? shownFields(decode(shape, Uint32Array.of(load.lo, load.hi))) : {},
      rights: load.ok ? rightsText(rights) : '',
      verdict: verdictOf(at, load, leaf, last ? outcome : WALK.OK),
      sets: changedNames(format, at, load.changed),
      through: through[i] ?? [],
    };
  });
}

function shownFields(fields: Readonly<Record<string, number>>): Record<string, number> {
  return Object.fromEntries(
    Object.entries(fields).filter(([name, value]) => value !== 0 || !name.startsWith('IGN')),
  );
}

function verdictOf(at: FormatLevel, load: Load, leaf: boolean, outcome: number): string {
  switch (outcome) {
    case WALK.FETCH:
      return 'the table is not in guest memory';
    case WALK.NOT_PRESENT:
      return 'not present';
    case WALK.ACCESS_FLAG:
      return 'the Access flag is clear';
    case WALK.OUTPUT_SIZE:
      return 'the address is beyond the output size';
    case WALK.RESERVED:
      return `reserved bits set: ${reservedText(at, load, leaf)}`;
    case WALK.PERMISSION:
      return 'the rights on the way do not allow the access';
    case WALK.STAGE2_ON_FETCH:
      return 'stage 2 refused the access to this entry';
    case WALK.UPDATE:
      return 'Accessed or Dirty could not be set';
    default:
      return leaf ? `page of ${sizeText(2 ** at.shift)}` : 'table';
  }
}

/** e.g. `62, 51:46`. */
function reservedText(at: FormatLevel, load: Load, leaf: boolean): string {
  const lo = load.lo & (leaf ? at.leafReservedLo : at.tableReservedLo);
  const hi = load.hi & (leaf ? at.leafReservedHi : at.tableReservedHi);
  const isSet = (bit: number): boolean => (((bit < 32 ? lo : hi) >>> (bit & 31)) & 1) === 1;
  const parts: string[] = [];
  for (let bit = 63; bit >= 0; bit--) {
    if (!isSet(bit)) continue;
    const top = bit;
    while (bit > 0 && isSet(bit - 1)) bit--;
    parts.push(top === bit ? `${top}` : `${top}:${bit}`);
  }
  return parts.join(', ');
}

/** Names of the fields that an update touches. */
function changedNames(format: PageTableFormat, at: FormatLevel, changed: number): string[] {
  if (changed === 0) return [];
  const shape = format.leafLayouts[at.level] ?? format.tableLayouts[at.level];
  const fields = Object.values(shape?.fields ?? {});
  return fields
    .filter((field) => field.lsb < 32 && (changed & (2 ** (field.msb + 1) - 2 ** field.lsb)) !== 0)
    .map((f) => f.name);
}

function sizeText(bytes: number): string {
  if (bytes >= 2 ** 30) return `${bytes / 2 ** 30} GiB`;
  return bytes >= 2 ** 20 ? `${bytes / 2 ** 20} MiB` : `${bytes / 1024} KiB`;
}

function rightsText(rights: number): string {
  const names: string[] = [];
  if ((rights & RIGHT.READ) !== 0) names.push('R');
  if ((rights & RIGHT.WRITE) !== 0) names.push('W');
  if ((rights & RIGHT.EXECUTE) !== 0) names.push('X');
  if ((rights & RIGHT.PRIVILEGED) !== 0) names.push('privileged');
  return names.length === 0 ? '-' : names.join(' ');
}

function summary(
  formats: readonly string[],
  lo: number,
  hi: number,
  access: number,
  steps: readonly ExplainStep[],
  output2: readonly ExplainStep[],
  result: WalkResult,
): Explanation {
  const ok = result.outcome === WALK.OK;
  const nested = result.outcome === WALK.STAGE2 || result.outcome === WALK.STAGE2_ON_FETCH;
  const bytes = 2 ** result.log2Size;
  const offset = ((((hi >>> 0) * 2 ** 32) % bytes) + (lo >>> 0)) % bytes;
  return {
    formats,
    input: hex64(lo, hi),
    access: rightsText(access),
    steps,
    output2,
    outcome: nested
      ? `${outcomeName(result.outcome)}: ${outcomeName(result.stage2)}`
      : outcomeName(result.outcome),
    output: ok ? hex(join(result.outLo, result.outHi) + offset) : undefined,
    bytes: ok ? bytes : undefined,
    rights: ok || result.outcome === WALK.PERMISSION ? rightsText(result.permissions) : '-',
  };
}

function outcomeName(outcome: number): string {
  return Object.entries(WALK).find(([, value]) => value === outcome)?.[0] ?? `outcome ${outcome}`;
}
