import { expect, it } from 'vitest';
import { ACCESS } from '../../src/device/iommu.js';
import { ARM } from '../../src/sim/arm-table-format.js';
import { READ_ONLY, WRITE_ONLY } from '../../src/sim/page-table.js';
import type { SmmuDomain } from '../../src/sim/smmu-domain.js';
import type { SmmuDriver } from '../../src/sim/smmu-driver.js';
import { CD, STE } from '../../src/spec/smmuv3/structures.js';
import { DATA, device, expectReaches, RAM_BYTES } from '../support/rig.js';
import { type Expected, expectEvent, expectSilentAbort, SID, startSmmu } from '../support/smmu-rig.js';
import { onBothTransports } from '../support/transports.js';

const IOVA = 0x4000_0000n;
/** Beyond RAM, inside the output size. */
const NOWHERE = 0x7000_0000;
const OFFSET = 2n ** 36n;

interface FaultCase {
  readonly name: string;
  readonly event: string;
  readonly access?: 'read' | 'write';
  readonly address?: bigint;
  readonly ssid?: number;
  readonly expected?: Expected;
  /** Makes a correct setup wrong. The page at IOVA is mapped read-write and attached by then. */
  readonly spoil?: (driver: SmmuDriver, domain: SmmuDomain) => void;
}

/** Changes the 64-bit word at `at`. */
function edit(driver: SmmuDriver, at: number, change: (value: bigint) => bigint): void {
  const { ram } = driver.machine;
  ram.store64(at, change(ram.load64(at)));
}

/** Changes bits of the stream's STE, by the number of the lowest. */
const ste = (bit: number, change: (value: bigint) => bigint) => (driver: SmmuDriver) =>
  edit(driver, driver.streams.entry(SID) + Math.floor(bit / 64) * 8, change);
const set = (bit: number) => (value: bigint) => value | (1n << BigInt(bit % 64));
const clear = (bit: number) => (value: bigint) => value & ~(1n << BigInt(bit % 64));

/** Guest-physical address of the stream's only context descriptor. */
function contextOf(driver: SmmuDriver): number {
  return Number(driver.machine.ram.load64(driver.streams.entry(SID)) & 0xf_ffff_ffff_ffc0n);
}
const cd = (bit: number, change: (value: bigint) => bigint) => (driver: SmmuDriver) =>
  edit(driver, contextOf(driver) + Math.floor(bit / 64) * 8, change);

function entry(domain: SmmuDomain, level: number): number {
  const at = domain.table?.entryAddress(IOVA, level);
  if (at === undefined) throw new Error('not mapped');
  return at;
}

const CONFIGURATION: readonly FaultCase[] = [
  { name: 'STE not valid', event: 'C_BAD_STE', spoil: ste(0, clear(0)) },
  { name: 'S1CDMax beyond SSIDSIZE', event: 'C_BAD_STE', spoil: ste(0, (v) => v | (31n << 59n)) },
  { name: 'context descriptor beyond the output size', event: 'C_BAD_STE', spoil: ste(0, set(50)) },
  {
    name: 'split-stage ATS without two stages',
    event: 'C_BAD_STE',
    spoil: ste(STE.fields.EATS.lsb, set(STE.fields.EATS.lsb + 1)),
  },
  {
    name: 'context descriptor outside of RAM',
    event: 'F_CD_FETCH',
    expected: { fields: { FetchAddr: NOWHERE } },
    spoil: (d) => edit(d, d.streams.entry(SID), (v) => (v & ~0xf_ffff_ffff_ffc0n) | BigInt(NOWHERE)),
  },
  { name: 'CD not valid', event: 'C_BAD_CD', spoil: cd(0, clear(CD.fields.V.lsb)) },
  { name: 'CD of AArch32', event: 'C_BAD_CD', spoil: cd(0, clear(CD.fields.AA64.lsb)) },
  { name: 'CD that terminates without abort', event: 'C_BAD_CD', spoil: cd(0, clear(CD.fields.A.lsb)) },
  { name: 'CD with a reserved granule', event: 'C_BAD_CD', spoil: cd(0, (v) => v | 0xc0n) },
  { name: 'CD with an impossible size', event: 'C_BAD_CD', spoil: cd(0, (v) => v | 0x3fn) },
  { name: 'CD with tables beyond the output size', event: 'C_BAD_CD', spoil: cd(64, set(50)) },
  {
    name: 'CD that stalls where the stream forbids it',
    event: 'C_BAD_CD',
    spoil: (d) => {
      cd(0, set(CD.fields.S.lsb))(d);
      ste(STE.fields.S1STALLD.lsb, set(STE.fields.S1STALLD.lsb))(d);
    },
  },
  { name: 'SubstreamID without substreams', event: 'C_BAD_SUBSTREAMID', ssid: 5, expected: { ssid: 5 } },
];

const TRANSLATION: readonly FaultCase[] = [
  { name: 'write to nothing', event: 'F_TRANSLATION', address: IOVA + 4096n },
  {
    name: 'read of nothing',
    event: 'F_TRANSLATION',
    access: 'read',
    address: IOVA + 4096n,
    expected: { fields: { RnW: 1, CLASS: 2 } },
  },
  { name: 'the other half of the addresses', event: 'F_TRANSLATION', address: 0xffff_ffff_ffff_f000n },
  {
    name: 'write to a read-only page',
    event: 'F_PERMISSION',
    spoil: (_, m) => m.table?.map(IOVA, DATA, 4096, READ_ONLY),
  },
  {
    name: 'page of the privileged',
    event: 'F_PERMISSION',
    spoil: (d, m) => edit(d, entry(m, 1), (v) => v & ~ARM.AP_USER),
  },
  {
    name: 'rights taken away by an upper level (APTable)',
    event: 'F_PERMISSION',
    spoil: (d, m) => edit(d, entry(m, 3), (v) => v | (1n << 62n)),
  },
  {
    name: 'Access flag',
    event: 'F_ACCESS',
    spoil: (d, m) => edit(d, entry(m, 1), (v) => v & ~ARM.AF),
  },
  {
    name: 'block where none may be',
    event: 'F_TRANSLATION',
    spoil: (d, m) => edit(d, entry(m, 1), (v) => v & ~ARM.TYPE),
  },
  {
    name: 'page table outside of RAM',
    event: 'F_WALK_EABT',
    expected: { fields: { CLASS: 1, FetchAddr: NOWHERE } },
    spoil: (d, m) => edit(d, entry(m, 2), () => BigInt(NOWHERE) | 3n),
  },
];

onBothTransports(
  'SMMUv3 faults',
  (rig) => {
    for (const { name, event, access = 'write', address = IOVA, ssid = -1, expected, spoil } of [
      ...CONFIGURATION,
      ...TRANSLATION,
    ]) {
      it(`${event}: ${name}`, () => {
        const { machine } = rig({ ats: 'on' });
        const driver = startSmmu(machine);
        const domain = driver.createDomain('first');
        driver.map(domain, IOVA, DATA, 4096);
        driver.attach(SID, domain);
        spoil?.(driver, domain);
        driver.commands.configurationAll();
        driver.commands.translationsAll();
        driver.commands.sync();
        expectEvent(driver, access, ssid, address, event, expected);
      });
    }

    it('an output beyond IPS', () => {
      const { machine } = rig({ oas: '40' });
      const driver = startSmmu(machine);
      const domain = driver.createDomain('first');
      driver.map(domain, IOVA, 2 ** 40, 4096);
      driver.attach(SID, domain);
      expectEvent(driver, 'read', -1, IOVA, 'F_ADDR_SIZE', { address: IOVA });
    });

    it('a bypassed address beyond the output size', () => {
      const { machine } = rig({ oas: '40' });
      const driver = startSmmu(machine);
      driver.attach(SID, driver.createDomain('bypass'));
      expectReaches(machine, device(machine, SID), BigInt(DATA), DATA);
      expectEvent(driver, 'write', -1, 2n ** 40n, 'F_ADDR_SIZE', { address: 2n ** 40n });
    });

    it('no event where R is clear', () => {
      const { machine } = rig();
      const driver = startSmmu(machine);
      for (const kind of ['first', 'second'] as const) {
        driver.attach(SID, driver.createDomain(kind, { record: false }));
        expectSilentAbort(driver, -1, IOVA);
        driver.detach(SID);
      }
    });

    it('stage 2: rights, and what was being translated', () => {
      const { machine } = rig();
      const driver = startSmmu(machine);
      const parent = driver.createDomain('second', { inputBits: 40 });
      driver.attach(SID + 1, parent);
      driver.map(parent, IOVA, DATA, 4096, READ_ONLY);
      driver.map(parent, IOVA + 4096n, DATA, 4096, WRITE_ONLY);
      const s2 = { sid: SID + 1, fields: { S2: 1, CLASS: 2, IPA: Number(IOVA) } };
      expectEvent(driver, 'write', -1, IOVA + 8n, 'F_PERMISSION', { ...s2, address: IOVA + 8n });
      expect(machine.translate(SID + 1, -1, ACCESS.WRITE, IOVA + 4096n)).toBeDefined();
      expectEvent(driver, 'read', -1, IOVA + 4096n, 'F_PERMISSION', { sid: SID + 1 });
      driver.map(parent, OFFSET, 0, RAM_BYTES, undefined, 21);
      const domain = driver.createNested(parent, {}, (gpa) => OFFSET + BigInt(gpa));
      driver.attach(SID, domain);
      driver.map(domain, IOVA, Number(OFFSET) + DATA, 4096);
      expectReaches(machine, device(machine, SID), IOVA, DATA);
      // The stage-1 tables and the context descriptor lie below the first 16 MiB.
      const table = parent.table?.entryAddress(OFFSET + BigInt(domain.table?.root ?? 0), 2) as number;
      edit(driver, table, () => 0n);
      driver.commands.translationsAll();
      driver.commands.sync();
      expectEvent(driver, 'write', -1, IOVA, 'F_TRANSLATION', {
        fields: { S2: 1, CLASS: 1 },
      });
      driver.commands.configurationAll();
      driver.commands.sync();
      const event = expectEvent(driver, 'write', -1, IOVA, 'F_TRANSLATION', { fields: { S2: 1 } });
      expect(event.fields['CLASS']).toBeUndefined();
    });
  },
  'smmuv3',
);
