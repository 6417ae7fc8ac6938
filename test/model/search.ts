/**
 * All interleavings of a few small machines that share a state: a search through every state that
 * can be reached.
 */

/**
 * One atomic step that is possible now. Changes a state of its own, and throws when something is
 * wrong.
 */
export interface Move<S> {
  readonly name: string;
  take(state: S): void;
}

interface Found {
  readonly states: number;
  /** States from which nothing is possible. */
  readonly ends: number;
  /** What is wrong, and the steps that lead there; undefined: nothing. */
  readonly wrong: { readonly what: string; readonly steps: readonly string[] } | undefined;
}

/** Of plain data. */
function copyOf<T>(value: T): T {
  if (Array.isArray(value)) return value.map(copyOf) as T;
  if (typeof value !== 'object' || value === null) return value;
  const copy: Record<string, unknown> = {};
  for (const [name, part] of Object.entries(value)) copy[name] = copyOf(part);
  return copy as T;
}

/**
 * Visits every state. `moves` says what is possible in one; states are plain data. `end`, called
 * with a state from which nothing is possible, throws when it is none to end in.
 */
export function search<S extends object>(
  start: S,
  moves: (state: Readonly<S>) => readonly Move<S>[],
  end: (state: Readonly<S>) => void = () => {},
): Found {
  const seen = new Set<string>();
  const steps: string[] = [];
  let ends = 0;
  let wrong: Found['wrong'];
  const right = (step: () => void): boolean => {
    try {
      step();
    } catch (error) {
      wrong = { what: (error as Error).message, steps: [...steps] };
    }
    return wrong === undefined;
  };
  const visit = (state: S): boolean => {
    const name = JSON.stringify(state);
    if (seen.has(name)) return true;
    seen.add(name);
    const possible = moves(state);
    if (possible.length === 0) {
      ends++;
      return right(() => end(state));
    }
    for (const move of possible) {
      const next = copyOf(state);
      steps.push(move.name);
      if (!right(() => move.take(next)) || !visit(next)) return false;
      steps.pop();
    }
    return true;
  };
  visit(start);
  return { states: seen.size, ends, wrong };
}
