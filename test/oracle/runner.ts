import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Rng } from '../fuzz/rng.js';
import { reset, secondBus, zero } from './operations.js';
import { OurMachine } from './ours.js';
import { hex, type Outcome, type Script, type Step } from './script.js';
import { buildShim, StockDied, StockMachine } from './stock.js';
import type { Case, Difference, MachineKind, Suite } from './suite.js';
import { OurSide, type Readings } from './third.js';

/** A run stops after so many differences that nothing explains. */
const MAX_FAILURES = 10;
/** Of one outcome that are printed; memory has more. */
const MAX_VALUES = 20;

interface Prepared {
  readonly qemu: string;
  readonly headers: string;
}

interface RunOptions {
  readonly seed: number;
  readonly cases: number;
  /** Says what happens. */
  readonly say: (line: string) => void;
}

/** What a run found. */
export interface Report {
  readonly seed: number;
  cases: number;
  /** Steps that were compared, and those that came out the same. */
  compared: number;
  agreed: number;
  /** Cases without any difference. */
  same: number;
  /** Cases and differences by the entry that explains them. */
  /** Cases of machines that no stock QEMU has. */
  alone: number;
  /**
   * Requests that were held against the third reading: beside stock QEMU, and of those machines.
   */
  readonly beside: Readings;
  readonly aloneReadings: Readings;
  readonly explained: Map<string, { cases: number; differences: number }>;
  readonly reached: Map<string, number>;
  readonly failures: string[];
}

interface Machines {
  stock: StockMachine;
  readonly ours: OurMachine;
}

/** One run of a suite: cases by seed, each on the machine that its seed picks. */
export class Runner<K extends MachineKind> {
  readonly #suite: Suite<K>;
  readonly #prepared: Prepared;
  readonly #options: RunOptions;
  readonly report: Report;
  #shim = '';
  /** Bytes of the arena that cases have stored to. */
  #extent = 0;

  constructor(suite: Suite<K>, prepared: Prepared, options: RunOptions) {
    this.#suite = suite;
    this.#prepared = prepared;
    this.#options = options;
    this.report = {
      seed: options.seed,
      cases: 0,
      compared: 0,
      agreed: 0,
      same: 0,
      alone: 0,
      beside: { read: 0, undecided: 0 },
      aloneReadings: { read: 0, undecided: 0 },
      explained: new Map(),
      reached: new Map(),
      failures: [],
    };
  }

  async run(): Promise<Report> {
    const suite = this.#suite;
    const prepared = this.#prepared;
    const directory = mkdtempSync(join(tmpdir(), 'viommu-oracle-'));
    try {
      this.#shim = buildShim(suite.target, prepared.headers, directory);
      for (const kind of suite.kinds) await this.#kind(kind);
      for (const kind of suite.alone) this.#alone(kind);
      return this.report;
    } finally {
      rmSync(directory, { recursive: true, force: true });
    }
  }

  async #kind(kind: K): Promise<void> {
    const { say } = this.#options;
    const seeds = this.#seeds(kind, this.#suite.kinds);
    if (seeds.length === 0) return;
    const begin = performance.now();
    const machines: Machines = { stock: await this.#start(kind), ours: new OurMachine(kind.ours) };
    try {
      for (const at of seeds) {
        if (this.report.failures.length >= MAX_FAILURES) return;
        await this.#case(kind, machines, at);
      }
    } finally {
      await machines.stock.stop();
    }
    say(
      `${this.#suite.name} ${kind.name}: ${seeds.length} cases, ${((performance.now() - begin) / 1000).toFixed(1)} s`,
    );
  }

  /**
   * Those of a kind. Every seed makes a case beside stock QEMU; every second one, the first of a
   * run too, another without.
   */
  #seeds(kind: K, kinds: readonly K[]): number[] {
    const { seed, cases } = this.#options;
    const step = kinds === this.#suite.alone ? 2 : 1;
    const all = Array.from({ length: Math.ceil(cases / step) }, (_, n) => (seed + n * step) >>> 0);
    return all.filter((at) => this.#kindOf(new Rng(at), kinds) === kind);
  }

  /** The first draw of a case's generator. */
  #kindOf(rng: Rng, kinds: readonly K[]): K {
    let draw = rng.below(kinds.reduce((sum, { share }) => sum + share, 0));
    return kinds.find(({ share }) => {
      draw -= share;
      return draw < 0;
    }) as K;
  }

  #start(kind: K): Promise<StockMachine> {
    return StockMachine.start({ qemu: this.#prepared.qemu, shim: this.#shim, args: kind.args ?? [] });
  }

  async #case(kind: K, machines: Machines, seed: number): Promise<void> {
    const suite = this.#suite;
    const { report } = this;
    const rng = new Rng(seed);
    this.#kindOf(rng, suite.kinds);
    const made = suite.generate(rng, kind);
    const { script } = made;
    report.cases++;
    // All that any case has used, so that what one finds does not depend on those before it.
    this.#extent = Math.max(this.#extent, script.used, 4096);
    const first = [reset, secondBus(script.bus), zero(script.arena, this.#extent)];
    machines.ours.run(first);
    let found: ReadonlySet<string> | undefined;
    try {
      const stock = await machines.stock.run([
        ...first,
        ...script.steps.flatMap(({ operations }) => operations),
      ]);
      found = this.#compare(kind, machines.ours, made, seed, (look) => look(stock));
    } catch (error) {
      if (!(error instanceof StockDied)) throw error;
      // It has a directory, and maybe a socket, even now.
      await machines.stock.stop();
      machines.stock = await this.#start(kind);
      found = this.#died(kind, made, seed, error.message);
    }
    if (found?.size === 0) report.same++;
    for (const id of found ?? []) this.#entry(id).cases++;
  }

  /** Cases of a machine that no stock QEMU has: ours and the third reading. */
  #alone(kind: K): void {
    const suite = this.#suite;
    const options = this.#options;
    const { report } = this;
    const seeds = this.#seeds(kind, suite.alone);
    const begin = performance.now();
    const machine = new OurMachine(kind.ours);
    for (const seed of seeds) {
      if (report.failures.length >= MAX_FAILURES) return;
      const rng = new Rng(seed);
      this.#kindOf(rng, suite.alone);
      const made = suite.generate(rng, kind);
      this.#extent = Math.max(this.#extent, made.script.used, 4096);
      machine.run([reset, secondBus(made.script.bus), zero(made.script.arena, this.#extent)]);
      report.alone++;
      const side = new OurSide(suite, kind, machine, report.aloneReadings);
      for (const [index, step] of made.script.steps.entries()) {
        const { ours, wrong, undecided } = side.serve(step);
        if (undecided) break;
        if (ours !== undefined) this.#reach(step, ours, machine);
        if (wrong.length === 0) continue;
        report.failures.push(this.#misread(kind, seed, made, index, machine, ours, wrong));
        break;
      }
    }
    const seconds = ((performance.now() - begin) / 1000).toFixed(1);
    options.say(`${suite.name} ${kind.name}: ${seeds.length} cases, ${seconds} s`);
  }

  #reach(step: Step, ours: Outcome, machine: OurMachine): void {
    const { reached } = this.report;
    for (const name of this.#suite.reached(step, ours, machine))
      reached.set(name, (reached.get(name) ?? 0) + 1);
  }

  #entry(id: string): { cases: number; differences: number } {
    const { explained } = this.report;
    const entry = explained.get(id) ?? { cases: 0, differences: 0 };
    explained.set(id, entry);
    return entry;
  }

  /**
   * Runs our side step by step beside what the stock side has done. Ids of what explains the
   * differences.
   */
  #compare(
    kind: K,
    machine: OurMachine,
    made: Case,
    seed: number,
    stockSide: (look: NonNullable<Step['look']>) => Outcome,
  ): ReadonlySet<string> | undefined {
    const suite = this.#suite;
    const { report } = this;
    const found = new Set<string>();
    const side = new OurSide(suite, kind, machine, report.beside);
    for (const [index, step] of made.script.steps.entries()) {
      const { ours, wrong, undecided } = side.serve(step);
      // Where nothing decides, no entry explains anything either.
      if (undecided) break;
      if (wrong.length > 0) {
        report.failures.push(this.#misread(kind, seed, made, index, machine, ours, wrong));
        return undefined;
      }
      if (step.look === undefined || ours === undefined) continue;
      const stock = stockSide(step.look);
      report.compared++;
      this.#reach(step, ours, machine);
      const fields = Object.keys({ ...ours, ...stock }).filter((name) => ours[name] !== stock[name]);
      if (fields.length === 0) {
        report.agreed++;
        continue;
      }
      const difference: Difference<K> = { kind, step, ours, stock, fields, machine, earlier: found };
      const ids = this.#explain(difference);
      if (ids === undefined) {
        report.failures.push(this.#failure(seed, made, index, difference));
        return undefined;
      }
      let over = suite.parts?.(difference) ?? false;
      for (const { id, ends } of ids) {
        found.add(id);
        this.#entry(id).differences++;
        over ||= ends === true;
      }
      if (over) break;
    }
    return found;
  }

  /** The entries that together account for every value that differs. */
  #explain(difference: Difference<K>): { readonly id: string; readonly ends?: boolean }[] | undefined {
    const left = new Set(difference.fields);
    const used = [];
    for (const entry of this.#suite.known) {
      const claimed = entry.claims(difference).filter((name) => left.delete(name));
      if (claimed.length > 0) used.push(entry);
      if (left.size === 0) return used;
    }
    return undefined;
  }

  #died(kind: K, made: Case, seed: number, text: string): ReadonlySet<string> | undefined {
    const death = this.#suite.deaths.find((known) => known.text.test(text));
    if (death !== undefined) {
      this.#entry(death.id).differences++;
      return new Set([death.id]);
    }
    this.report.failures.push(
      `${this.#title(kind, made, seed)}\n  stock QEMU ended: ${text}\n${steps(made.script, made.script.steps.length)}`,
    );
    return undefined;
  }

  #title(kind: K, made: Case, seed: number): string {
    const again = `npm run oracle -- ${this.#suite.name} --seed ${seed} --cases 1`;
    return `${this.#suite.name}: seed ${seed} on ${kind.name} (${made.notes.join('; ')})\n  repeat: ${again}`;
  }

  /** Our side is not what a plain walk of the tables says. */
  #misread(
    kind: K,
    seed: number,
    made: Case,
    index: number,
    machine: OurMachine,
    ours: Outcome | undefined,
    wrong: readonly string[],
  ): string {
    const step = made.script.steps[index];
    return [
      this.#title(kind, made, seed),
      `  not as the third reading: ${step.text}`,
      ...wrong.map((line) => `  ${line}`),
      `  ours:  ${textOf(ours ?? {})}`,
      this.#suite.describe(step, machine),
      steps(made.script, index),
    ].join('\n');
  }

  #failure(seed: number, made: Case, index: number, difference: Difference<K>): string {
    const { step, ours, stock, fields } = difference;
    const values = fields.map((name) => `  ${name}: ours ${text(ours[name])}, stock ${text(stock[name])}`);
    return [
      this.#title(difference.kind, made, seed),
      `  differs: ${step.text}`,
      ...values,
      `  ours:  ${textOf(ours)}`,
      `  stock: ${textOf(stock)}`,
      this.#suite.describe(step, difference.machine),
      steps(made.script, index),
    ].join('\n');
  }
}

/** What was done before, stores to RAM only where the whole case was asked for. */
function steps(script: Script, end: number): string {
  const all = script.steps.slice(0, end + 1);
  const everything = process.env['VIOMMU_ORACLE_STEPS'] === 'all';
  const shown = all.filter(({ table }) => everything || table === undefined);
  return `  steps:\n${shown.map(({ text }) => `    ${text}`).join('\n')}`;
}

function text(value: string | number | bigint | undefined): string {
  return typeof value === 'bigint' ? hex(value) : String(value);
}

function textOf(outcome: Outcome): string {
  const all = Object.entries(outcome);
  const shown = all.slice(0, MAX_VALUES).map(([name, value]) => `${name}=${text(value)}`);
  return [...shown, ...(all.length > MAX_VALUES ? ['…'] : [])].join(' ');
}
