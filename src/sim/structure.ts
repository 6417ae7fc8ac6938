import { type Layout, pack } from '../spec/define.js';
import type { GuestRam } from './machine.js';

/** Field values of one structure. */
export type Values<L> = L extends Layout<infer K> ? { readonly [P in K]?: number } : never;

/**
 * Stores a structure. The word with the present bit goes last, so no reader sees half an entry.
 */
export function storeStructure<K extends string>(
  ram: GuestRam,
  at: number,
  shape: Layout<K>,
  values: { readonly [P in K]?: number },
): void {
  const words = pack(shape, values);
  for (let i = shape.wordCount - 2; i >= 0; i -= 2) {
    ram.store64(at + i * 4, (BigInt(words[i + 1] >>> 0) << 32n) | BigInt(words[i] >>> 0));
  }
}

/** Loads a structure's words. */
export function loadStructure(ram: GuestRam, at: number, shape: Layout<string>): Uint32Array {
  return Uint32Array.from({ length: shape.wordCount }, (_, i) => ram.load32(at + i * 4));
}
