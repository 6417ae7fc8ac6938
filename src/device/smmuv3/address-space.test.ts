import { describe, expect, it } from 'vitest';
import { S2_LEAF, SID, TestSmmu } from '../../../test/support/smmu-unit.js';
import { ANY, NO_PASID, NO_TAG } from '../../base/ids.js';
import { GBPA } from '../../spec/smmuv3/registers.js';
import { STE_CONFIG } from '../../spec/smmuv3/structures.js';
import { NO_DOMAIN } from '../spans.js';
import { noTables, THROUGH } from '../tables.js';

const UPDATE_ABORT = 0x8010_0000;

function tablesOf(vm: TestSmmu, sid = SID) {
  const out = noTables();
  vm.model.spaces.tables?.(sid, NO_PASID, out);
  const { formats, roots, count } = out;
  return { ...out, formats: formats.slice(0, count).map(({ name }) => name), roots: roots.slice(0, count) };
}

describe('tables of a stream', () => {
  it('get entries without a word, as there is no caching mode', () => {
    expect(new TestSmmu().model.spaces.mapsInSilence).toBe(true);
  });

  it('are none while the SMMU is off: all passes, or nothing with GBPA.ABORT', () => {
    const vm = new TestSmmu({ oas: '40' });
    const off = { through: THROUGH.IDENTITY, reach: 40, count: 0, space: NO_DOMAIN, sub: ANY };
    expect(tablesOf(vm)).toMatchObject(off);
    vm.write32(GBPA.offset, UPDATE_ABORT);
    expect(tablesOf(vm)).toMatchObject({ ...off, through: THROUGH.NOTHING });
    // It counts only until the SMMU is on.
    vm.start();
    vm.ste(SID, { Config: STE_CONFIG.BYPASS });
    expect(tablesOf(vm)).toMatchObject(off);
  });

  it('are none where its entry aborts or is not valid', () => {
    const vm = new TestSmmu().start();
    vm.ste(SID, { Config: STE_CONFIG.ABORT });
    for (const sid of [SID, SID + 1, 0x100]) {
      expect(tablesOf(vm, sid)).toMatchObject({ through: THROUGH.NOTHING, count: 0, space: NO_TAG });
    }
    expect(vm.recorded()).toEqual([]);
  });

  it('are both halves of stage 1 that may be walked, the lower one first', () => {
    const vm = new TestSmmu().start();
    const upper = vm.page();
    const both = { EPD1: 0, T1SZ: 16, TG1: 2, TTB1: upper };
    const { root } = vm.stage1(SID, both, { S2VMID: 7 });
    const stage1 = { through: THROUGH.TABLES, space: 7, sub: 5, addressed: false, silent: true };
    expect(tablesOf(vm)).toMatchObject({ ...stage1, count: 2, roots: [root, upper] });
    vm.stage1(SID, { ...both, EPD0: 1 }, { S2VMID: 7 });
    expect(tablesOf(vm)).toMatchObject({ ...stage1, count: 1, roots: [upper] });
  });

  it('are those of stage 2, whose invalidations say where', () => {
    const vm = new TestSmmu().start();
    const root = vm.page(2);
    vm.ste(SID, { Config: STE_CONFIG.S2_TRANSLATE, ...vm.stage2Fields(root) });
    const tables = tablesOf(vm);
    expect(tables).toMatchObject({ through: THROUGH.TABLES, count: 1, roots: [root], space: 7, sub: ANY });
    expect([tables.formats, tables.addressed, tables.silent]).toEqual([
      [tables.secondFormat?.name],
      true,
      true,
    ]);
  });

  it('are those of both stages, one on the other', () => {
    const vm = new TestSmmu().start();
    const second = vm.page(2);
    const { root, cd } = vm.stage1(SID, {}, { Config: STE_CONFIG.NESTED, ...vm.stage2Fields(second) });
    vm.map(second, BigInt(cd), BigInt(cd), S2_LEAF, 1);
    expect(tablesOf(vm)).toMatchObject({
      through: THROUGH.NESTED,
      roots: [root],
      secondRoot: second,
      space: 7,
      sub: 5,
      addressed: false,
    });
  });
});
