/**
 * Counts the calls of functions of `src/`, as V8 counts them. For what an input costs, apart from
 * what the machine does.
 */
import { Session as Inspector } from 'node:inspector';

interface FunctionCoverage {
  readonly functionName: string;
  readonly ranges: readonly { readonly count: number; readonly startOffset: number }[];
}
interface ScriptCoverage {
  readonly url: string;
  readonly functions: readonly FunctionCoverage[];
}

/**
 * Calls by `file:function`, of functions of `src/` that are not part of tests. Of one call of
 * `work`.
 */
export function countCalls(work: () => void): Map<string, number> {
  const inspector = new Inspector();
  inspector.connect();
  const post = (method: string, params: object = {}): { result?: ScriptCoverage[] } => {
    let answer = {};
    // The inspector of the own thread answers before this returns.
    inspector.post(method, params, (error: Error | null, result: object = {}) => {
      if (error !== null) throw error;
      answer = result;
    });
    return answer;
  };
  post('Profiler.enable');
  post('Profiler.startPreciseCoverage', { callCount: true, detailed: false });
  try {
    post('Profiler.takePreciseCoverage');
    work();
    const calls = new Map<string, number>();
    for (const { url, functions } of post('Profiler.takePreciseCoverage').result ?? []) {
      const file = /\/(?:src|dist)\/(.*)\.[jt]s/.exec(url)?.[1];
      if (file === undefined || url.includes('/node_modules/') || file.includes('testing/')) continue;
      for (const { functionName, ranges } of functions) {
        const { count, startOffset } = ranges[0] as (typeof ranges)[0];
        if (count === 0 || functionName === '') continue;
        calls.set(`${file}:${functionName}@${startOffset}`, count);
      }
    }
    return calls;
  } finally {
    post('Profiler.stopPreciseCoverage');
    inspector.disconnect();
  }
}

export function total(calls: ReadonlyMap<string, number>): number {
  let sum = 0;
  for (const count of calls.values()) sum += count;
  return sum;
}
