import { describe, expect, it } from 'vitest';
import { MISS } from './entry-cache.js';
import { Iotlb, STAGE } from './iotlb.js';

interface Entry {
  rid: number;
  pasid: number;
  address: bigint;
  log2: number;
  domain: number;
  tag: number;
  stage: number;
}

const lo = (value: bigint): number => Number(value & 0xffffffffn);
const hi = (value: bigint): number => Number((value >> 32n) & 0xffffffffn);

function add(tlb: Iotlb, entry: Entry, fault = 0): void {
  tlb.insert(
    entry.rid,
    entry.pasid,
    lo(entry.address),
    hi(entry.address),
    entry.log2,
    0x1000,
    0,
    3,
    1,
    entry.domain,
    entry.tag,
    entry.stage,
    fault,
  );
}

const has = (tlb: Iotlb, entry: Entry, offset = 0n): boolean =>
  tlb.lookup(entry.rid, entry.pasid, lo(entry.address + offset), hi(entry.address + offset)) !== MISS;

const base: Entry = {
  rid: 1,
  pasid: -1,
  address: 0x12_3456_7000n,
  log2: 12,
  domain: 5,
  tag: 0xffffffff,
  stage: STAGE.SECOND,
};

describe('IOTLB', () => {
  it('is tagged by requester, PASID and page', () => {
    const tlb = new Iotlb('faithful');
    add(tlb, base);
    expect(has(tlb, base, 0xfffn)).toBe(true);
    expect(has(tlb, base, 0x1000n)).toBe(false);
    expect(has(tlb, { ...base, rid: 2 })).toBe(false);
    expect(has(tlb, { ...base, pasid: 0 })).toBe(false);
    expect(has(tlb, { ...base, address: base.address + (1n << 32n) })).toBe(false);
    const slot = tlb.lookup(1, -1, lo(base.address), hi(base.address));
    expect([
      tlb.log2SizeOf(slot),
      tlb.domainOf(slot),
      tlb.tagOf(slot),
      tlb.permissions[slot],
      tlb.cachable[slot],
    ]).toEqual([12, 5, 0xffffffff, 3, 1]);
  });

  it('replaces an entry of the same page and evicts within a set', () => {
    const tlb = new Iotlb('faithful', 4);
    add(tlb, base);
    add(tlb, base, 9);
    expect(tlb.size).toBe(1);
    expect(tlb.faults[tlb.lookup(1, -1, lo(base.address), hi(base.address))]).toBe(9);
    for (let rid = 0; rid < 40; rid++) add(tlb, { ...base, rid });
    expect(tlb.size).toBe(4);
  });

  it('keeps nothing under the policy none, and drops now and then under hostile', () => {
    const none = new Iotlb('none');
    add(none, base);
    expect(has(none, base)).toBe(false);
    const hostile = new Iotlb('hostile');
    let dropped = 0;
    for (let round = 0; round < 100; round++) {
      add(hostile, base);
      if (!has(hostile, base)) dropped++;
    }
    expect(dropped).toBeGreaterThan(0);
    expect(dropped).toBeLessThan(50);
  });
});

/** xorshift32 */
function generator(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

type Predicate = (entry: Entry) => boolean;

function overlaps(entry: Entry, address: bigint, addressMask: number): boolean {
  const shift = BigInt(Math.max(entry.log2, 12 + addressMask));
  return entry.address >> shift === address >> shift;
}

describe('IOTLB invalidation drops exactly what each granularity names', () => {
  it.each([1, 2, 3, 4, 5, 6])('seed %i', (seed) => {
    const random = generator(0x1234567 * seed);
    const tlb = new Iotlb('faithful', 14);
    for (let round = 0; round < 200; round++) {
      const entries: Entry[] = [];
      for (let count = 0; count < 40; count++) {
        const log2 = [12, 21, 30][random(3)];
        const entry: Entry = {
          rid: random(3),
          pasid: random(3) - 1,
          address: (BigInt(random(64)) << 30n) | (BigInt(random(8)) << 21n) | (BigInt(random(16)) << 12n),
          log2,
          domain: random(3),
          tag: random(3),
          stage: random(2),
        };
        entry.address = (entry.address >> BigInt(log2)) << BigInt(log2);
        const same = entries.findIndex(
          (other) =>
            other.rid === entry.rid &&
            other.pasid === entry.pasid &&
            overlaps(other, entry.address, entry.log2 - 12),
        );
        if (same >= 0) continue;
        entries.push(entry);
        add(tlb, entry);
      }
      const target = entries[random(entries.length)];
      const { domain, tag } = target;
      const addressMask = [0, 1, 3, 5, 6, 7, 9, 12, 18, 25, 36][random(11)];
      const address = target.address + BigInt(random(2) * 0x3000);
      const kind = random(5);
      const page: Predicate = (entry) =>
        entry.domain === domain && (entry.stage === STAGE.FIRST || overlaps(entry, address, addressMask));
      const tagged: Predicate = (entry) =>
        entry.domain === domain &&
        entry.tag === tag &&
        entry.stage === STAGE.FIRST &&
        overlaps(entry, address, addressMask);
      const gone: Predicate[] = [
        () => true,
        (entry) => entry.domain === domain,
        (entry) => entry.domain === domain && entry.tag === tag,
        page,
        tagged,
      ];
      if (kind === 0) tlb.invalidateAll();
      else if (kind === 1) tlb.invalidateDomain(domain);
      else if (kind === 2) tlb.invalidateTag(domain, tag);
      else if (kind === 3) tlb.invalidatePages(domain, lo(address), hi(address), addressMask);
      else tlb.invalidateTaggedPages(domain, tag, lo(address), hi(address), addressMask);
      for (const entry of entries) {
        const text = `kind ${kind} mask ${addressMask} address ${address.toString(16)} ${JSON.stringify(entry, (_key, value) => (typeof value === 'bigint' ? value.toString(16) : value))}`;
        expect(has(tlb, entry), text).toBe(!gone[kind](entry));
      }
      expect(tlb.size).toBe(entries.filter((entry) => !gone[kind](entry)).length);
      tlb.invalidateAll();
    }
  });
});
