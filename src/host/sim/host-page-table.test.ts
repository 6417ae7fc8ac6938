import { describe, expect, it } from 'vitest';
import type { PageTableFormat } from '../../spec/pagetable/format.js';
import { ACCESS_FLAG, GRANULE, vmsaStage1, vmsaStage2 } from '../../spec/pagetable/vmsa.js';
import { vtdFirstStage, vtdSecondStage } from '../../spec/pagetable/vtd.js';
import { WALK, WalkResult } from '../../walk/types.js';
import { walk } from '../../walk/walk.js';
import {
  HOST_PAGING,
  type TableEncoding,
  VMSA_STAGE1,
  VMSA_STAGE2,
  VTD_FIRST,
  VTD_SECOND,
} from './encodings.js';
import { HostPageTable } from './host-page-table.js';
import { HostMemory } from './memory.js';

const common = {
  granule: GRANULE.KIB_4,
  inputBits: 48,
  outputBits: 48,
  largePhysical: false,
  accessFlag: ACCESS_FLAG.FAULT,
  dirtyState: false,
} as const;

const FORMATS: readonly (readonly [TableEncoding, PageTableFormat, readonly number[]])[] = [
  [VTD_SECOND, vtdSecondStage(HOST_PAGING, { levels: 4, accessedDirty: true }), [0, 1, 2, 3]],
  [
    VTD_FIRST,
    vtdFirstStage(HOST_PAGING, { levels: 4, writeProtect: false, extendedAccessed: false }),
    [0, 1, 3, 3],
  ],
  [
    VMSA_STAGE1,
    vmsaStage1({
      ...common,
      upper: false,
      topByteIgnored: false,
      hierarchical: true,
      writeExecuteNever: false,
      privilegedAccessNever: false,
      singlePrivilege: false,
    }),
    [0, 1, 3, 3],
  ],
  [
    VMSA_STAGE2,
    vmsaStage2({ ...common, startLevel: 0, executeNeverByPrivilege: false, protectedTableWalk: false }),
    [0, 1, 2, 3],
  ],
];

for (const [encoding, format, rightsOf] of FORMATS) {
  describe(`host tables: ${encoding.name}`, () => {
    const look = (memory: HostMemory, table: HostPageTable, page: number) => {
      const result = new WalkResult();
      const address = page * 4096;
      const outcome = walk(
        format,
        memory,
        table.root,
        address | 0,
        Math.floor(address / 2 ** 32) | 0,
        3,
        result,
      );
      if (outcome === WALK.PERMISSION) return { rights: result.permissions & 3, log2: 0, out: -1 };
      if (outcome !== WALK.OK) return undefined;
      const block = (result.outHi >>> 0) * 2 ** 20 + (result.outLo >>> 12);
      return {
        rights: result.permissions & 3,
        log2: result.log2Size,
        out: block + (page % 2 ** (result.log2Size - 12)),
      };
    };

    it('are walked to what was mapped, in the largest blocks', () => {
      const memory = new HostMemory(2 ** 22);
      const table = new HostPageTable(memory, encoding);
      // 1 GiB + 2 MiB + 1 page, aligned alike on both sides.
      const pages = 2 ** 18 + 512 + 1;
      table.map(2 ** 18, 2 ** 26, pages, 3);
      expect(look(memory, table, 2 ** 18 + 12345)).toEqual({ rights: 3, log2: 30, out: 2 ** 26 + 12345 });
      expect(look(memory, table, 2 ** 19 + 5)).toEqual({ rights: 3, log2: 21, out: 2 ** 26 + 2 ** 18 + 5 });
      expect(look(memory, table, 2 ** 19 + 512)).toEqual({
        rights: 3,
        log2: 12,
        out: 2 ** 26 + 2 ** 18 + 512,
      });
      expect(look(memory, table, 2 ** 19 + 513)).toBeUndefined();
      expect(look(memory, table, 2 ** 18 - 1)).toBeUndefined();
      expect(table.pages).toBe(1 + 1 + 1 + 1);
      table.unmap(2 ** 18, pages);
      expect(look(memory, table, 2 ** 18)).toBeUndefined();
      table.reclaim();
      expect(table.pages).toBe(1);
      table.destroy();
      expect(memory.pool.used.tables).toBe(0);
    });

    it('allow the rights that the format can express', () => {
      const memory = new HostMemory(2 ** 22);
      const table = new HostPageTable(memory, encoding);
      for (const rights of [1, 2, 3]) {
        table.map(rights, 100, 1, rights);
        expect(look(memory, table, rights)?.rights).toBe(rightsOf[rights]);
        table.map(512 * rights, 512, 512, rights);
        expect(look(memory, table, 512 * rights)?.rights).toBe(rightsOf[rights]);
      }
    });

    it('undo a mapping for which memory runs out', () => {
      const memory = new HostMemory(2 ** 20);
      const table = new HostPageTable(memory, encoding);
      table.map(0, 1, 1, 3);
      const before = table.pages;
      memory.pool.tableLimit = before + 3;
      expect(() => table.map(511, 7, 512 * 9, 3)).toThrow('NO_TABLE_MEMORY');
      table.reclaim();
      expect(table.pages).toBe(before);
      expect(look(memory, table, 511)).toBeUndefined();
      expect(look(memory, table, 0)?.out).toBe(1);
      memory.pool.tableLimit = Number.POSITIVE_INFINITY;
      table.map(511, 7, 512 * 9, 3);
      expect(look(memory, table, 511 + 512 * 8)?.out).toBe(7 + 512 * 8);
    });

    it('agree with a plain map over random changes and leave nothing', () => {
      const memory = new HostMemory(2 ** 24);
      const table = new HostPageTable(memory, encoding);
      const plain = new Map<number, { pages: number; out: number }>();
      let seed = 99;
      const random = (below: number): number => {
        seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
        return Math.floor((seed / 2 ** 32) * below);
      };
      for (let step = 0; step < 1500; step++) {
        const slot = random(64) * 2 ** 11 + random(3) * 2 ** 27;
        const there = plain.get(slot);
        if (there === undefined) {
          const pages = 1 + random(2 ** 11);
          const out = random(2) === 0 ? slot : random(2 ** 20);
          table.map(slot, out, pages, 3);
          plain.set(slot, { pages, out });
        } else {
          table.unmap(slot, there.pages);
          table.reclaim();
          plain.delete(slot);
        }
        for (let probe = 0; probe < 3; probe++) {
          const page = random(64) * 2 ** 11 + random(2 ** 11) + random(3) * 2 ** 27;
          const base = page - (page % 2 ** 11);
          const range = plain.get(base);
          const expected = range && page - base < range.pages ? range.out + page - base : undefined;
          expect(look(memory, table, page)?.out).toBe(expected);
        }
      }
      for (const [page, { pages }] of plain) table.unmap(page, pages);
      table.reclaim();
      expect(table.pages).toBe(1);
      table.destroy();
      expect(memory.pool.used.tables).toBe(0);
    });
  });
}
