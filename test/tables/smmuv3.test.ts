import { describe, expect, it } from 'vitest';
import type { Field, Layout, Register } from '../../src/spec/define.js';
import * as commands from '../../src/spec/smmuv3/commands.js';
import * as events from '../../src/spec/smmuv3/events.js';
import * as registers from '../../src/spec/smmuv3/registers.js';
import * as structures from '../../src/spec/smmuv3/structures.js';
import * as virtualCommands from '../../src/spec/smmuv3/virtual-commands.js';
import type { Ranges } from './facts.js';
import { COMMANDS, EVENTS, PRI_FIELDS } from './smmuv3-queues.js';
import { REGISTERS, VIRTUAL_COMMANDS } from './smmuv3-registers.js';
import { STRUCTURES, VALUES } from './smmuv3-structures.js';

/** Fields that have another name there than here. */
const RENAMED: { readonly [name: string]: string } = {
  EventNumber: 'Type',
  HYP: 'Hyp',
  MEMATTR: 'MemAttr',
  CLASS: 'Class',
  HAD0: 'DisCH0',
  HAD1: 'DisCH1',
  Exec: 'X',
  Read: 'R',
  Write: 'W',
  PageAddr: 'PageAddress',
};

type Reasons = readonly (readonly [reason: string, paths: readonly string[]])[];

/** Declared, but named by no second source. */
const DECLARED_ONLY: Reasons = [
  [
    'bit 10 is RES0 in these commands: declared where all commands have SSec',
    ['CMD_ATC_INV.SSec', 'CMD_PRI_RESP.SSec', 'CMD_SYNC.SSec', 'CMD_TLBI.SSec'],
  ],
  ['beside Size in the figure, which no source but the specification has', ['CMD_PREFETCH_ADDR.Stride']],
];

/** Transcribed, but not declared. */
const TRANSCRIBED_ONLY: Reasons = [
  [
    'SMMUv3.4: RES0 before',
    [
      ...['PASIDTT', 'EPAN', 'S1PI', 'S2PI', 'S2PO', 'THE', 'MTEPERM', 'AIE'].map((name) => `IDR3.${name}`),
      ...['S1PIE', 'S2HAFT', 'S2PIE', 'S2POE', 'S2SKL', 'TL0', 'TL1', 'AssuredOnly'].map((n) => `STE.${n}`),
      ...['HAFT', 'PnCH', 'EPAN', 'SKL0', 'SKL1', 'AIE', 'PIE'].map((name) => `CD.${name}`),
      'CR2.REC_CFG_ATS',
    ],
  ],
  [
    'device permission tables, granule protection, memory encryption contexts: not offered',
    [
      'CR0.DPT_WALK_EN',
      'CR0ACK.DPT_WALK_EN',
      'GERROR.DPT_ERR',
      'GERRORN.DPT_ERR',
      'STE.DPT_VMATCH',
      'STE.MECID',
      'F_STE_FETCH.GPCF',
      'F_CD_FETCH.GPCF',
      'F_WALK_EABT.GPCF',
    ],
  ],
  [
    'Secure state: not offered',
    [
      ...['S2NSW', 'S2NSA', 'S2SW', 'S2SA', 'S_S2T0SZ', 'S_S2SL0', 'S_S2TG'].map((name) => `STE.${name}`),
      ...['S_S2SL0_2', 'S_S2TTB', 'S_S2SKL'].map((name) => `STE.${name}`),
    ],
  ],
  [
    'MPAM and the structure that maps its PARTIDs: not offered',
    ['STE.PARTID', 'STE.PMG', 'STE.MPAM_NS', 'STE.VMSPtr', 'CD.PARTID', 'CD.PMG', 'F_VMS_FETCH'],
  ],
  ['LPA2 (IDR5.DS): not offered', ['STE.S2DS', 'STE.S2SL0_2', 'CD.DS']],
  ['E0PD (IDR3.E0PD): not offered', ['CD.E0PD0', 'CD.E0PD1']],
  [
    'bits that only steer attributes of hardware (IDR3.PBHA): not offered',
    ['CD.HWU059', 'CD.HWU060', 'CD.HWU159', 'CD.HWU160'],
  ],
  ['enhanced Command queues: not offered', ['GERROR.CMDQP_ERR']],
  [
    'free for the implementation, or for software',
    [
      'IDR4.IMPLEMENTATION_DEFINED',
      'AGBPA.IMPLEMENTATION_DEFINED',
      'STE.IMPLEMENTATION_DEFINED',
      'STE.SW_RESERVED',
      'CD.IMPLEMENTATION_DEFINED',
    ],
  ],
  [
    'address translation operations (IDR0.ATOS, IDR0.VATOS): not offered',
    ['GATOS_CTRL', 'GATOS_SID', 'GATOS_ADDR', 'GATOS_PAR', 'VATOS_SEL'],
  ],
];

/** Both, with different positions. */
const DIFFERENT: Reasons = [['an IPA: the bits above are RES0', ['CMD_TLBI_S2_IPA.Address']]];

/** Opcodes that are known and have no layout. */
const NO_LAYOUT: Reasons = [
  [
    'of MPAM and of EL3, which are not offered: always illegal',
    ['CMD_CFGI_VMS_PIDM', 'CMD_TLBI_EL3_ALL', 'CMD_TLBI_EL3_VA'],
  ],
];

const used = new Set<string>();

/**
 * True when the difference at `path` has a reason in `list`; remembers that the reason was needed.
 */
function excused(list: Reasons, path: string): boolean {
  if (!list.some(([, paths]) => paths.includes(path))) return false;
  used.add(path);
  return true;
}

/**
 * The same position; addresses of 52 bits here are the lower part of those of 56 bits that the
 * newest issue has.
 */
function samePlace(field: Field, [msb, lsb]: readonly [number, number]): boolean {
  if (field.lsb !== lsb) return false;
  return field.msb === msb || (field.address && msb % 64 === 55 && field.msb === msb - 4);
}

/** Field by field, both directions. Returns what differs. */
function differences(owner: string, shape: Layout<string>, facts: Ranges): string[] {
  const out: string[] = [];
  const seen = new Set<string>();
  for (const [name, field] of Object.entries<Field>(shape.fields)) {
    const known = RENAMED[name] ?? name;
    const range = facts[known];
    seen.add(known);
    const path = `${owner}.${name}`;
    if (range === undefined) {
      if (!excused(DECLARED_ONLY, path)) out.push(`${path} is not transcribed`);
    } else if (!samePlace(field, range) && !excused(DIFFERENT, path)) {
      out.push(`${path} is ${field.msb}:${field.lsb} there and ${range[0]}:${range[1]} here`);
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

describe('SMMUv3 registers beside an independent transcription', () => {
  const declared = tablesOf(registers) as Map<string, Register<string>>;

  it('every declared register has the offset, width and fields that others read', () => {
    const out: string[] = [];
    for (const [name, shape] of declared) {
      const facts = REGISTERS[name];
      expect(facts, `${name} is declared but not transcribed`).toBeDefined();
      if (facts === undefined) continue;
      if (facts.offset !== shape.offset) out.push(`${name} is at ${shape.offset}`);
      if (facts.width !== shape.width) out.push(`${name} has ${shape.width} bits`);
      out.push(...differences(name, shape, facts.fields));
    }
    expect(out).toEqual([]);
    expect(declared.size).toBeGreaterThanOrEqual(38);
  });

  it('every transcribed register is declared, or there is a reason', () => {
    const missing = Object.keys(REGISTERS).filter((name) => !declared.has(name));
    expect(missing.filter((name) => !excused(TRANSCRIBED_ONLY, name))).toEqual([]);
  });
});

describe('virtual command registers beside their document', () => {
  it('have the same offsets, fields and values', () => {
    const declared = tablesOf(virtualCommands) as Map<string, Register<string>>;
    expect([...declared.keys()].sort()).toEqual(Object.keys(VIRTUAL_COMMANDS).sort());
    const out: string[] = [];
    for (const [name, shape] of declared) {
      const facts = VIRTUAL_COMMANDS[name];
      expect([shape.offset, shape.width]).toEqual([facts.offset, facts.width]);
      out.push(...differences(name, shape, facts.fields));
    }
    expect(out).toEqual([]);
    const text = Buffer.from(Uint32Array.from(virtualCommands.VCID_SIGNATURE).buffer).toString('latin1');
    expect(text).toBe('viommuPV');
    expect(virtualCommands.VC_VERSION).toBe(1);
    expect(virtualCommands.VCMD_COMMAND).toEqual({ NULL: 0, ALLOCATE: 1, FREE: 2 });
    expect(virtualCommands.VCRSP_STATUS).toEqual({
      SUCCESS: 0,
      UNDEFINED_COMMAND: 1,
      NO_SUBSTREAMID: 16,
      NOT_OWNED: 17,
    });
  });

  it('leave the registers of the architecture alone', () => {
    for (const { offset } of virtualCommands.VIRTUAL_COMMAND_REGISTERS) {
      expect(offset >= 0xe00 && offset < 0xf00).toBe(true);
      expect(registers.SMMU_REGISTERS.some((other) => other.offset === offset)).toBe(false);
    }
  });
});

describe('SMMUv3 structures beside an independent transcription', () => {
  it('have the same fields', () => {
    const out: string[] = [];
    const declared = tablesOf(structures);
    for (const [name, shape] of declared) {
      const facts = STRUCTURES[name];
      expect(facts, `${name} is declared but not transcribed`).toBeDefined();
      if (facts === undefined) continue;
      if (facts.bytes !== shape.bytes) out.push(`${name} has ${shape.bytes} bytes`);
      out.push(...differences(name, shape, facts.fields));
    }
    expect(Object.keys(STRUCTURES).filter((name) => !declared.has(name))).toEqual([]);
    expect(out).toEqual([]);
  });
});

describe('SMMUv3 commands beside an independent transcription', () => {
  const opcodes = new Map(
    Object.entries<number>(commands.CMD).map(([name, value]) => [`CMD_${name}`, value]),
  );

  it('have the same opcodes', () => {
    const out: string[] = [];
    for (const [name, value] of opcodes)
      if (COMMANDS[name]?.number !== value && !excused(DECLARED_ONLY, name)) out.push(name);
    for (const name of Object.keys(COMMANDS))
      if (!opcodes.has(name) && !excused(TRANSCRIBED_ONLY, name)) out.push(`${name} is not declared`);
    expect(out).toEqual([]);
  });

  it('have the same fields', () => {
    const out: string[] = [];
    /** TLB invalidations share one layout: the fields of all of them. */
    const tlbi: { [name: string]: readonly [number, number] } = {};
    for (const [name, opcode] of opcodes) {
      const shape = commands.COMMAND_LAYOUT[opcode];
      const facts = COMMANDS[name];
      if (shape === undefined && !excused(NO_LAYOUT, name)) out.push(`${name} has no layout`);
      if (shape === undefined || facts === undefined) continue;
      expect(shape.bytes).toBe(commands.COMMAND_BYTES);
      if (shape === commands.CMD_TLBI) {
        for (const [field, range] of Object.entries(facts.fields)) {
          const path = `${name}.${field}`;
          if (tlbi[field] === undefined) tlbi[field] = range;
          else if (String(tlbi[field]) !== String(range) && !excused(DIFFERENT, path)) out.push(path);
        }
      } else out.push(...differences(name, shape, facts.fields));
    }
    out.push(...differences('CMD_TLBI', commands.CMD_TLBI, tlbi));
    expect(out).toEqual([]);
  });
});

describe('SMMUv3 events and page requests beside an independent transcription', () => {
  it('have the same numbers and fields', () => {
    const out: string[] = [];
    const numbers = new Map(Object.entries<number>(events.EVENT));
    for (const [name, number] of numbers) {
      const shape = events.EVENT_LAYOUT[number];
      const facts = EVENTS[name];
      if (facts?.number !== number) out.push(`${name} is ${number}`);
      expect(shape?.name).toBe(name);
      expect(shape?.bytes).toBe(events.EVENT_BYTES);
      if (shape && facts) out.push(...differences(name, shape, facts.fields));
    }
    for (const name of Object.keys(EVENTS))
      if (!numbers.has(name) && !excused(TRANSCRIBED_ONLY, name)) out.push(`${name} is not declared`);
    expect(out).toEqual([]);
  });

  it('PRI queue entries', () => {
    expect(differences('PRI', events.PRI_ENTRY, PRI_FIELDS)).toEqual([]);
  });
});

describe('SMMUv3 values beside an independent transcription', () => {
  it('encodings', () => {
    expect(structures.STE_CONFIG).toMatchObject(VALUES.STE_CONFIG);
    expect(structures.S1FMT).toMatchObject(VALUES.S1FMT);
    expect(structures.S1DSS).toMatchObject(VALUES.S1DSS);
    expect(structures.STRW).toMatchObject(VALUES.STRW);
    expect(structures.EATS).toMatchObject(VALUES.EATS);
    expect(structures.MAX_SPAN).toBe(VALUES.MAX_SPAN);
    expect(structures.TG0_GRANULE).toEqual(VALUES.TG0);
    expect(structures.TG1_GRANULE).toEqual(VALUES.TG1);
    expect(registers.ADDRESS_BITS.slice(0, 7)).toEqual(VALUES.ADDRESS_BITS);
    expect(registers.STRTAB_FMT).toMatchObject(VALUES.STRTAB_FMT);
    expect(registers.CERROR).toMatchObject(VALUES.CERROR);
    expect(registers.HTTU).toMatchObject(VALUES.HTTU);
    expect(registers.TTF).toMatchObject(VALUES.TTF);
    expect(registers.TTENDIAN).toMatchObject(VALUES.TTENDIAN);
    expect(registers.STALL_MODEL).toMatchObject(VALUES.STALL_MODEL);
    expect(commands.CS).toMatchObject(VALUES.CS);
    expect(commands.PRI_RESP).toMatchObject(VALUES.PRI_RESP);
    expect(commands.ATC_INV_ALL).toBe(VALUES.ATC_INV_SIZE_ALL);
    expect(events.CLASS).toMatchObject(VALUES.CLASS);
  });
});

describe('the lists of reasons', () => {
  it('hold nothing that is no longer needed', () => {
    const listed = [...DECLARED_ONLY, ...TRANSCRIBED_ONLY, ...DIFFERENT, ...NO_LAYOUT].flatMap(
      ([, paths]) => paths,
    );
    expect(listed.filter((path) => !used.has(path))).toEqual([]);
  });
});
