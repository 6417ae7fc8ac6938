/**
 * Lets a simulated driver ask for more than it needs, and wait in between: that is right, too, and
 * takes other paths.
 */
export interface Variety {
  /** What the next invalidation covers ({@link WIDTH}). */
  width(): number;
  /** Whether to wait before what has to follow. */
  pauses(): boolean;
}

/** What has changed and no more; all that has its tags; everything. */
export const WIDTH = { EXACT: 0, TAGGED: 1, ALL: 2 } as const;

/** A driver that asks for exactly what it needs. */
export const PLAIN: Variety = { width: () => WIDTH.EXACT, pauses: () => false };
