import { describe, expect, it } from 'vitest';
import { dmaRead } from '../../test/support/host-rig.js';
import { GUEST_RID, VtdGuest as Guest, IOVA, vtd3 } from '../../test/support/nested-guests.js';
import type { VtdInvalidations as Invalidate } from '../sim/vtd-invalidate.js';
import { PGTT } from '../spec/vtd/structures.js';

describe('domain-ids of the guest, which are no tags of the host', () => {
  /** Requests without PASID and with PASID 5, each with a page that has been used. */
  function used() {
    const guest = new Guest(vtd3());
    const device = guest.vf();
    const { driver } = guest;
    driver.start();
    const own = driver.createDomain('first');
    driver.attach(GUEST_RID, own);
    driver.map(own, BigInt(IOVA), 0x6000, 0x1000);
    const domain = driver.createDomain('first');
    driver.attach(GUEST_RID, domain, { pasid: 5 });
    driver.map(domain, BigInt(IOVA), 0x6000, 0x1000);
    guest.memory.store32(0x6000, 6);
    guest.memory.store32(0x7000, 7);
    const read = (pasid: number) => dmaRead(device, IOVA, 1, pasid)?.[0];
    expect([read(-1), read(5)]).toEqual([6, 6]);
    /** The same tables, in memory, under another domain-id. */
    const rename = (pasid: number, { table }: typeof domain, DID: number): void =>
      driver.scalable?.setPasid(GUEST_RID, pasid, {
        ...{ P: 1, PWSNP: 1, PGTT: PGTT.FIRST_STAGE, FSPTPTR: Number(table?.rootAddress ?? 0n) },
        DID,
      });
    /** Its page is another one, in memory. */
    const edit = ({ table }: typeof domain): void => table?.map(BigInt(IOVA), 0x7000, 0x1000);
    return { guest, driver, own, domain, read, rename, edit };
  }

  it.each([-1, 5])(
    'an entry that has another one now: what PASID %i gave under the old one is gone',
    (pasid) => {
      const { driver, own, domain, read, rename, edit } = used();
      const of = pasid < 0 ? own : domain;
      edit(of);
      rename(Math.max(pasid, 0), of, 99);
      // Entries under the old id are found no more, also where no command drops them (§6.2.1).
      driver.invalidate.pasidCache(of.did, Math.max(pasid, 0));
      driver.invalidate.sync();
      expect(read(pasid)).toBe(7);
    },
  );

  it.each([
    ['a PASID', (to: Invalidate, did: number) => to.pasidIotlb(did, 5)],
    ['a page', (to: Invalidate, did: number) => to.pasidIotlbPage(did, 5, BigInt(IOVA), 0)],
    ['a domain', (to: Invalidate, did: number) => to.iotlbDomain(did)],
    ['an address', (to: Invalidate, did: number) => to.iotlbPage(did, BigInt(IOVA), 0)],
  ])(
    'an invalidation of %s under the old one is heard, as long as the guest’s own unit may have it',
    (_, drop) => {
      const { driver, domain, read, rename, edit } = used();
      rename(5, domain, 99);
      // Of another PASID, under another id: the guest's own unit may not have read the entry again.
      driver.invalidate.pasidCacheDomain(1234);
      driver.invalidate.sync();
      expect(read(5)).toBe(6);
      edit(domain);
      drop(driver.invalidate, domain.did);
      driver.invalidate.sync();
      expect(read(5)).toBe(7);
    },
  );

  it('the same for many in turn', () => {
    const { driver, domain, read, rename, edit } = used();
    for (let did = 100; did < 120; did++) {
      rename(5, domain, did);
      driver.invalidate.pasidCacheDomain(1234);
      driver.invalidate.sync();
    }
    expect(read(5)).toBe(6);
    edit(domain);
    driver.invalidate.pasidIotlb(domain.did, 5);
    driver.invalidate.sync();
    expect(read(5)).toBe(7);
  });

  it('RID_PASID names another entry now', () => {
    const { driver, own, read, rename, edit } = used();
    rename(9, own, own.did);
    edit(own);
    driver.scalable?.setContext(GUEST_RID, { P: 1, PASIDE: 1, RID_PASID: 9 });
    driver.invalidate.contextDevice(0, GUEST_RID);
    driver.invalidate.sync();
    expect(read(-1)).toBe(7);
  });

  it('of others do not concern it', () => {
    const { driver, domain, read, edit } = used();
    edit(domain);
    driver.invalidate.pasidIotlb(domain.did + 1, 5);
    driver.invalidate.pasidIotlb(domain.did, 6);
    driver.invalidate.iotlbDomain(domain.did + 1);
    driver.invalidate.sync();
    expect(read(5)).toBe(6);
  });
});
