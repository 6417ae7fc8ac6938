/** Known differences of the VT-d units: requests in either mode. See vtd-known.ts. */
import {
  ALL,
  FIRST_RIGHTS,
  firstStage,
  meetsInterruptRange,
  path,
  RECORD,
  refusals,
  refusedByOurs,
  refusedByStock,
  TABLE_REASONS,
  type VtdKnown,
} from './vtd-conditions.js';
import { REG } from './vtd-machine.js';
import { pathOf } from './vtd-path.js';
import { MASK52 } from './vtd-tables.js';

export const VTD_REQUESTS: readonly VtdKnown[] = [
  {
    id: 'identity-size',
    right: 'either',
    section: '3.7, 9.3',
    says: 'Untranslated and pass-through requests: ours answers with one block, stock with the page.',
    claims: ({ ours, stock }) => {
      const identity =
        ours['output'] === stock['output'] && stock['log2'] === 12 && Number(ours['log2']) >= 20;
      return identity && ours['permissions'] === 3 ? ['log2'] : [];
    },
  },
  {
    id: 'fault-compression',
    right: 'either',
    section: '7.2.1',
    says: 'A fault of a requester that has one pending: stock drops it (compression), ours finds no free record and sets PFO.',
    claims: ({ step, ours, stock }) => {
      // The pending one: both show it again.
      const same =
        step.request !== undefined && ours['SID'] === step.request.rid && ours['SID'] === stock['SID'];
      return same && ours['FSTS'] === 3n && stock['FSTS'] === 2n ? ['FSTS'] : [];
    },
  },
  {
    id: 'fpd-reserved-context',
    right: 'viommu',
    section: '7.1.3 (LCT.3)',
    says: 'LCT.3 is a qualified fault: FPD suppresses it. Stock records it.',
    claims: (d) => {
      const fpd = ((path(d)?.context[0] ?? 0n) & 2n) !== 0n;
      return fpd && refusals(d, ['none'], ['LCT.3']) ? RECORD : [];
    },
  },
  {
    id: 'interrupt-range-page',
    right: 'viommu',
    section: '3.15 (LGN.4, SGN.8)',
    says: 'Requests whose own address comes out in the interrupt range are blocked. Stock blocks every address of a large page that contains the range.',
    claims: (d) => {
      const leaf = path(d)?.entries.at(-1);
      const blocked = refusedByStock(d, ['LGN.4', 'SGN.8']);
      return blocked && leaf !== undefined && leaf.level > 1 && Number(d.ours['log2']) < 3 + 9 * leaf.level
        ? ALL
        : [];
    },
  },
  {
    id: 'interrupt-range-block',
    right: 'either',
    section: '3.15',
    says: 'A large page that contains the interrupt range: ours answers with the part around the request that keeps clear of it.',
    claims: (d) => {
      const { ours, stock, step } = d;
      const [output, input] = [ours['output'], step.request?.address];
      if (typeof output !== 'bigint' || input === undefined || output !== stock['output']) return [];
      const sides = step.request?.pasid === -1 ? [output, input] : [output];
      const meets = (log2: unknown): boolean => sides.some((at) => meetsInterruptRange(at, Number(log2)));
      return Number(ours['log2']) < Number(stock['log2']) && !meets(ours['log2']) && meets(stock['log2'])
        ? ['log2']
        : [];
    },
  },
  {
    id: 'interrupt-range-mode',
    right: 'viommu',
    section: '7.1.3 (LGN.4)',
    says: 'In legacy mode the condition is LGN.4. A stock unit that can do scalable mode records SGN.8.',
    claims: (d) => (!path(d)?.scalable && refusals(d, ['LGN.4'], ['SGN.8']) ? ['fault'] : []),
  },
  {
    id: 'cached-rights',
    right: 'viommu',
    section: '7.1.3 (LGN.2, LGN.3, SGN.6, SGN.7)',
    says: 'A request that the rights of a cached translation do not allow is a recorded fault. Stock answers with those rights and records nothing.',
    claims: (d) => {
      const write = d.step.request?.access === 2;
      const way = path(d);
      const bit = write || firstStage(way) ? 2n : 1n;
      const lacks = way?.entries.some(({ value }) => value !== undefined && (value & bit) === 0n);
      const rights = write ? ['LGN.2', 'SGN.6'] : ['LGN.3', 'SGN.7'];
      return lacks && refusals(d, rights, ['none']) ? RECORD : [];
    },
  },
  {
    id: 'pass-through-width',
    right: 'viommu',
    section: '7.1.3 (LGN.1, SGN.4), 9.3',
    says: 'A pass-through request beyond the width of its entry, or of host addresses, is blocked. Stock lets every address through.',
    claims: (d) => {
      const through = d.stock['output'] === d.step.request?.address && d.stock['log2'] === 12;
      const way = path(d);
      const type = way?.scalable ? ((way.pasid[0] ?? 0n) >> 6n) & 7n : ((way?.context[0] ?? 0n) >> 2n) & 3n;
      return through && type === (way?.scalable ? 4n : 2n) && refusedByOurs(d, ['LGN.1', 'SGN.4']) ? ALL : [];
    },
  },
  {
    id: 'pass-through-pointer',
    right: 'viommu',
    section: '9.3 (SSPTPTR)',
    says: 'SSPTPTR is ignored in a pass-through context-entry. Stock checks its upper bits.',
    claims: (d) => {
      const low = path(d)?.context[0] ?? 0n;
      const beyond = !path(d)?.scalable && (low & 0xcn) === 8n && low >> BigInt(d.kind.addressWidth) !== 0n;
      return beyond && d.stock['translated'] === 0 && ['LCT.3', 'none'].includes(String(d.stock['fault']))
        ? ALL
        : [];
    },
  },
  {
    id: 'rights-per-level',
    right: 'either',
    section: '3.6.1, 3.7, 7.1.3',
    says: 'An entry lacks a right and it, or one below it, is malformed or not present: stock reports the right, looking level by level; ours the entry, for rights are what all entries together give.',
    claims: (d) => {
      const [write, way] = [d.step.request?.access === 2, path(d)];
      const first = firstStage(way);
      const lacks = (bit: bigint): boolean =>
        way?.entries.some(({ value }) => value !== undefined && (value & bit) === 0n) ?? false;
      const reasons = first ? FIRST_RIGHTS : [write ? 'LGN.2' : 'LGN.3'];
      const lacking = first ? lacks(4n) || (write && lacks(2n)) : lacks(write ? 2n : 1n);
      return lacking && refusals(d, TABLE_REASONS, reasons) ? ['fault'] : [];
    },
  },
  {
    id: 'joined-neighbours',
    right: 'either',
    section: '6.2.4',
    says: 'Ours joins a page with its neighbour where both together are one larger, aligned block; stock answers with the page.',
    claims: (d) => {
      const { ours, stock, step, machine } = d;
      const output = ours['output'];
      if (step.request === undefined || typeof output !== 'bigint' || output !== stock['output']) return [];
      if (Number(ours['log2']) <= Number(stock['log2'])) return [];
      const buddy = 1n << BigInt(Number(stock['log2']));
      const root = machine.machine.readRegister(REG.RTADDR, 8);
      const beside = { ...step.request, address: step.request.address ^ buddy };
      const leaf = pathOf(machine.memory, root, beside).entries.at(-1);
      const base = ((leaf?.value ?? 0n) & MASK52) >> BigInt(Number(stock['log2']));
      return base === (output ^ buddy) >> BigInt(Number(stock['log2'])) ? ['log2'] : [];
    },
  },
  {
    id: 'tables-among-registers',
    right: 'either',
    section: '7.1.3',
    says: 'A table where the machine has registers or flash instead of RAM: stock reads those, ours takes it for one that cannot be read.',
    claims: (d) =>
      path(d)?.entries.some(({ address }) => address >= 0xe000_0000 && address < 2 ** 32) ? ALL : [],
  },
  {
    id: 'all-ones-entry',
    right: 'viommu',
    section: '7.1.3 (LSS.2, SSS.3, SFS.3)',
    says: 'An entry of all ones has reserved bits set. Stock takes it for one that could not be read.',
    claims: (d) => {
      const ones = path(d)?.entries.some(({ value }) => value === (1n << 64n) - 1n);
      const unread = ['LCT.4', 'LSS.1', 'SFS.1', 'SFS.4'];
      return ones && refusals(d, ['LSS.2', 'SSS.3', 'SFS.3'], unread) ? ['fault'] : [];
    },
  },
  {
    id: 'fault-address-width',
    right: 'viommu',
    section: '11.4.7.6',
    says: 'FI above the largest AGAW is reserved. Stock records the whole address.',
    claims: ({ ours, stock, kind }) => {
      const [mine, theirs] = [ours['FI'], stock['FI']];
      if (typeof mine !== 'bigint' || typeof theirs !== 'bigint') return [];
      return BigInt.asUintN(kind.addressWidth, theirs) === mine ? ['FI'] : [];
    },
  },
];
