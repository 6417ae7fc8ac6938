/**
 * Between a model and those who hear what it announces: tests that ask whether a checker would
 * notice put something here that leaves an announcement out or changes it. Nothing is spoilt
 * otherwise.
 */
import type { InvalidateScope } from '../../src/device/iommu.js';

/** Returns what is heard instead of an announcement; undefined: nothing. */
export type Spoiler = (scope: InvalidateScope) => InvalidateScope | undefined;

let spoiler: Spoiler | undefined;

/** What is heard of a scope that a model announces. */
export function heard(scope: InvalidateScope): InvalidateScope | undefined {
  return spoiler === undefined ? scope : spoiler(scope);
}

/** What a peer that carries out commands itself does wrong, or the daemon with what it did. */
export interface PeerSpoiler {
  /** Changes the description that came. */
  readonly describes?: (commands: Uint32Array) => void;
  /** What was asked for before entries were dropped is cached all the same. */
  readonly forgetsGeneration?: boolean;
  /** The daemon answers before it has taken the copies. */
  readonly takesLate?: boolean;
}

let peer: PeerSpoiler = {};

/** What is wrong with the peer now. */
export function peerSpoilt(): PeerSpoiler {
  return peer;
}

/** Runs something with such a peer. */
export function spoilingPeer<T>(by: PeerSpoiler, run: () => T): T {
  peer = by;
  try {
    return run();
  } finally {
    peer = {};
  }
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
