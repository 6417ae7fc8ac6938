import { describe, expect, it } from 'vitest';
import { contextEntry, descriptor, READ, TestMachine, WRITE } from '../../../test/support/vtd-unit.js';
import { ANY, NO_PASID } from '../../base/ids.js';
import { CC_INV_DSC, IOTLB_INV_DSC, PC_INV_DSC } from '../../spec/vtd/descriptors.js';
import { FAULT } from '../../spec/vtd/faults.js';
import { RTADDR_REG } from '../../spec/vtd/registers.js';
import { noWalkTables } from '../tables.js';

const RID = 0x18;
const page = (did: number, address: number): Uint32Array =>
  descriptor(IOTLB_INV_DSC, { TypeLow: 2, G: 3, DID: did, ADDR: address });
const globalIotlb = descriptor(IOTLB_INV_DSC, { TypeLow: 2, G: 1 });

function legacy(options: Record<string, string> = {}) {
  const vm = new TestMachine(options);
  const root = vm.page();
  vm.context(RID, ...contextEntry(root, 5));
  vm.setRoot(0);
  vm.enable();
  vm.enableQueue(false);
  return { vm, root };
}

describe('a forgotten invalidation', () => {
  it.each([
    ['faithful', 0x40_0000n],
    ['none', 0x50_0000n],
  ])('under the policy %s the device reaches %s', (policy, expected) => {
    const { vm, root } = legacy({ 'cache-policy': policy });
    vm.mapSecond(root, 4, 0x1000n, 0x40_0000n);
    vm.translate(RID, 0x1000n, READ);
    vm.mapSecond(root, 4, 0x1000n, 0x50_0000n);
    expect(vm.translate(RID, 0x1000n, READ).out).toBe(expected);
    vm.submit(page(5, 0x1000));
    expect(vm.translate(RID, 0x1000n, READ).out).toBe(0x50_0000n);
  });

  it('hostile: both the old and the new mapping are seen', () => {
    const { vm, root } = legacy({ 'cache-policy': 'hostile' });
    const leaf = vm.mapSecond(root, 4, 0x1000n, 0x40_0000n);
    const seen = new Set<bigint>();
    for (let round = 0; round < 60; round++) {
      vm.entry(leaf, BigInt(round % 2 === 0 ? 0x40_0003 : 0x50_0003));
      seen.add(vm.translate(RID, 0x1000n, READ).out);
      seen.add(vm.translate(RID, 0x1000n, READ).out);
    }
    expect(seen.size).toBe(2);
  });

  it('after unmapping, the page stays reachable', () => {
    const { vm, root } = legacy();
    const leaf = vm.mapSecond(root, 4, 0x1000n, 0x40_0000n);
    vm.translate(RID, 0x1000n, WRITE);
    vm.entry(leaf, 0n);
    expect(vm.translate(RID, 0x1000n, WRITE).ok).toBe(true);
    vm.submit(page(5, 0x1000));
    expect(vm.translate(RID, 0x1000n, WRITE).ok).toBe(false);
  });

  it('granting a right needs an invalidation as well', () => {
    const { vm, root } = legacy();
    vm.mapSecond(root, 4, 0x1000n, 0x40_0000n, 1, 1n);
    vm.translate(RID, 0x1000n, READ);
    vm.mapSecond(root, 4, 0x1000n, 0x40_0000n);
    expect(vm.translate(RID, 0x1000n, WRITE).ok).toBe(false);
    expect(vm.lastReason()).toBe(FAULT.LGN_2);
    vm.submit(page(5, 0x1000));
    expect(vm.translate(RID, 0x1000n, WRITE).ok).toBe(true);
  });

  it('of the context-cache: a new context-entry is not seen before', () => {
    const { vm, root } = legacy();
    vm.mapSecond(root, 4, 0x1000n, 0x40_0000n);
    vm.translate(RID, 0x1000n, READ);
    vm.context(RID, ...contextEntry(0, 6, { tt: 2 }));
    vm.submit(globalIotlb);
    expect(vm.translate(RID, 0x1000n, READ)).toMatchObject({ out: 0x40_0000n, space: 5 });
    vm.submit(descriptor(CC_INV_DSC, { TypeLow: 1, G: 3, SID: RID, DID: 5 }), globalIotlb);
    expect(vm.translate(RID, 0x1000n, READ)).toMatchObject({ out: 0x1000n, space: 6 });
  });

  it('goes at Set Root Table Pointer, as ESRTPS says', () => {
    const { vm, root } = legacy();
    vm.mapSecond(root, 4, 0x1000n, 0x40_0000n);
    vm.translate(RID, 0x1000n, READ);
    vm.write64(RTADDR_REG.offset, vm.page());
    expect(vm.translate(RID, 0x1000n, READ).ok).toBe(true);
    vm.invalidations.length = 0;
    vm.setRoot(0, vm.page());
    expect(vm.translate(RID, 0x1000n, READ).ok).toBe(false);
    expect(vm.invalidations).toMatchObject([{ log2Size: 64, structures: true }]);
  });

  it('entries of one mode are not taken for entries of the other', () => {
    const vm = new TestMachine();
    const { directory } = vm.scalableContext(RID);
    vm.pasidEntry(directory, 0, ...[1n | (4n << 6n), 3n]);
    vm.setRoot(1);
    vm.enable();
    expect(vm.translate(RID, 0x1000n, READ).ok).toBe(true);
    const root = vm.page();
    vm.mapSecond(root, 4, 0x5000_0000n, 0x40_0000n);
    vm.context(RID, ...contextEntry(root, 5));
    vm.setRoot(0);
    expect(vm.translate(RID, 0x5000_0000n, READ)).toMatchObject({ ok: true, out: 0x40_0000n });
  });

  it('disabling translation invalidates everything with scalable mode, nothing without', () => {
    for (const [mode, survives] of [
      ['on', false],
      ['off', true],
    ] as const) {
      const { vm, root } = legacy({ 'scalable-mode': mode });
      const leaf = vm.mapSecond(root, 4, 0x1000n, 0x40_0000n);
      vm.translate(RID, 0x1000n, READ);
      vm.entry(leaf, 0n);
      vm.disable();
      vm.enable();
      expect(vm.translate(RID, 0x1000n, READ).ok).toBe(survives);
    }
  });
});

describe('not-present entries', () => {
  it('are not cached without caching mode: a new mapping works at once', () => {
    const { vm, root } = legacy();
    expect(vm.translate(RID, 0x1000n, READ).ok).toBe(false);
    vm.mapSecond(root, 4, 0x1000n, 0x40_0000n);
    expect(vm.translate(RID, 0x1000n, READ).ok).toBe(true);
    expect(vm.translate(0x99, 0x1000n, READ).ok).toBe(false);
    vm.context(0x99, ...contextEntry(root, 5));
    expect(vm.translate(0x99, 0x1000n, READ).ok).toBe(true);
  });

  it('are cached with caching mode until the page is invalidated', () => {
    const { vm, root } = legacy({ 'caching-mode': 'on' });
    expect(vm.translate(RID, 0x1000n, WRITE).ok).toBe(false);
    expect(vm.lastReason()).toBe(FAULT.LGN_2);
    vm.mapSecond(root, 4, 0x1000n, 0x40_0000n);
    expect(vm.translate(RID, 0x1000n, READ).ok).toBe(false);
    expect(vm.lastReason()).toBe(FAULT.LGN_3);
    vm.submit(page(5, 0x2000));
    expect(vm.translate(RID, 0x1000n, READ).ok).toBe(false);
    vm.submit(page(5, 0x1000));
    expect(vm.translate(RID, 0x1000n, READ).ok).toBe(true);
  });

  it('a not-present context-entry is cached under domain 0', () => {
    const { vm, root } = legacy({ 'caching-mode': 'on' });
    vm.mapSecond(root, 4, 0x1000n, 0x40_0000n);
    expect(vm.translate(0x99, 0x1000n, READ).ok).toBe(false);
    vm.context(0x99, ...contextEntry(root, 5));
    vm.submit(descriptor(CC_INV_DSC, { TypeLow: 1, G: 3, SID: 0x99, DID: 5 }));
    expect(vm.translate(0x99, 0x1000n, READ).ok).toBe(false);
    vm.submit(descriptor(CC_INV_DSC, { TypeLow: 1, G: 3, SID: 0x99, DID: 0 }));
    expect(vm.translate(0x99, 0x1000n, READ).ok).toBe(true);
  });

  it.each([0, 3])(
    'a not-present PASID entry goes with its PASID, named with domain %i; first-stage faults are not kept',
    (did) => {
      const vm = new TestMachine({ 'caching-mode': 'on' });
      const { directory } = vm.scalableContext(RID, { paside: true });
      const root = vm.page();
      vm.setRoot(1);
      vm.enable();
      vm.enableQueue(true);
      expect(vm.translate(RID, 0x1000n, READ, 7).ok).toBe(false);
      vm.pasidEntry(directory, 7, 1n | (1n << 6n), 3n | (1n << 23n), BigInt(root));
      expect(vm.translate(RID, 0x1000n, READ, 7).ok).toBe(false);
      expect(vm.lastReason()).toBe(FAULT.SPD_2);
      vm.submit(descriptor(PC_INV_DSC, { TypeLow: 7, G: 1, DID: did, PASID: 7 }));
      expect(vm.translate(RID, 0x1000n, READ, 7).ok).toBe(false);
      expect(vm.lastReason()).toBe(FAULT.SFS_2);
      vm.mapFirst(root, 4, 0x1000n, 0x50_0000n);
      expect(vm.translate(RID, 0x1000n, READ, 7).ok).toBe(true);
    },
  );
});

describe('tables for the peer to walk', () => {
  it('are those of the requester, with the tags of its answers, less the interrupt range', () => {
    const { vm, root } = legacy();
    const tables = noWalkTables();
    expect(vm.model.peerWalk?.describe(RID, NO_PASID, 0, tables)).toBe(true);
    expect(tables).toMatchObject({
      root,
      space: 5,
      sub: ANY,
      holeFirst: 0xfee00,
      holeLast: 0xfeeff,
      holeInput: true,
    });
    expect(vm.model.peerWalk?.describe(RID + 1, NO_PASID, 0, tables)).toBe(false);
  });

  it.each([{ 'caching-mode': 'on' }, { 'cache-policy': 'none' }, { 'cache-policy': 'hostile' }])(
    'are none with %o: an entry that becomes present is not to be found at once',
    (options) => {
      const { vm } = legacy(options);
      expect(vm.model.peerWalk?.describe(RID, NO_PASID, 0, noWalkTables())).toBe(false);
    },
  );

  it('make that an IOTLB invalidation by address drops the domain, where they are a first stage', () => {
    const vm = new TestMachine();
    const { directory } = vm.scalableContext(RID, { paside: true });
    // PGTT first stage, domain-id 7, PWSNP.
    vm.pasidEntry(directory, 0, 1n | (1n << 6n), 7n | (1n << 23n), BigInt(vm.page()));
    vm.setRoot(1);
    vm.enable();
    vm.enableQueue(true);
    expect(vm.model.peerWalk?.describe(RID, NO_PASID, 0, noWalkTables())).toBe(true);
    for (let n = 0; n < 2; n++) {
      vm.invalidations.length = 0;
      vm.submit(page(7, 0x1000));
      expect(vm.invalidations).toMatchObject([{ space: 7, log2Size: 64 }]);
    }
  });
});
