import { afterAll, describe, expect, it } from 'vitest';
import { dmaRead } from '../../test/support/host-rig.js';
import {
  GUEST_RID,
  HOST_RID,
  IOVA,
  SmmuGuest,
  smmu,
  VtdGuest,
  vtd3,
} from '../../test/support/nested-guests.js';
import type { NestedMachine } from '../../test/support/nested-machine.js';
import { MUTANTS, type Mutant, OTHER_RID } from '../../test/support/nesting-mutants.js';
import { titled } from '../../test/support/titled.js';
import { firstStageFields, type SmmuDomain } from '../sim/smmu-domain.js';
import { command } from '../sim/smmu-queue.js';
import { storeStructure } from '../sim/structure.js';
import type { VtdDomain } from '../sim/vtd-driver.js';
import { CMD, CMD_CFGI_STE_RANGE } from '../spec/smmuv3/commands.js';
import { CD, STE_CONFIG } from '../spec/smmuv3/structures.js';
import { PASID_TABLE_ENTRY, PGTT } from '../spec/vtd/structures.js';

/**
 * Every invalidation that nesting forwards, each with what may be wrong about it: what the model
 * says (a scope), or what the host is asked for. A mutant must be noticed: a device reaches
 * something else than it should, or the host has refused something. Those that change nothing are
 * listed with the reason.
 */

/** A guest that has done all but the one thing: the device has used what is now to go. */
interface Ready {
  readonly machine: NestedMachine;
  /**
   * Changes memory, says so by the one command, waits. Then the device must find 7, where it found
   * 6.
   */
  readonly change: () => void;
  readonly read: () => (number | undefined)[];
}

interface Row {
  readonly command: string;
  readonly ready: () => Ready;
  readonly caught: readonly Mutant[];
  /** What makes no difference, and why. */
  readonly equal?: Partial<Record<Mutant, string>>;
}

function outcome(ready: Ready, mutant?: Mutant): string {
  const { machine, change, read } = ready;
  expect(read()[0]).toBe(6);
  if (mutant !== undefined) MUTANTS[mutant](machine);
  change();
  return JSON.stringify([read(), machine.nestingEvents.map(({ kind }) => kind)]);
}

/** Two streams, of which the first is looked at; both ASIDs and both address spaces are in use. */
function smmuReady(change: (guest: SmmuGuest, at: Smmu) => void): Ready {
  const guest = new SmmuGuest(smmu());
  const device = guest.vf();
  const other = guest.vf(HOST_RID + 1, OTHER_RID);
  const { driver, memory, machine } = guest;
  driver.start();
  const [own, next, others] = [1, 2, 3].map(() => driver.createDomain('first'));
  memory.store32(0x6000, 6);
  memory.store32(0x7000, 7);
  for (const domain of [own, others]) driver.map(domain, BigInt(IOVA), 0x6000, 0x1000);
  driver.map(next, BigInt(IOVA), 0x7000, 0x1000);
  driver.attach(GUEST_RID, own);
  driver.attach(OTHER_RID, others);
  const contexts = driver.pages.take();
  storeStructure(machine.ram, contexts, CD, firstStageFields(next, 48));
  const at: Smmu = {
    own,
    setStream: () =>
      driver.streams.set(GUEST_RID, { V: 1, Config: STE_CONFIG.S1_TRANSLATE, S1ContextPtr: contexts }),
    setContext: () => {
      const cd = (memory.peek(driver.streams.entry(GUEST_RID)) ?? 0n) & 0xf_ffff_ffff_ffc0n;
      storeStructure(machine.ram, Number(cd), CD, firstStageFields(next, 48));
    },
    setTable: () => own.table?.map(BigInt(IOVA), 0x7000, 0x1000),
  };
  return {
    machine,
    change: () => {
      change(guest, at);
      driver.commands.sync();
    },
    read: () => [device, other].map((of) => dmaRead(of, IOVA, 1)?.[0]),
  };
}

interface Smmu {
  readonly own: SmmuDomain;
  /** The stream has another CD table. */
  readonly setStream: () => void;
  /** Its context descriptor, where it is, has other tables and another ASID. */
  readonly setContext: () => void;
  /** Its page is another one. */
  readonly setTable: () => void;
}

const ONE_VMID = 'all of this guest’s stage 1 has one VMID of the host';
const WHOLE_VMID = 'it is forwarded as everything of this guest: entries of every ASID have to go';
const ATTACHED = 'the host drops what it holds of an STE that it rewrites';
const NOT_BOUND = 'no guest table has to be bound for it';

const SMMU_ROWS: readonly Row[] = [
  {
    command: 'CMD_CFGI_STE',
    ready: () =>
      smmuReady(({ driver }, { setStream }) => {
        setStream();
        driver.commands.stream(GUEST_RID);
      }),
    caught: ['scopeLost', 'scopeRid', 'scopePlain', 'hostTables'],
    equal: { hostLost: ATTACHED },
  },
  {
    command: 'CMD_CFGI_STE_RANGE',
    ready: () =>
      smmuReady(({ driver }, { setStream }) => {
        setStream();
        const range = { Opcode: CMD.CFGI_STE_RANGE, StreamID: GUEST_RID, Range: 2 };
        driver.queue.submit(command(CMD_CFGI_STE_RANGE, range));
      }),
    caught: ['scopeLost', 'scopeRid', 'scopePlain', 'hostTables'],
    equal: { hostLost: ATTACHED },
  },
  {
    command: 'CMD_CFGI_ALL, of an STE',
    ready: () =>
      smmuReady(({ driver }, { setStream }) => {
        setStream();
        driver.commands.configurationAll();
      }),
    caught: ['scopeLost', 'scopeRid', 'scopePlain', 'hostTables'],
    equal: { hostLost: ATTACHED },
  },
  {
    command: 'CMD_CFGI_ALL, of a CD',
    ready: () =>
      smmuReady(({ driver }, { setContext }) => {
        setContext();
        driver.commands.configurationAll();
      }),
    caught: ['scopeLost', 'scopeRid', 'scopePlain', 'hostLost', 'hostTag'],
    equal: { hostTables: NOT_BOUND },
  },
  ...(['CMD_CFGI_CD', 'CMD_CFGI_CD_ALL'] as const).map(
    (name): Row => ({
      command: name,
      ready: () =>
        smmuReady(({ driver }, { setContext }) => {
          setContext();
          if (name === 'CMD_CFGI_CD') driver.commands.context(GUEST_RID, 0);
          else driver.commands.contexts(GUEST_RID);
        }),
      caught: ['scopeLost', 'scopeRid', 'scopePlain', 'hostLost', 'hostTag'],
      equal: { hostTables: NOT_BOUND },
    }),
  ),
  {
    command: 'CMD_TLBI_NH_VA',
    ready: () =>
      smmuReady(({ driver }, { own, setTable }) => {
        setTable();
        driver.commands.addresses(0, own.asid, BigInt(IOVA), 12, 1);
      }),
    caught: ['scopeLost', 'scopeSub', 'scopeRid', 'scopeAddress', 'hostLost', 'hostTag', 'hostAddress'],
    equal: { scopeSpace: ONE_VMID, hostTables: NOT_BOUND },
  },
  {
    command: 'CMD_TLBI_NH_VA, more than is forwarded page by page',
    ready: () =>
      smmuReady(({ driver }, { own, setTable }) => {
        setTable();
        driver.commands.addresses(0, own.asid, BigInt(IOVA), 12, 512);
      }),
    caught: ['scopeLost', 'scopeRid', 'scopeNarrow', 'hostLost'],
    equal: {
      ...{ scopeSpace: ONE_VMID, scopeSub: WHOLE_VMID, scopeAddress: WHOLE_VMID },
      ...{ hostTag: WHOLE_VMID, hostAddress: WHOLE_VMID },
    },
  },
  {
    command: 'CMD_TLBI_NH_VAA',
    ready: () =>
      smmuReady(({ driver }, { setTable }) => {
        setTable();
        driver.commands.allAddresses(0, BigInt(IOVA), 12, 1);
      }),
    caught: ['scopeLost', 'scopeRid', 'scopeAddress', 'hostLost', 'hostAddress'],
    equal: { scopeSpace: ONE_VMID, hostTag: 'it names no ASID' },
  },
  {
    command: 'CMD_TLBI_NH_ASID',
    ready: () =>
      smmuReady(({ driver }, { own, setTable }) => {
        setTable();
        driver.commands.asid(0, own.asid);
      }),
    caught: ['scopeLost', 'scopeSub', 'scopeRid', 'scopeNarrow', 'hostLost', 'hostTag'],
    equal: { scopeSpace: ONE_VMID, hostAddress: 'it names no address' },
  },
  {
    command: 'CMD_TLBI_NH_ALL',
    ready: () =>
      smmuReady(({ driver }, { setTable }) => {
        setTable();
        driver.commands.firstStage(0);
      }),
    caught: ['scopeLost', 'scopeRid', 'scopeNarrow', 'hostLost'],
    equal: { scopeSpace: ONE_VMID },
  },
  {
    command: 'CMD_TLBI_S12_VMALL',
    ready: () =>
      smmuReady(({ driver }, { setTable }) => {
        setTable();
        driver.commands.vmid(0);
      }),
    caught: ['scopeLost', 'scopeRid', 'scopeNarrow', 'hostLost'],
    equal: { scopeSpace: ONE_VMID },
  },
  {
    command: 'CMD_TLBI_NSNH_ALL',
    ready: () =>
      smmuReady(({ driver }, { setTable }) => {
        setTable();
        driver.commands.translationsAll();
      }),
    caught: ['scopeLost', 'scopeRid', 'hostLost'],
    equal: { scopePlain: 'translations are dropped in any case' },
  },
];

/**
 * Requests with PASID 5; requests without and with PASID 6 have tables of their own, and so has a
 * second function.
 */
function vtdReady(change: (guest: VtdGuest, at: Vtd) => void): Ready {
  const guest = new VtdGuest(vtd3());
  const device = guest.vf();
  const other = guest.vf(HOST_RID + 1, OTHER_RID);
  const { driver, memory, machine } = guest;
  driver.start();
  memory.store32(0x6000, 6);
  memory.store32(0x7000, 7);
  const made = (rid: number, pasid?: number): VtdDomain => {
    const domain = driver.createDomain('first');
    driver.map(domain, BigInt(IOVA), 0x6000, 0x1000);
    driver.attach(rid, domain, pasid === undefined ? {} : { pasid });
    return domain;
  };
  const own = made(GUEST_RID, 5);
  made(GUEST_RID);
  made(GUEST_RID, 6);
  made(OTHER_RID, 5);
  const next = driver.createDomain('first');
  next.table?.map(BigInt(IOVA), 0x7000, 0x1000);
  const entry = {
    ...{ P: 1, PWSNP: 1, PGTT: PGTT.FIRST_STAGE, DID: own.did },
    FSPTPTR: Number(next.table?.rootAddress ?? 0n),
  };
  const at: Vtd = {
    own,
    setEntry: () => driver.scalable?.setPasid(GUEST_RID, 5, entry),
    setContext: () => {
      const [directory, table] = [driver.pages.take(2), driver.pages.take()];
      machine.ram.store64(directory, BigInt(table) | 1n);
      storeStructure(machine.ram, table + 5 * PASID_TABLE_ENTRY.bytes, PASID_TABLE_ENTRY, entry);
      driver.scalable?.setContext(GUEST_RID, { P: 1, PASIDE: 1, PASIDDIRPTR: directory });
    },
    setTable: () => own.table?.map(BigInt(IOVA), 0x7000, 0x1000),
  };
  return {
    machine,
    change: () => {
      change(guest, at);
      driver.invalidate.sync();
    },
    read: () =>
      [
        [device, 5],
        [device, 6],
        [other, 5],
      ].map(([of, pasid]) => dmaRead(of as typeof device, IOVA, 1, pasid as number)?.[0]),
  };
}

interface Vtd {
  readonly own: VtdDomain;
  /** The PASID-table entry has other tables. */
  readonly setEntry: () => void;
  /** The context entry has another PASID directory, with such an entry. */
  readonly setContext: () => void;
  /** The page is another one. */
  readonly setTable: () => void;
}

const FRESH = 'what a guest’s structures say is read afresh, whatever domain-id they had';
const REBOUND = 'the host drops what it holds of tables that are replaced';
const WHOLE = 'an address without PASID says nothing of a first stage: all of it is dropped';

type Told = (at: { readonly driver: VtdGuest['driver'] }, did: number) => void;

const vtdRow = (
  command: string,
  what: 'setEntry' | 'setContext' | 'setTable',
  tell: Told,
  caught: readonly Mutant[],
  equal: Row['equal'] = {},
): Row => ({
  command,
  ready: () =>
    vtdReady((guest, at) => {
      at[what]();
      tell(guest, at.own.did);
    }),
  caught,
  equal,
});

const VTD_ROWS: readonly Row[] = [
  vtdRow(
    'context-cache, device',
    'setContext',
    ({ driver }) => driver.invalidate.contextDevice(0, GUEST_RID),
    ['scopeLost', 'scopeRid', 'scopePlain', 'hostTables'],
    { hostLost: REBOUND },
  ),
  vtdRow(
    'context-cache, domain',
    'setContext',
    ({ driver }, did) => driver.invalidate.contextDomain(did),
    ['scopeLost', 'scopeRid', 'scopePlain', 'hostTables'],
    { hostLost: REBOUND },
  ),
  vtdRow(
    'context-cache, global',
    'setContext',
    ({ driver }) => driver.invalidate.contextGlobal(),
    ['scopeLost', 'scopeRid', 'scopePlain', 'hostTables'],
    { hostLost: REBOUND },
  ),
  vtdRow(
    'PASID-cache, PASID',
    'setEntry',
    ({ driver }, did) => driver.invalidate.pasidCache(did, 5),
    ['scopeLost', 'scopeSub', 'scopePlain', 'hostTables'],
    { scopeSpace: FRESH, hostLost: REBOUND },
  ),
  vtdRow(
    'PASID-cache, domain',
    'setEntry',
    ({ driver }, did) => driver.invalidate.pasidCacheDomain(did),
    ['scopeLost', 'scopeRid', 'scopePlain', 'hostTables'],
    { scopeSpace: FRESH, hostLost: REBOUND },
  ),
  vtdRow(
    'PASID-cache, global',
    'setEntry',
    ({ driver }) => driver.invalidate.pasidCacheGlobal(),
    ['scopeLost', 'scopeRid', 'scopePlain', 'hostTables'],
    { hostLost: REBOUND },
  ),
  vtdRow(
    'IOTLB, global',
    'setTable',
    ({ driver }) => driver.invalidate.iotlbGlobal(),
    ['scopeLost', 'scopeRid', 'hostLost', 'hostAddress'],
    { scopePlain: 'translations are dropped in any case' },
  ),
  vtdRow('IOTLB, domain', 'setTable', ({ driver }, did) => driver.invalidate.iotlbDomain(did), [
    'scopeLost',
    'scopeSpace',
    'scopeRid',
    'hostLost',
    'hostTag',
    'hostAddress',
  ]),
  vtdRow(
    'IOTLB, page',
    'setTable',
    ({ driver }, did) => driver.invalidate.iotlbPage(did, BigInt(IOVA), 0),
    ['scopeLost', 'scopeSpace', 'scopeRid', 'hostLost', 'hostTag', 'hostAddress'],
    { scopeAddress: WHOLE },
  ),
  vtdRow('P_IOTLB, PASID', 'setTable', ({ driver }, did) => driver.invalidate.pasidIotlb(did, 5), [
    'scopeLost',
    'scopeSpace',
    'scopeSub',
    'scopeRid',
    'scopeNarrow',
    'hostLost',
    'hostTag',
    'hostAddress',
  ]),
  vtdRow(
    'P_IOTLB, page',
    'setTable',
    ({ driver }, did) => driver.invalidate.pasidIotlbPage(did, 5, BigInt(IOVA), 0),
    ['scopeLost', 'scopeSpace', 'scopeSub', 'scopeRid', 'scopeAddress', 'hostLost', 'hostTag', 'hostAddress'],
  ),
];

const lines: string[] = [];

describe.each(
  titled(
    [
      { unit: 'SMMUv3', rows: SMMU_ROWS },
      { unit: 'VT-d', rows: VTD_ROWS },
    ],
    ({ unit }) => `what a guest of ${unit} invalidates`,
  ),
)('%s', (_title, { unit, rows }) => {
  it.each(titled(rows, ({ command }) => `${command}: wrong, it is noticed`))(
    '%s',
    (_title, { command, ready, caught, equal = {} }) => {
      const right = outcome(ready());
      expect(JSON.parse(right)[0][0]).toBe(7);
      expect(JSON.parse(right)[1]).toEqual([]);
      expect(caught.filter((mutant) => outcome(ready(), mutant) === right)).toEqual([]);
      const same = Object.keys(equal) as Mutant[];
      expect(same.filter((mutant) => outcome(ready(), mutant) !== right)).toEqual([]);
      lines.push(`  ${unit.padEnd(6)} ${command.padEnd(52)} ${caught.length} caught, ${same.length} equal`);
    },
  );
});

afterAll(() => {
  process.stdout.write(`\nMutants of what nesting forwards:\n${lines.join('\n')}\n`);
});
