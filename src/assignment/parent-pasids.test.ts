import { describe, expect, it } from 'vitest';
import { FREED, NO_PASID_FOR_YOU, ParentPasids, type PasidOwner } from './parent-pasids.js';

/** Invalidates everything in quarantine. Returns what it was. */
function clean(space: ParentPasids): number[] {
  const batch = new Int32Array(16);
  const all: number[] = [];
  for (let count = space.beginCleaning(batch); count > 0; count = space.beginCleaning(batch)) {
    const some = [...batch.subarray(0, count)];
    all.push(...some);
    for (const pasid of some) space.cleaned(pasid);
  }
  return all;
}

describe('the PASIDs of a parent device', () => {
  it('never gives one to two guests, nor PASID 0 to any', () => {
    const space = new ParentPasids(4);
    const a = space.addOwner('a', 100);
    const b = space.addOwner('b', 100);
    const got = new Set<number>();
    for (let i = 0; i < 15; i++) got.add(space.allocate(i % 2 === 0 ? a : b));
    expect([...got].sort((x, y) => x - y)).toEqual(Array.from({ length: 15 }, (_, i) => i + 1));
    expect(space.allocate(a)).toBe(NO_PASID_FOR_YOU.EXHAUSTED);
    expect([a.live, b.live, space.live]).toEqual([8, 7, 15]);
  });

  it('lets a guest use and free only its own', () => {
    const space = new ParentPasids(8);
    const a = space.addOwner('a', 10);
    const b = space.addOwner('b', 10);
    const mine = space.allocate(a);
    expect(space.owns(a, mine)).toBe(true);
    expect(space.owns(b, mine)).toBe(false);
    expect(space.ownerOf(mine)).toBe(a);
    expect(space.free(b, mine)).toBe(FREED.NOT_YOURS);
    expect(space.owns(a, mine)).toBe(true);
    expect(space.free(a, mine)).toBe(FREED.OK);
    expect(space.free(a, mine)).toBe(FREED.NOT_YOURS);
    expect(space.owns(a, mine)).toBe(false);
    expect(space.ownerOf(mine)).toBeUndefined();
    for (const odd of [0, -1, 256, 2 ** 20, 2 ** 32, 1.5, Number.NaN]) {
      expect(space.free(a, odd)).toBe(FREED.NOT_YOURS);
      expect(space.owns(a, odd)).toBe(false);
    }
  });

  it('keeps what was freed until its invalidation was acknowledged', () => {
    const space = new ParentPasids(2);
    const a = space.addOwner('a', 10);
    const [one, two, three] = [space.allocate(a), space.allocate(a), space.allocate(a)] as [
      number,
      number,
      number,
    ];
    space.free(a, two);
    expect(space.allocate(a)).toBe(NO_PASID_FOR_YOU.NOT_CLEAN_YET);
    const batch = new Int32Array(4);
    expect(space.beginCleaning(batch)).toBe(1);
    expect(batch[0]).toBe(two);
    expect(space.beginCleaning(batch)).toBe(0);
    // On its way, not acknowledged.
    expect(space.allocate(a)).toBe(NO_PASID_FOR_YOU.NOT_CLEAN_YET);
    space.notCleaned(two);
    expect(space.allocate(a)).toBe(NO_PASID_FOR_YOU.NOT_CLEAN_YET);
    expect(clean(space)).toEqual([two]);
    expect(space.allocate(a)).toBe(two);
    expect(space.allocate(a)).toBe(NO_PASID_FOR_YOU.EXHAUSTED);
    expect([one, two, three].every((pasid) => space.owns(a, pasid))).toBe(true);
    expect(() => space.cleaned(two)).toThrow('not being cleaned');
  });

  it('uses those again last that were freed last', () => {
    const space = new ParentPasids(3);
    const a = space.addOwner('a', 100);
    const all = Array.from({ length: 7 }, () => space.allocate(a));
    for (const pasid of [all[4], all[1], all[6]]) space.free(a, pasid as number);
    clean(space);
    expect([space.allocate(a), space.allocate(a), space.allocate(a)]).toEqual([all[4], all[1], all[6]]);
  });

  it('counts quarantine against the quota, so that one guest cannot use up the space of others', () => {
    const space = new ParentPasids(6);
    const churner = space.addOwner('churner', 8);
    const other = space.addOwner('other', 60);
    let got = 0;
    for (let i = 0; i < 100; i++) {
      const pasid = space.allocate(churner);
      if (pasid < 0) expect(pasid).toBe(NO_PASID_FOR_YOU.QUOTA);
      else {
        got++;
        space.free(churner, pasid);
      }
    }
    expect(got).toBe(8);
    for (let i = 0; i < 55; i++) expect(space.allocate(other)).toBeGreaterThan(0);
    clean(space);
    expect(space.allocate(churner)).toBeGreaterThan(0);
  });

  it('takes everything back on reset and on disconnect, and leaves others alone', () => {
    const space = new ParentPasids(8);
    const a = space.addOwner('a', 100);
    const b = space.addOwner('b', 100);
    for (let i = 0; i < 10; i++) space.allocate(a);
    const kept = space.allocate(b);
    expect(space.release(a)).toBe(10);
    expect([space.live, space.dirty, a.live, a.dirty]).toEqual([1, 10, 0, 10]);
    expect(space.allocate(a)).toBeGreaterThan(0);
    expect(space.remove(a)).toBe(1);
    expect(space.allocate(a)).toBe(NO_PASID_FOR_YOU.GONE);
    expect(space.ownerCount).toBe(2);
    expect(clean(space)).toHaveLength(11);
    expect([space.ownerCount, space.live, space.dirty]).toEqual([1, 1, 0]);
    expect(space.owns(b, kept)).toBe(true);
    // A new owner gets the place of the one that left, and inherits nothing.
    const c = space.addOwner('c', 100);
    expect(c.index).toBe(a.index);
    for (let pasid = 0; pasid < 256; pasid++) expect(space.owns(c, pasid)).toBe(false);
  });

  it('refuses widths that no device has', () => {
    for (const bits of [0, 21, 3.5]) expect(() => new ParentPasids(bits)).toThrow();
    expect(new ParentPasids(20).limit).toBe(2 ** 20);
  });

  it('agrees with a plain model over random operations', () => {
    const space = new ParentPasids(5);
    const quotas = [4, 9, 40];
    let seed = 12345;
    const random = (below: number): number => {
      seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
      return Math.floor((seed / 2 ** 32) * below);
    };
    const owners: PasidOwner[] = quotas.map((quota, i) => space.addOwner(`o${i}`, quota));
    const live = owners.map(() => new Set<number>());
    const dirty = new Map<number, number>();
    const batch = new Int32Array(3);
    for (let step = 0; step < 20_000; step++) {
      const at = random(owners.length);
      const owner = owners[at] as PasidOwner;
      const mine = live[at] as Set<number>;
      switch (random(8)) {
        case 0:
        case 1:
        case 2:
        case 3: {
          const held = mine.size + [...dirty.values()].filter((who) => who === at).length;
          const used = live.reduce((sum, set) => sum + set.size, 0) + dirty.size;
          const pasid = space.allocate(owner);
          if (held >= (quotas[at] as number)) expect(pasid).toBe(NO_PASID_FOR_YOU.QUOTA);
          else if (used === 31)
            expect(pasid).toBe(dirty.size > 0 ? NO_PASID_FOR_YOU.NOT_CLEAN_YET : NO_PASID_FOR_YOU.EXHAUSTED);
          else {
            expect(pasid).toBeGreaterThan(0);
            expect(live.some((set) => set.has(pasid)) || dirty.has(pasid)).toBe(false);
            mine.add(pasid);
          }
          break;
        }
        case 4:
        case 5: {
          const pasid = random(32);
          expect(space.free(owner, pasid)).toBe(mine.has(pasid) ? FREED.OK : FREED.NOT_YOURS);
          if (mine.delete(pasid)) dirty.set(pasid, at);
          break;
        }
        case 6: {
          const count = space.beginCleaning(batch);
          for (const pasid of batch.subarray(0, count)) {
            expect(dirty.has(pasid)).toBe(true);
            if (random(3) === 0) space.notCleaned(pasid);
            else {
              space.cleaned(pasid);
              dirty.delete(pasid);
            }
          }
          break;
        }
        default:
          if (random(10) === 0) {
            expect(space.release(owner)).toBe(mine.size);
            for (const pasid of mine) dirty.set(pasid, at);
            mine.clear();
          }
      }
      expect([space.live, space.dirty]).toEqual([live.reduce((sum, set) => sum + set.size, 0), dirty.size]);
      for (const [i, set] of live.entries()) expect(owners[i]?.live).toBe(set.size);
    }
  });
});
