/** Known differences of the SMMUv3: stream tables, STEs and CDs. See smmu-known.ts. */
import { CD, STE, STE_CONFIG } from '../../src/spec/smmuv3/structures.js';
import {
  all,
  beyondFirstRoot,
  firstBits,
  levelOneOf,
  path,
  recorded,
  type SmmuKnown,
  secondBits,
  startShift,
} from './smmu-conditions.js';
import { OUTPUT_BITS, REG } from './smmu-machine.js';
import { walkSecond } from './smmu-path.js';

export const SMMU_STRUCTURES: readonly SmmuKnown[] = [
  {
    id: 'span',
    right: 'viommu',
    section: '5.1 (Span)',
    says: 'Span means 2^(Span − 1) STEs, at most 2^SPLIT. Stock takes 2^Span, and C_BAD_STE for what is beyond.',
    claims: (d) => {
      const { span, split, index } = levelOneOf(d);
      const outside = span !== undefined && (span > split + 1 || index >= 2 ** (span - 1));
      return outside && ['C_BAD_STREAMID', 'none'].includes(recorded(d)) ? all(d) : [];
    },
  },
  {
    id: 'l2ptr',
    right: 'viommu',
    section: '5.1 (L2Ptr)',
    says: 'L2Ptr has bits 51:6, aligned to the size of the table. Stock uses all bits as they are.',
    claims: (d) => {
      const { span, l1 } = levelOneOf(d);
      if (span === undefined) return [];
      const unaligned = l1 & ((1n << BigInt(5 + span)) - 1n) & ~31n;
      return unaligned !== 0n || l1 >> 52n !== 0n ? all(d) : [];
    },
  },
  {
    id: 'recinvsid',
    right: 'viommu',
    section: '7.3.3, 6.3.12 (RECINVSID)',
    says: 'C_BAD_STREAMID is recorded where CR2.RECINVSID is set. Stock always records it.',
    claims: (d) => {
      const off = (d.machine.machine.readRegister(REG.CR2, 4) & 2n) === 0n;
      return off && recorded(d) === 'none' && d.stock['event'] === 'C_BAD_STREAMID' ? all(d) : [];
    },
  },
  {
    id: 'cd-fetch-address',
    right: 'viommu',
    section: '7.3.10 (FetchAddr)',
    says: 'FetchAddr of F_CD_FETCH is in the last 64 bits. Stock writes it where other events have InputAddr.',
    claims: (d) => (recorded(d) === 'F_CD_FETCH' && d.stock['FetchAddr'] === 0 ? ['FetchAddr'] : []),
  },
  {
    id: 'wide-pointers',
    right: 'viommu',
    section: '5.2 (S1ContextPtr, S2TTB), 5.4 (TTB0, TTB1)',
    says: 'Pointers have bits 51 and down. Stock drops bits 51:48 of S1ContextPtr and S2TTB, and bit 51 of TTB0 and TTB1.',
    claims: (d) => {
      const way = path(d);
      if (way === undefined) return [];
      const tables = way.cd === undefined ? [] : [CD.get.TTB0(way.cd), CD.get.TTB1(way.cd)];
      const pointers = [STE.get.S1ContextPtr(way.ste), STE.get.S2TTB(way.ste), ...tables];
      return pointers.some((pointer) => pointer >= 2 ** 48) ? all(d) : [];
    },
  },
  {
    id: 'context-pointer-size',
    right: 'viommu',
    section: '5.2 (S1ContextPtr)',
    says: 'S1ContextPtr beyond the output size is C_BAD_STE, and with stage 2 a fault of that, recorded by S2R. Stock fetches from there, or records nothing.',
    claims: (d) => {
      const way = path(d);
      if (way === undefined || STE.get.S1ContextPtr(way.ste) < 2 ** OUTPUT_BITS) return [];
      const nested = d.ours['CLASS'] === 0 && d.stock['event'] === 'none';
      return recorded(d) === 'C_BAD_STE' || nested ? all(d) : [];
    },
  },
  {
    id: 'unused-fields',
    right: 'viommu',
    section: '5.2 (S1CDMax, S1STALLD)',
    says: 'S1CDMax is ignored without SubstreamIDs, and like S1STALLD without stage 1. To stock any value but 0 is C_BAD_STE.',
    claims: (d) => {
      const way = path(d);
      if (way === undefined || d.stock['event'] !== 'C_BAD_STE') return [];
      const unused = (way.config & 1) === 0 && STE.get.S1STALLD(way.ste) !== 0;
      return unused || STE.get.S1CDMax(way.ste) !== 0 ? all(d) : [];
    },
  },
  {
    id: 'stage-2-flags',
    right: 'viommu',
    section: '5.2 (S2HA, S2HD)',
    says: 'S2HA and S2HD without hardware updates (IDR0.HTTU) are C_BAD_STE. Stock ignores them.',
    claims: (d) => {
      const way = path(d);
      const set = way !== undefined && (STE.get.S2HA(way.ste) | STE.get.S2HD(way.ste)) !== 0;
      return set && recorded(d) === 'C_BAD_STE' ? all(d) : [];
    },
  },
  {
    id: 'stage-2-size',
    right: 'viommu',
    section: '5.2 (S2T0SZ, S2SL0)',
    says: 'S2T0SZ is bounded by the input size, and S2SL0 must fit it. Stock takes S2PS for the bound, and any start level whose tables are not too many.',
    claims: (d) => {
      const way = path(d);
      if (way === undefined || (way.config & 6) !== 6) return [];
      const bits = 64 - STE.get.S2T0SZ(way.ste);
      if (d.stock['event'] === 'C_BAD_STE') return bits > secondBits(way) ? all(d) : [];
      return recorded(d) === 'C_BAD_STE' && bits <= startShift(way) ? all(d) : [];
    },
  },
  {
    id: 'table-alignment',
    right: 'viommu',
    section: '5.4 (TTB0, TTB1)',
    says: 'Root tables are aligned to 64 bytes at least. Stock uses bits 5:4 where the table is smaller.',
    claims: (d) => {
      const way = path(d);
      const base = way?.cd === undefined ? 0 : way.upper ? CD.get.TTB1(way.cd) : CD.get.TTB0(way.cd);
      return base % 64 !== 0 ? all(d) : [];
    },
  },
  {
    id: 'concatenated-tables',
    right: 'viommu',
    section: '5.2 (S2SL0, S2TTB); Arm ARM D8.2',
    says: 'The upper bits of an address choose among the concatenated root tables of stage 2. Stock adds that index to S2TTB and then clears it.',
    claims: (d) => (beyondFirstRoot(path(d), d.step.request?.address ?? 0n) ? all(d) : []),
  },
  {
    id: 'table-walk-attributes',
    right: 'viommu',
    section: '5.2 (S2PTW)',
    says: 'With S2PTW, descriptors and CDs in what stage 2 maps as Device memory are F_PERMISSION. Stock does not know it.',
    claims: (d) => {
      const way = path(d);
      const set = way?.config === STE_CONFIG.NESTED && STE.get.S2PTW(way.ste) === 1;
      const fetch = d.ours['S2'] === 1 && d.ours['CLASS'] !== 2 && recorded(d) === 'F_PERMISSION';
      return set && (fetch || recorded(d) === 'none') ? all(d) : [];
    },
  },
  {
    id: 'tables-read-early',
    right: 'viommu',
    section: '5.4 (TTB0, TTB1), 7.3.13',
    says: 'TTB0 and TTB1 are used by the walks that need them. Stock translates both when it reads the CD, and refuses what does not need the one that fails.',
    claims: (d) => {
      const way = path(d);
      if (way?.cd === undefined || way.config !== STE_CONFIG.NESTED || d.stock['translated'] === 1) return [];
      const { machine, stock } = d;
      const bases = [CD.get.TTB0(way.cd), CD.get.TTB1(way.cd)].map((base) => base - (base % 4096));
      if (stock['event'] !== 'none')
        return stock['CLASS'] === 1 && bases.includes(Number(stock['IPA'])) ? all(d) : [];
      const lost = bases.some((base) => walkSecond(machine, way.ste, BigInt(base)).output === undefined);
      return lost && STE.get.S2R(way.ste) === 0 ? all(d) : [];
    },
  },
  {
    id: 'translated-tables',
    right: 'viommu',
    section: '5.4 (IPS, TTB0, TTB1)',
    says: 'IPS is of intermediate addresses. Stock cuts what stage 2 makes of TTB0 and TTB1 to that size too.',
    claims: (d) => {
      const way = path(d);
      if (way?.cd === undefined || way.config !== STE_CONFIG.NESTED) return [];
      const base = BigInt(way.upper ? CD.get.TTB1(way.cd) : CD.get.TTB0(way.cd));
      const at = walkSecond(d.machine, way.ste, base).output ?? 0n;
      return at >> BigInt(firstBits(way)) !== 0n ? all(d) : [];
    },
  },
];
