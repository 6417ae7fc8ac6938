/** Known differences of the SMMUv3: answers, rights and faults of walks. See smmu-known.ts. */
import { CD, STE, STE_CONFIG } from '../../src/spec/smmuv3/structures.js';
import {
  all,
  amongRegisters,
  beyond,
  bothTranslated,
  firstBits,
  levelOneOf,
  misplacedBlock,
  path,
  privilegedOnly,
  readOnly,
  recorded,
  type SmmuKnown,
  secondBits,
  secondLacks,
  secondWalks,
} from './smmu-conditions.js';
import { OUTPUT_BITS, RAM, REG } from './smmu-machine.js';
import { pathOf } from './smmu-path.js';

export const SMMU_WALKS: readonly SmmuKnown[] = [
  {
    id: 'bypass-answer',
    right: 'either',
    section: '3.4, 6.3.15',
    says: 'Bypassed transactions: ours answers with one block and both rights, stock with the page and the right that was asked for.',
    claims: ({ ours, stock, step }) => {
      const identity = ours['output'] === step.request?.address && ours['output'] === stock['output'];
      return identity && stock['log2'] === 12 && stock['permissions'] === step.request?.access
        ? ['log2', 'permissions']
        : [];
    },
  },
  {
    id: 'bypassed-size',
    right: 'viommu',
    section: '3.4',
    says: 'An input address beyond what stage 1 could put out, where it is bypassed, is F_ADDR_SIZE, and an abort while the SMMU is off. Stock lets it through or records nothing.',
    claims: (d) => {
      const way = path(d);
      const large = (d.step.request?.address ?? 0n) >> BigInt(OUTPUT_BITS) !== 0n;
      const off = (d.machine.machine.readRegister(REG.CR0, 4) & 1n) === 0n;
      if (!large || d.ours['translated'] === 1) return [];
      if (off) return recorded(d) === 'none' ? all(d) : [];
      const bypassed = way?.config === STE_CONFIG.BYPASS || way?.config === STE_CONFIG.S2_TRANSLATE;
      return bypassed && recorded(d) === 'F_ADDR_SIZE' ? all(d) : [];
    },
  },
  {
    id: 'nested-rights',
    right: 'viommu',
    section: '3.4, 3.3.2',
    says: 'What both stages allow is what a nested translation allows. Stock answers with the rights of stage 1.',
    claims: (d) => {
      const nested = path(d)?.config === STE_CONFIG.NESTED && bothTranslated(d);
      const mine = Number(d.ours['permissions']);
      return nested && (mine & Number(d.stock['permissions'])) === mine ? ['permissions'] : [];
    },
  },
  {
    id: 'unprivileged',
    right: 'viommu',
    section: '3.23, 13.7',
    says: 'A PCIe transaction without PASID is unprivileged. Stock takes all for privileged: AP[1] and APTable[0] mean nothing to it.',
    claims: (d) => {
      const refused = d.ours['translated'] === 0 && ['F_PERMISSION', 'none'].includes(recorded(d));
      return refused && privilegedOnly(path(d)) ? all(d) : [];
    },
  },
  {
    id: 'table-address-size',
    right: 'viommu',
    section: '3.4.1, 7.3.14',
    says: 'A table address beyond the output size is F_ADDR_SIZE. Stock checks leaves alone and reads on.',
    claims: (d) => {
      const way = path(d);
      if (way === undefined || !['F_ADDR_SIZE', 'none'].includes(recorded(d)) || d.ours['translated'] === 1)
        return [];
      const second = secondWalks(d.machine, way).some((walk) => beyond(walk, secondBits(way)));
      return second || beyond(way.first, firstBits(way)) ? all(d) : [];
    },
  },
  {
    id: 'tbi1',
    right: 'viommu',
    section: '5.4 (TBI)',
    says: 'TBI1 decides for the upper half of the address space. Stock looks at TBI0 for both.',
    claims: (d) => {
      const way = path(d);
      const apart = way?.cd !== undefined && CD.get.TBI0(way.cd) !== CD.get.TBI1(way.cd);
      return apart && way.upper ? all(d) : [];
    },
  },
  {
    id: 'tlb-parts',
    right: 'either',
    section: '3.17',
    says: 'Ours may answer with a part of a page or block, as its TLB keeps it; stock with the whole.',
    claims: ({ ours, stock }) => {
      const part = ours['output'] !== undefined && ours['output'] === stock['output'];
      return part && Number(ours['log2']) < Number(stock['log2']) ? ['log2'] : [];
    },
  },
  {
    id: 'joined-neighbours',
    right: 'either',
    section: '3.17',
    says: 'Ours joins a page or block with its neighbour where both together are one larger, aligned block.',
    claims: (d) => {
      const { ours, stock, step, machine } = d;
      const output = ours['output'];
      if (step.request === undefined || typeof output !== 'bigint' || output !== stock['output']) return [];
      if (Number(ours['log2']) <= Number(stock['log2'])) return [];
      const buddy = 1n << BigInt(Number(stock['log2']));
      const beside = pathOf(machine, { ...step.request, address: step.request.address ^ buddy });
      const there = (beside?.config ?? 0) & 2 ? beside?.second?.output : beside?.first?.output;
      return there === (output ^ buddy) ? ['log2'] : [];
    },
  },
  {
    id: 'cached-rights',
    right: 'viommu',
    section: '7.3.16 (S2), 5.2 (S2R)',
    says: 'What stage 2 refuses is a fault of stage 2, recorded by STE.S2R. Where the translation is cached, stock takes it for one of stage 1, records no IPA, or lets a read through.',
    claims: (d) => {
      const way = path(d);
      if (d.ours['translated'] === 1 || !secondLacks(way, d.step.request?.access ?? 0)) return [];
      const silent = recorded(d) === 'none' && way !== undefined && STE.get.S2R(way.ste) === 0;
      if (!silent && (recorded(d) !== 'F_PERMISSION' || d.ours['S2'] !== 1)) return [];
      if (d.stock['translated'] === 1) return way?.config === STE_CONFIG.NESTED ? all(d) : [];
      if (silent || d.stock['event'] === 'none') return all(d);
      if (d.stock['event'] !== 'F_PERMISSION') return [];
      return d.stock['S2'] === 0 ? all(d) : d.stock['IPA'] === 0 ? ['IPA'] : [];
    },
  },
  {
    id: 'rights-per-level',
    right: 'viommu',
    section: '7.3.16; Arm ARM D8.4',
    says: 'Rights are checked after the walk, so a descriptor below that is not valid is F_TRANSLATION. Stock refuses a write at the first read-only table.',
    claims: (d) => {
      const write = d.step.request?.access === 2 && readOnly(path(d));
      const walked = ['F_TRANSLATION', 'F_ADDR_SIZE', 'F_ACCESS', 'F_WALK_EABT', 'F_PERMISSION'].includes(
        recorded(d),
      );
      return write && walked && d.stock['event'] === 'F_PERMISSION' ? all(d) : [];
    },
  },
  {
    id: 'table-rights',
    right: 'viommu',
    section: '3.3.2; Arm ARM D8.4 (APTable)',
    says: 'A read-only table takes the right to write from all below it. Stock refuses a write that walks, but answers and caches the rights of the leaf.',
    claims: (d) => {
      const way = path(d);
      if (!readOnly(way)) return [];
      const silent = recorded(d) === 'none' && way?.cd !== undefined && CD.get.R(way.cd) === 0;
      const refused = d.ours['translated'] === 0 && (silent || recorded(d) === 'F_PERMISSION');
      // With those rights a write gets as far as stage 2.
      const further = d.stock['translated'] === 1 || d.stock['S2'] === 1;
      if (refused && d.step.request?.access === 2 && further) return all(d);
      const read = d.step.request?.access === 1 && bothTranslated(d);
      return read && d.ours['permissions'] === 1 && d.stock['permissions'] === 3 ? ['permissions'] : [];
    },
  },
  {
    id: 'rnw-of-the-transaction',
    right: 'viommu',
    section: '7.3.13 (RnW, CLASS)',
    says: 'RnW is of the incoming transaction, also where stage 2 refuses a descriptor. Stock says that descriptors are read.',
    claims: ({ ours, stock }) =>
      ours['CLASS'] !== 2 && ours['RnW'] === 0 && stock['RnW'] === 1 ? ['RnW'] : [],
  },
  {
    id: 'stage-of-tables',
    right: 'viommu',
    section: '7.3.13 (S2, CLASS), 7.3.16, 5.2 (S2R)',
    says: 'Where stage 2 refuses a descriptor of stage 1, the event has S2, CLASS TT, TTRnW and the IPA of the descriptor, and is recorded by STE.S2R. Stock clears S2 and TTRnW, gives the IPA of the table, and asks CD.R.',
    claims: (d) => {
      const { ours, stock } = d;
      const mine = ours['CLASS'] === 1 && ours['S2'] === 1;
      if (mine && stock['event'] === ours['event'] && stock['CLASS'] === 1) {
        const table = Number(ours['IPA']) - Number(stock['IPA']);
        return table >= 0 && table < 65536 ? ['S2', 'IPA', 'TTRnW'] : ['S2', 'TTRnW'];
      }
      const theirs = stock['CLASS'] === 1 && stock['S2'] === 0;
      return (mine && stock['event'] === 'none') || (theirs && recorded(d) === 'none') ? all(d) : [];
    },
  },
  {
    id: 'misplaced-blocks',
    right: 'viommu',
    section: 'Arm ARM D8.3',
    says: 'A block descriptor at a level that has none for its granule is not valid. Stock takes it for a block.',
    claims: (d) => {
      const way = path(d);
      const wrong = misplacedBlock(way?.first) || secondWalks(d.machine, way).some(misplacedBlock);
      return wrong && ['F_TRANSLATION', 'none'].includes(recorded(d)) ? all(d) : [];
    },
  },
  {
    id: 'among-registers',
    right: 'either',
    section: '7.3.12',
    says: 'Tables where the machine has flash or registers instead of RAM: stock reads those, ours takes it for an external abort.',
    claims: (d) => {
      const { span, l1 } = levelOneOf(d);
      const below = span !== undefined && span !== 0 && (l1 & ~31n) < BigInt(RAM);
      return below || amongRegisters(d.machine, path(d)) ? all(d) : [];
    },
  },
];
