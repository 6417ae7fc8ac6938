/**
 * Which invalidations of a VT-d guest concern an endpoint: by every name that its entry had since
 * its tables are bound.
 */
import { describe, expect, it } from 'vitest';
import { ANY } from '../base/ids.js';
import type { HostDevice } from '../host/port.js';
import { Binding } from './binding.js';

const DEVICE = {} as HostDevice;

function bound(did: number, tag: number): Binding {
  const binding = new Binding(DEVICE, 5);
  binding.renew(did, tag);
  return binding;
}

describe('the names of a binding', () => {
  it('are the domain-id and the PASID of its entry', () => {
    const binding = bound(3, 9);
    expect(binding.named(3, 9)).toBe(true);
    expect(binding.named(3, 8)).toBe(false);
    expect(binding.named(4, 9)).toBe(false);
    expect([binding.named(3, ANY), binding.named(ANY, 9), binding.named(ANY, ANY)]).toEqual([
      true,
      true,
      true,
    ]);
    expect([binding.named(4, ANY), binding.named(ANY, 8)]).toEqual([false, false]);
  });

  it('are others when either of the two is, and the former ones stay', () => {
    const binding = bound(3, 9);
    expect(binding.rename(3, 9)).toBe(false);
    expect(binding.rename(4, 9)).toBe(true);
    expect(binding.rename(4, 8)).toBe(true);
    expect(binding.rename(4, 8)).toBe(false);
    for (const [did, tag] of [
      [3, 9],
      [4, 9],
      [4, 8],
    ]) {
      expect(binding.named(did, tag), `${did}, ${tag}`).toBe(true);
    }
    expect(binding.named(3, 8), 'a pair that it never had').toBe(false);
  });

  it('are forgotten with the tables that they were of', () => {
    const binding = bound(3, 9);
    binding.rename(4, 9);
    binding.renew(5, 9);
    expect([binding.named(3, 9), binding.named(4, 9), binding.named(5, 9)]).toEqual([false, false, true]);
  });

  it('are told apart up to eight former ones; with more, every invalidation concerns it', () => {
    const binding = bound(0, 9);
    for (let did = 1; did <= 8; did++) binding.rename(did, 9);
    for (let did = 0; did <= 8; did++) expect(binding.named(did, 9)).toBe(true);
    expect(binding.named(77, 9)).toBe(false);
    binding.rename(9, 9);
    expect(binding.named(77, 9)).toBe(true);
    binding.renew(1, 9);
    expect(binding.named(77, 9)).toBe(false);
  });
});
