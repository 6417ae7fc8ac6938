/**
 * Processes and directories that a test file has made. A test that fails, or times out, does not
 * reach its own clean-up: what is left is ended when the file is over, so that it takes no
 * processor from the files after it.
 */
import { afterAll } from 'vitest';

const left = new Set<() => unknown>();

afterAll(async () => {
  const ends = [...left].reverse();
  left.clear();
  const results = await Promise.allSettled(ends.map(async (end) => end()));
  for (const result of results) if (result.status === 'rejected') throw result.reason;
});

/**
 * Has `end` called when the test file is over. Returns what takes that back, for a thing that has
 * been ended.
 */
export function endWithFile(end: () => unknown): () => void {
  left.add(end);
  return () => void left.delete(end);
}
