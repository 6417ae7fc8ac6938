/**
 * Known differences of the VT-d units: structures and faults of scalable mode. See vtd-known.ts.
 */
import {
  ALL,
  is,
  LEGACY_REASON,
  path,
  RECORD,
  refusal,
  refusals,
  type VtdDifference,
  type VtdKnown,
} from './vtd-conditions.js';
import { REG, type VtdKind } from './vtd-machine.js';
import { type Path, pathOf } from './vtd-path.js';

/** The stock machine has the tables that a PASID-table entry asks for. */
function stockTranslates({ pasid }: Path, { scalable, addressWidth }: VtdKind): boolean {
  const type = ((pasid[0] ?? 0n) >> 6n) & 7n;
  const width = ((pasid[0] ?? 0n) >> 2n) & 7n;
  if (type === 4n) return true;
  if (type === 1n) return scalable === 'first' && (((pasid[2] ?? 0n) >> 2n) & 3n) === 0n;
  return type === 2n && scalable === 'second' && width >= 1n && 30n + 9n * width <= BigInt(addressWidth);
}

/** A word has one of these bits, or an address bit beyond the host address width. */
function reserved(word: bigint | undefined, bits: bigint, d: VtdDifference): boolean {
  const value = word ?? 0n;
  return (value & BigInt.asUintN(64, bits)) !== 0n || value >> BigInt(d.kind.addressWidth) !== 0n;
}

export const VTD_SCALABLE: readonly VtdKnown[] = [
  {
    id: 'scalable-legacy-reasons',
    right: 'viommu',
    section: '7.1.3',
    says: 'Scalable-mode structures and second-stage tables have reasons of their own. Stock records those of legacy mode.',
    claims: (d) => {
      const mine = String(d.ours['fault']);
      return path(d)?.scalable && LEGACY_REASON[mine]?.includes(String(d.stock['fault'])) ? ['fault'] : [];
    },
  },
  {
    id: 'record-without-pasid',
    right: 'viommu',
    section: '11.4.7.6 (PP)',
    says: 'PP says whether the request had a PASID. Stock sets it for faults in page tables, with RID_PASID where the request had none, and clears it for faults before them.',
    claims: ({ step, ours, stock }) => {
      const had = step.request !== undefined && step.request.pasid >= 0 ? 1 : 0;
      return ours['PP'] === had && stock['PP'] === 1 - had ? ['PP', 'PV', 'EXE', 'PRIV'] : [];
    },
  },
  {
    id: 'pasid-checks',
    right: 'viommu',
    section: '7.1.3 (SCT.4, SCT.6, SCT.7, SCT.9)',
    says: 'A request with PASID needs PASIDE, a PASID within PDTS, and one that is not RID_PASID, which itself must be within PDTS. Stock checks none of it.',
    claims: (d) => {
      const way = path(d);
      const pasid = d.step.request?.pasid ?? -1;
      const context = way?.context[0] ?? 0n;
      const limit = 1 << (13 + Number((context >> 9n) & 7n));
      const wrong: Readonly<Record<string, boolean>> = {
        'SCT.4': (way?.ridPasid ?? 0) >= limit,
        'SCT.6': pasid >= 0 && (context & 8n) === 0n,
        'SCT.7': pasid >= limit,
        'SCT.9': pasid === way?.ridPasid,
      };
      return wrong[refusal(d)] ? ALL : [];
    },
  },
  {
    id: 'pasid-entry-not-present',
    right: 'viommu',
    section: '7.1.3 (SPT.2), 9.6',
    says: 'A PASID-table entry that is not present is a fault, whatever else it holds. Stock looks at P last, and only where it reads the entry of RID_PASID for its context cache.',
    claims: (d) => (refusal(d) === 'SPT.2' && ((path(d)?.pasid[0] ?? 1n) & 1n) === 0n ? ALL : []),
  },
  {
    id: 'rid-pasid-needed',
    right: 'viommu',
    section: '9.4 (RID_PASID), 7.1.3',
    says: 'A request with PASID has nothing to do with the entry of RID_PASID. Stock refuses it where that entry cannot be used.',
    claims: (d) => {
      const { request } = d.step;
      if (request === undefined || request.pasid < 0) return [];
      const root = d.machine.machine.readRegister(REG.RTADDR, 8);
      const own = pathOf(d.machine.memory, root, { ...request, pasid: -1 });
      const directory = own.directory ?? 0n;
      const present =
        (directory & 1n) !== 0n && directory >> 52n === 0n && ((own.pasid[0] ?? 0n) & 1n) !== 0n;
      const refused = is(d.stock, 0, ['SPD.1', 'SPD.2', 'SPT.1', 'SPT.2', 'SPT.4', 'none']);
      return refused && !(present && stockTranslates(own, d.kind)) ? ALL : [];
    },
  },
  {
    id: 'fpd-pasid-entry',
    right: 'viommu',
    section: '7.1.3 (SPT.2, SPT.4), 9.6 (FPD)',
    says: 'SPT.2 and SPT.4 are qualified faults: FPD of the PASID-table entry suppresses them. Stock has given up before it reads that bit.',
    claims: (d) => {
      const fpd = ((path(d)?.pasid[0] ?? 0n) & 2n) !== 0n && ['SPT.2', 'SPT.4'].includes(refusal(d));
      return fpd && refusals(d, ['none'], ['SPT.2', 'SPT.4']) ? RECORD : [];
    },
  },
  {
    id: 'pasid-reserved',
    right: 'viommu',
    section: '7.1.3 (SPD.3, SPT.3)',
    says: 'Reserved bits in PASID-directory and PASID-table entries are faults. Stock checks none of them.',
    claims: (d) => {
      const way = path(d);
      if (refusal(d) === 'SPD.3') return reserved(way?.directory, 0xffcn, d) ? ALL : [];
      const [first, second, third, ...rest] = way?.pasid ?? [];
      // AW, PGTT, SSADE, SSPTPTR; DID, PWSNP, PGSNP; FSPM, WPE, ignored, EAFE, FSPTPTR (§9.6).
      const low = reserved(first, 0xc20n, d);
      const high = ((second ?? 0n) & ~(d.kind.snoopControl ? 0x180_ffffn : 0x080_ffffn)) !== 0n;
      const stage = reserved(third, d.kind.addressWidth < 48 ? ~0x60n : 0xf03n, d);
      const set = low || high || stage || rest.some((word) => (word ?? 0n) !== 0n);
      return refusal(d) === 'SPT.3' && set ? ALL : [];
    },
  },
  {
    id: 'table-types',
    right: 'either',
    section: '9.6 (PGTT), 11.4.3',
    says: 'Stock has first-stage tables of 4 levels or second-stage tables, and no nested ones; ours has all of them, and 5 levels.',
    claims: (d) => {
      const way = path(d);
      const entry = way?.pasid[0] ?? 0n;
      const ours = [1n, 2n, 3n, 4n].includes((entry >> 6n) & 7n) && way?.scalable && (entry & 1n) !== 0n;
      return ours && !stockTranslates(way, d.kind) && is(d.stock, 0, ['SPT.4', 'none']) ? ALL : [];
    },
  },
  {
    id: 'first-stage-width',
    right: 'viommu',
    section: '9.6 (AW), 3.6',
    says: 'AW is of second-stage tables. Stock takes it for the width of first-stage addresses too, and refuses those beyond as not canonical.',
    claims: (d) => {
      const entry = path(d)?.pasid[0] ?? 0n;
      const narrow = path(d)?.scalable && ((entry >> 6n) & 7n) === 1n && ((entry >> 2n) & 7n) !== 2n;
      return narrow && is(d.stock, 0, ['SGN.1', 'none']) ? ALL : [];
    },
  },
  {
    id: 'context-reserved-features',
    right: 'viommu',
    section: '9.4 (DTE, PRE, RID_PRIV)',
    says: 'DTE, PRE and RID_PRIV are reserved without Device-TLBs, page requests and RPRIVS. Stock lets them be set.',
    claims: (d) => {
      const [low, high] = path(d)?.context ?? [];
      const set = ((low ?? 0n) & 0x14n) !== 0n || ((high ?? 0n) & 0x10_0000n) !== 0n;
      return path(d)?.scalable && set && refusal(d) === 'SCT.3' ? ALL : [];
    },
  },
  {
    id: 'root-entry-half',
    right: 'either',
    section: '7.1.3 (SRT.3), 9.2',
    says: 'Reserved bits in the half of a scalable-mode root-entry that the request does not use: ours looks at the half that is used, stock at both.',
    claims: (d) => {
      const way = path(d);
      const other = way?.root[(d.step.request?.rid ?? 0) & 0x80 ? 0 : 1] ?? 0n;
      const reserved = (other & 0xffen) !== 0n || other >> BigInt(d.kind.addressWidth) !== 0n;
      return way?.scalable && reserved && is(d.stock, 0, ['LRT.3']) && refusal(d) !== 'SRT.3' ? ALL : [];
    },
  },
  {
    id: 'snoop-without-capability',
    right: 'viommu',
    section: '9.8 (SNP), 11.4.3 (SC)',
    says: 'SNP is reserved in second-stage entries while ECAP.SC is clear. A stock unit that has scalable mode lets it be set, in legacy mode too.',
    claims: (d) => {
      const leaf = path(d)?.entries.at(-1)?.value ?? 0n;
      return d.kind.scalable &&
        !d.kind.snoopControl &&
        (leaf & 0x800n) !== 0n &&
        ['SSS.3', 'LSS.2'].includes(refusal(d))
        ? ALL
        : [];
    },
  },
];
