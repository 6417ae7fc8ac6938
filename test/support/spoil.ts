/**
 * Between a model and those who hear what it announces: tests that ask whether a checker would notice put something here
 * that leaves an announcement out or changes it. Nothing is spoilt otherwise.
 */
import type { InvalidateScope } from '../../src/device/iommu.js';

/** Returns what is heard instead of an announcement; undefined: nothing. */
export type Spoiler = (scope: InvalidateScope) => InvalidateScope | undefined;

let spoiler: Spoiler | undefined;

/** What is heard of a scope that a model announces. */
export function heard(scope: InvalidateScope): InvalidateScope | undefined {
  return spoiler === undefined ? scope : spoiler(scope);
}

/** Runs something while every announcement is spoilt so. */
export function spoiling<T>(by: Spoiler, run: () => T): T {
  spoiler = by;
  try {
    return run();
  } finally {
    spoiler = undefined;
  }
}
