/**
 * Lets a simulated driver invalidate more than it needs, and wait in between. Both are legal, and
 * take other paths.
 */
export interface Variety {
  /** What the next invalidation covers ({@link WIDTH}). */
  width(): number;
  /** Whether to wait before what has to follow. */
  pauses(): boolean;
}

/** Only what has changed; everything with its tags; everything. */
export const WIDTH = { EXACT: 0, TAGGED: 1, ALL: 2 } as const;

/** A driver that asks for exactly what it needs. */
export const PLAIN: Variety = { width: () => WIDTH.EXACT, pauses: () => false };
