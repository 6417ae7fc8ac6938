import { Rng } from './rng.js';

/** One kind of random input and the properties that must hold for it. */
export interface Fuzzer {
  readonly name: string;
  /** One case. Throws when a property does not hold; `trace` says what was done, for that event. */
  run(rng: Rng, trace: Trace): void;
  /** Numbers worth printing after a run. */
  facts?(): Readonly<Record<string, number>>;
}

/** The last steps of a case. */
export class Trace {
  readonly #steps: string[] = [];

  say(step: string): void {
    this.#steps.push(step);
    if (this.#steps.length > 4000) this.#steps.splice(0, 2000);
  }

  last(count: number): string {
    return this.#steps.slice(-count).join('\n  ');
  }
}

/** A property that does not hold: said by fuzzers, as opposed to exceptions of what they test. */
export class Violation extends Error {}

export function must(holds: boolean, what: () => string): asserts holds {
  if (!holds) throw new Violation(what());
}

interface FuzzResult {
  readonly cases: number;
  readonly seconds: number;
}

/**
 * Runs cases with seeds `seed`, `seed + 1`, … for `milliseconds`, or `cases` of them. On failure
 * throws an error that names the one seed that repeats it, and the last steps of the case.
 */
export function runFuzzer(
  fuzzer: Fuzzer,
  seed: number,
  limit: { readonly milliseconds?: number; readonly cases?: number },
  progress: (line: string) => void = () => {},
  beginCase: (seed: number) => void = () => {},
): FuzzResult {
  const begin = performance.now();
  let reported = begin;
  let cases = 0;
  for (;;) {
    const now = performance.now();
    if (limit.cases !== undefined && cases >= limit.cases) break;
    if (limit.milliseconds !== undefined && now - begin >= limit.milliseconds) break;
    if (now - reported > 30_000) {
      reported = now;
      progress(`${fuzzer.name}: ${cases} cases in ${Math.round((now - begin) / 1000)} s`);
    }
    const at = (seed + cases) >>> 0;
    const trace = new Trace();
    beginCase(at);
    try {
      fuzzer.run(new Rng(at), trace);
    } catch (error) {
      const text = error instanceof Violation ? error.message : ((error as Error).stack ?? String(error));
      const again = `npm run fuzz -- ${fuzzer.name} --seed ${at} --cases 1`;
      throw new Error(
        `${fuzzer.name}: seed ${at}: ${text}\nRepeat: ${again}\nLast steps:\n  ${trace.last(25)}`,
      );
    }
    cases++;
  }
  return { cases, seconds: (performance.now() - begin) / 1000 };
}
