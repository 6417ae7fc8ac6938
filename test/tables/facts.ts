/** What both models' transcriptions are written in. */

export type Range = readonly [msb: number, lsb: number];
export type Ranges = { readonly [name: string]: Range };

export interface RegisterFacts {
  readonly offset: number;
  readonly width: 32 | 64 | 128;
  readonly fields: Ranges;
}

export interface StructureFacts {
  readonly bytes: number;
  readonly fields: Ranges;
}

/** A field of one bit. */
export const bit = (n: number): Range => [n, n];
