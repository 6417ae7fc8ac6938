import { describe, expect, it } from 'vitest';
import { contextEntry, TestMachine } from '../../../test/support/vtd-unit.js';
import { ANY, NO_PASID, NO_TAG } from '../../base/ids.js';
import { NO_DOMAIN } from '../spans.js';
import { noTables, THROUGH } from '../tables.js';

const RID = 0x18;
const PWSNP = 1n << 23n;

function tablesOf(vm: TestMachine, pasid = NO_PASID) {
  const out = noTables();
  vm.model.spaces.tables?.(RID, pasid, out);
  const { roots, count } = out;
  return { ...out, roots: roots.slice(0, count) };
}

describe('tables of a requester', () => {
  it('are none while translation is off', () => {
    const vm = new TestMachine();
    const interrupts = { holeFirst: 0xfee00, holeLast: 0xfeeff };
    const through = { through: THROUGH.IDENTITY, reach: 64, count: 0, space: NO_DOMAIN, sub: ANY };
    expect(tablesOf(vm)).toMatchObject({ ...through, ...interrupts });
  });

  it('are none where its entry is not present, or passes requests through', () => {
    const vm = new TestMachine();
    vm.setRoot(0);
    vm.enable();
    expect(tablesOf(vm)).toMatchObject({ through: THROUGH.NOTHING, count: 0, space: NO_TAG });
    vm.context(RID, ...contextEntry(0, 3, { tt: 2 }));
    expect(tablesOf(vm)).toMatchObject({ through: THROUGH.IDENTITY, reach: 48, count: 0, space: 3 });
    expect(vm.faults()).toEqual([]);
  });

  it('are a second stage, whose invalidations say where and come with every change', () => {
    const vm = new TestMachine();
    const root = vm.page();
    vm.context(RID, ...contextEntry(root, 5));
    vm.setRoot(0);
    vm.enable();
    const change = { addressed: true, silent: false, updates: true };
    expect(tablesOf(vm)).toMatchObject({ through: THROUGH.TABLES, roots: [root], space: 5, ...change });
  });

  it('are a first stage, which may be changed only where the walk snoops', () => {
    const vm = new TestMachine();
    const { directory } = vm.scalableContext(RID, { paside: true });
    const root = vm.page();
    for (const [pasid, snoop] of [
      [4, PWSNP],
      [5, 0n],
    ] as const) {
      vm.pasidEntry(directory, pasid, 1n | (1n << 6n), 9n | snoop, BigInt(root));
    }
    vm.setRoot(1);
    vm.enable();
    const first = { through: THROUGH.TABLES, roots: [root], space: 9, addressed: false, silent: true };
    expect(tablesOf(vm, 4)).toMatchObject({ ...first, sub: 4, updates: true });
    expect(tablesOf(vm, 5)).toMatchObject({ ...first, sub: 5, updates: false });
  });

  it('are both stages, one on the other', () => {
    const vm = new TestMachine();
    const { directory } = vm.scalableContext(RID, { paside: true });
    const first = vm.page();
    const second = vm.page();
    const low = 1n | (3n << 6n) | (2n << 2n) | BigInt(second);
    vm.pasidEntry(directory, 4, low, 9n | PWSNP, BigInt(first));
    vm.setRoot(1);
    vm.enable();
    const nested = { through: THROUGH.NESTED, count: 1, roots: [first], secondRoot: second };
    expect(tablesOf(vm, 4)).toMatchObject({ ...nested, addressed: false, silent: true });
  });
});
