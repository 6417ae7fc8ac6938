import { describe, expect, it } from 'vitest';
import type { Field, Layout, Register } from '../../src/spec/define.js';
import * as pages from '../../src/spec/pagetable/vtd.js';
import * as descriptors from '../../src/spec/vtd/descriptors.js';
import { FAULT } from '../../src/spec/vtd/faults.js';
import * as interrupts from '../../src/spec/vtd/interrupts.js';
import * as registers from '../../src/spec/vtd/registers.js';
import * as structures from '../../src/spec/vtd/structures.js';
import type { Ranges } from './facts.js';
import { REGISTERS, RELOCATABLE } from './vtd-registers.js';
import { DESCRIPTORS, STRUCTURES } from './vtd-structures.js';
import { FAULT_REASONS, VALUES } from './vtd-values.js';

/** Fields that have another name there than here. */
const RENAMED: { readonly [name: string]: string } = {
  TypeLow: 'TYPE',
  TypeHigh: 'TYPE_HI',
  StatusData: 'STDATA',
  StatusAddress: 'STADDR',
  PFSID_LOW: 'PFSID_LO',
  PFSID_HIGH: 'PFSID_HI',
  GI: 'G',
  Type: 'TYPE',
  EXR: 'EXE',
  PMR: 'PM',
  RDR: 'RD',
  WRR: 'WR',
  RC: 'RESP_CODE',
  HANDLE_HIGH: 'INDEX_HI',
  HANDLE_LOW: 'INDEX_LO',
  Format: 'FORMAT',
  FEE: 'BASE',
  'R/W': 'RW',
  'U/S': 'US',
};

/** The same, of messages. */
const RENAMED_MESSAGE: { readonly [name: string]: string } = {
  ...RENAMED,
  DM: 'DEST_MODE',
  RH: 'REDIRECT',
  DST: 'DEST',
  V: 'VECTOR',
  DLM: 'DELIVERY',
  LEVEL: 'ASSERT',
  TM: 'LEVEL',
};

/** Declared, but named by no second source. */
const DECLARED_ONLY: { readonly [path: string]: string } = {
  'SM_CONTEXT_ENTRY.HPTE': 'rev 5: host permission tables',
  'SM_CONTEXT_ENTRY.EPTR': 'rev 5: PASID in translated requests',
  'PASID_TABLE_ENTRY.IGN': 'ignored since rev 4 (transcribed as NXE and SMEP)',
  'REMAPPABLE_REQUEST.IGN': 'not looked at: below a doubleword',
  'PASID_TABLE_ENTRY.HPTSZ': 'rev 5: host permission tables',
  'PASID_TABLE_ENTRY.HPTPFD': 'rev 5: host permission tables',
  'PASID_TABLE_ENTRY.HPTPTR': 'rev 5: host permission tables',
  'PASID_TABLE_ENTRY.HPTDID': 'rev 5: host permission tables',
  VCMD_EO_REG: 'rev 5: an operand that no command uses',
  'VCCAP_REG.PAS': 'rev 5: was bit 0',
  'VCCAP_REG.FPS': 'rev 5',
  IR_2A: 'rev 5: extended interrupt mode required',
  IR_2B: 'rev 5: interrupt remapping required',
  RTA_5: 'rev 5',
  SCT_10: 'rev 5: PASID in translated requests',
  SPT_9: 'rev 5: host permission tables',
  HPT_1: 'rev 5: host permission tables',
  HPT_2: 'rev 5: host permission tables',
  HPT_3: 'rev 5: host permission tables',
  HPT_4: 'rev 5: host permission tables',
  HPT_5: 'rev 5: host permission tables',
  HPT_6: 'rev 5: host permission tables',
};

/** Transcribed, but not declared. */
const TRANSCRIBED_ONLY: { readonly [path: string]: string } = {
  'CAP_REG.AFL': 'advanced fault logging: reserved since rev 5',
  'GCMD_REG.EAFL': 'advanced fault logging',
  'GCMD_REG.SFL': 'advanced fault logging',
  'GSTS_REG.AFLS': 'advanced fault logging',
  'GSTS_REG.FLS': 'advanced fault logging',
  'FSTS_REG.AFO': 'advanced fault logging',
  'FSTS_REG.APF': 'advanced fault logging',
  'FSTS_REG.PRO': 'withdrawn with the extended mode; PRS_REG has it',
  'FEDATA_REG.EIMD': 'reserved since the 2021 edition',
  'IEDATA_REG.EIMD': 'reserved since the 2021 edition',
  'PEDATA_REG.EIMD': 'reserved since the 2021 edition',
  'PASID_TABLE_ENTRY.SLEE': 'second-stage execute: gone in rev 4',
  'PASID_TABLE_ENTRY.EMT': 'memory types: gone in rev 4',
  'PASID_TABLE_ENTRY.PWT': 'memory types: gone in rev 4',
  'PASID_TABLE_ENTRY.PCD': 'memory types: gone in rev 4',
  'PASID_TABLE_ENTRY.ERE': 'execute requests: gone in rev 4',
  'PASID_TABLE_ENTRY.NXE': 'ignored since rev 4 (declared as IGN)',
  'PASID_TABLE_ENTRY.SMEP': 'ignored since rev 4 (declared as IGN)',
  AFLOG_REG: 'advanced fault logging',
  PLMBASE_REG: 'protected memory is not offered: CAP.PLMR = 0',
  PLMLIMIT_REG: 'protected memory is not offered: CAP.PLMR = 0',
  PHMBASE_REG: 'protected memory is not offered: CAP.PHMR = 0',
  PHMLIMIT_REG: 'protected memory is not offered: CAP.PHMR = 0',
  'PAGE_REQ_DSC.PRIV_DATA_PRESENT': 'private data: gone in rev 4',
  'PAGE_REQ_DSC.PRIV_DATA': 'private data: gone in rev 4',
  'page_grp_resp_dsc.PDP': 'private data: gone in rev 4',
  'page_grp_resp_dsc.PRIV': 'private data: gone in rev 4',
  'SGN.3': 'execute requests: gone in rev 4',
  'SGN.9': 'no condition of the pinned revision has it',
};

const usedReasons = new Set<string>();

/**
 * True when the difference at `path` has a reason in `list`; remembers that the reason was needed.
 */
function excused(list: { readonly [path: string]: string }, path: string): boolean {
  if (!Object.hasOwn(list, path)) return false;
  usedReasons.add(path);
  return true;
}

/** Field by field, both directions. Returns what differs. */
function differences(
  owner: string,
  shape: Layout<string>,
  facts: Ranges,
  renamed: { readonly [name: string]: string } = RENAMED,
): string[] {
  const out: string[] = [];
  const seen = new Set<string>();
  for (const [name, field] of Object.entries<Field>(shape.fields)) {
    const known = renamed[name] ?? name;
    const range = facts[known];
    seen.add(known);
    if (range === undefined) {
      if (!excused(DECLARED_ONLY, `${owner}.${name}`)) out.push(`${owner}.${name} is not transcribed`);
    } else if (range[0] !== field.msb || range[1] !== field.lsb) {
      out.push(`${owner}.${name} is ${field.msb}:${field.lsb} there and ${range[0]}:${range[1]} here`);
    }
  }
  for (const name of Object.keys(facts)) {
    if (seen.has(name) || excused(TRANSCRIBED_ONLY, `${owner}.${name}`)) continue;
    out.push(`${owner}.${name} is not declared`);
  }
  return out;
}

const isLayout = (value: unknown): value is Layout<string> =>
  typeof value === 'object' && value !== null && 'fields' in value && 'reserved' in value;

/** What of a module is a table. */
function tablesOf(module: object): Map<string, Layout<string>> {
  const tables = new Map<string, Layout<string>>();
  for (const [name, value] of Object.entries(module)) if (isLayout(value)) tables.set(name, value);
  return tables;
}

describe('VT-d registers beside an independent transcription', () => {
  const declared = tablesOf(registers) as Map<string, Register<string>>;

  it('every declared register has the offset, width and fields that others read', () => {
    const out: string[] = [];
    for (const [name, shape] of declared) {
      const fixed = REGISTERS[name];
      const facts = fixed ?? RELOCATABLE[name];
      if (facts === undefined && excused(DECLARED_ONLY, name)) continue;
      expect(facts, `${name} is declared but not transcribed`).toBeDefined();
      if (facts === undefined) continue;
      if (fixed && fixed.offset !== shape.offset) out.push(`${name} is at ${shape.offset}`);
      if (facts.width !== shape.width) out.push(`${name} has ${shape.width} bits`);
      out.push(...differences(name, shape, facts.fields));
    }
    expect(out).toEqual([]);
    expect(declared.size).toBeGreaterThanOrEqual(30);
  });

  it('every transcribed register is declared, or there is a reason', () => {
    const names = [...Object.keys(REGISTERS), ...Object.keys(RELOCATABLE)];
    expect(names.filter((name) => !declared.has(name) && !excused(TRANSCRIBED_ONLY, name))).toEqual([]);
  });

  it('relocatable registers stand where CAP.FRO and ECAP.IRO can point and cover nothing else', () => {
    expect(registers.IOTLB_OFFSET % 16).toBe(0);
    expect(registers.FRCD_OFFSET % 16).toBe(0);
    expect(registers.IVA_REG.offset).toBe(registers.IOTLB_OFFSET);
    expect(registers.IOTLB_REG.offset).toBe(registers.IOTLB_OFFSET + 8);
    const taken = new Map<number, string>();
    for (const [name, shape] of declared) {
      for (let at = shape.offset; at < shape.offset + shape.width / 8; at++) {
        expect(taken.get(at), `${name} at byte ${at}`).toBeUndefined();
        taken.set(at, name);
      }
    }
  });
});

describe('VT-d structures and descriptors beside an independent transcription', () => {
  it('structures in memory', () => {
    const other: { readonly [name: string]: string } = {
      PASID_DIRECTORY_ENTRY: 'SM_PASID_DIR_ENTRY',
      PASID_TABLE_ENTRY: 'SM_PASID_TABLE_ENTRY',
      PAGE_REQ_DSC: 'PAGE_REQUEST',
    };
    const out: string[] = [];
    const seen = new Set<string>(['FS_ENTRY', 'SS_ENTRY']);
    for (const [name, shape] of [...tablesOf(structures), ...tablesOf(interrupts)]) {
      const facts = STRUCTURES[other[name] ?? name];
      seen.add(other[name] ?? name);
      expect(facts, `${name} is declared but not transcribed`).toBeDefined();
      if (facts === undefined) continue;
      if (facts.bytes !== shape.bytes) out.push(`${name} has ${shape.bytes} bytes`);
      const renamed = name === 'COMPATIBILITY_REQUEST' ? RENAMED_MESSAGE : RENAMED;
      out.push(...differences(name, shape, facts.fields, renamed));
    }
    for (const name of Object.keys(STRUCTURES))
      if (!seen.has(name) && !excused(TRANSCRIBED_ONLY, name)) out.push(`${name} is not declared`);
    expect(out).toEqual([]);
  });

  it('paging entries: every declared bit, whatever kind of entry', () => {
    const out: string[] = [];
    for (const [name, shape] of tablesOf(pages)) {
      const facts = STRUCTURES[name.startsWith('FS') ? 'FS_ENTRY' : 'SS_ENTRY'];
      for (const [key, field] of Object.entries<Field>(shape.fields)) {
        // Ignored bits, memory types and the wider addresses of large pages are checked below.
        if (key.startsWith('IGN') || ['ADDR', 'PAT', 'EMT', 'IPAT'].includes(key)) continue;
        const range = facts?.fields[RENAMED[key] ?? key];
        if (range?.[0] !== field.msb || range[1] !== field.lsb) out.push(`${name}.${key}`);
      }
      const pageBits = name.endsWith('2M') ? 21 : name.endsWith('1G') ? 30 : 12;
      const address = shape.fields['ADDR'];
      if (address?.msb !== 51 || address.lsb !== pageBits) out.push(`${name}.ADDR`);
    }
    expect(out).toEqual([]);
  });

  it('reserved bits of paging entries are what QEMU 10.0 checks at a width of 52 bits', () => {
    const reserved = (shape: Layout<string>) =>
      (BigInt(shape.reserved[1] ?? 0) << 32n) | BigInt(shape.reserved[0] ?? 0);
    // Q: first stage: nothing but the address bits below the page; PAT (12) is not among them.
    expect(reserved(pages.FS_TABLE)).toBe(0n);
    expect(reserved(pages.FS_PAGE_4K)).toBe(0n);
    expect(reserved(pages.FS_PAGE_2M)).toBe(0x1fe000n);
    expect(reserved(pages.FS_PAGE_1G)).toBe(0x3fffe000n);
    // Q: second stage: bit 11 (SNP, a field with snoop control) and bit 62 (TM, a field with
    // Device-TLBs).
    const snoop = 1n << 11n;
    const transient = 1n << 62n;
    expect(reserved(pages.SS_TABLE)).toBe(snoop | transient);
    expect(reserved(pages.SS_PAGE_4K)).toBe(0n);
    expect(reserved(pages.SS_PAGE_2M)).toBe(0x1ff000n);
    expect(reserved(pages.SS_PAGE_1G)).toBe(0x3ffff000n);
  });

  it('invalidation descriptors', () => {
    const out: string[] = [];
    const declared = [...tablesOf(descriptors).values()].filter((shape) => shape.name !== 'descriptor');
    for (const shape of declared) {
      const facts = DESCRIPTORS[shape.name];
      expect(facts, `${shape.name} is declared but not transcribed`).toBeDefined();
      if (facts === undefined) continue;
      out.push(...differences(shape.name, shape, facts.fields));
      if (descriptors.DESCRIPTOR_LAYOUT[facts.type] !== shape)
        out.push(`${shape.name} is not type ${facts.type}`);
    }
    const names = new Set(declared.map((shape) => shape.name));
    for (const name of Object.keys(DESCRIPTORS))
      if (!names.has(name) && !excused(TRANSCRIBED_ONLY, name)) out.push(`${name} is not declared`);
    expect(out).toEqual([]);
  });
});

describe('VT-d values beside an independent transcription', () => {
  it('fault reasons', () => {
    const out: string[] = [];
    const seen = new Set<string>();
    for (const [name, reason] of Object.entries(FAULT)) {
      const label = name.replace('_', '.').replace('LSS', 'LSL');
      const known = FAULT_REASONS[label];
      seen.add(label);
      if (known === undefined) {
        if (!excused(DECLARED_ONLY, name)) out.push(`${name} is not transcribed`);
      } else if (known !== reason) out.push(`${name} is ${reason} there and ${known} here`);
    }
    for (const label of Object.keys(FAULT_REASONS))
      if (!seen.has(label) && !excused(TRANSCRIBED_ONLY, label)) out.push(`${label} is not declared`);
    expect(out).toEqual([]);
    const reasons = Object.values(FAULT);
    expect(new Set(reasons).size, 'two conditions share a reason').toBe(reasons.length);
  });

  it('encodings', () => {
    const { TT, AW, PGTT, FSPM } = structures;
    expect([TT.UNTRANSLATED, TT.ALL, TT.PASS_THROUGH]).toEqual(Object.values(VALUES.TT));
    expect([AW.BITS_39, AW.BITS_48, AW.BITS_57]).toEqual(Object.values(VALUES.AW));
    expect(PGTT).toEqual(VALUES.PGTT);
    expect([FSPM.FOUR_LEVEL, FSPM.FIVE_LEVEL]).toEqual(Object.values(VALUES.FSPM));
    expect(registers.TTM).toMatchObject(VALUES.TTM);
    expect(registers.CC_GRANULARITY).toMatchObject(VALUES.CC_G);
    expect(registers.IOTLB_GRANULARITY).toMatchObject(VALUES.IOTLB_G);
    expect(descriptors.PC_GRANULARITY).toMatchObject(VALUES.PC_G);
    expect(descriptors.P_IOTLB_GRANULARITY).toEqual(VALUES.P_IOTLB_G);
    expect(Object.values(descriptors.RESPONSE_CODE)).toEqual(Object.values(VALUES.RC));
    const { SVT, SQ_IGNORES, DLM, XAPIC_DESTINATION } = interrupts;
    expect([SVT.NONE, SVT.SID, SVT.BUS]).toEqual(Object.values(VALUES.SVT));
    expect(SQ_IGNORES.map((ignored) => 0xffff & ~ignored)).toEqual(VALUES.SQ_COUNTS);
    expect(Object.values(DLM)).toEqual(Object.values(VALUES.DELIVERY));
    expect(XAPIC_DESTINATION).toEqual(VALUES.XAPIC);
    const declared: readonly number[] = Object.values(registers.IQEI);
    expect(declared).toEqual(Object.values(VALUES.IQEI));
  });
});

describe('the lists of reasons', () => {
  it('hold nothing that is no longer needed', () => {
    const listed = [...Object.keys(DECLARED_ONLY), ...Object.keys(TRANSCRIBED_ONLY)];
    expect(listed.filter((path) => !usedReasons.has(path))).toEqual([]);
  });
});
