/** A guest on a simulated host whose hardware walks its tables. */

import { ALL_PAGES, HostInvalidations, type NestedTable } from '../../src/host/port.js';
import type { SimDevice } from '../../src/host/sim/sim-device.js';
import type { SimHost } from '../../src/host/sim/sim-host.js';
import { pack } from '../../src/spec/define.js';
import { CMD, CMD_TLBI } from '../../src/spec/smmuv3/commands.js';
import { GuestTables, guestSte, writeCd } from './guest-tables.js';
import { dmaRead, dmaWrite, RigGuest, rig } from './host-rig.js';

export const RID = 0x0210;
export const PARENT = 1;
export const IOVA = 0x40_0000;
/** StreamID that the guest gives its device. */
export const GUEST_SID = 0x18;

interface Case {
  readonly name: string;
  readonly kind: 'smmuv3' | 'vtd2' | 'vtd3';
  readonly device: 'vf' | 'mdev';
  /** The PASID whose requests are nested; −1: requests without. */
  readonly pasid: number;
}

export const CASES: readonly Case[] = [
  { name: 'SMMUv3 VF', kind: 'smmuv3', device: 'vf', pasid: -1 },
  { name: 'vt-d3 VF by RID_PASID', kind: 'vtd3', device: 'vf', pasid: -1 },
  { name: 'vt-d3 VF, one PASID', kind: 'vtd3', device: 'vf', pasid: 33 },
  { name: 'vt-d3 mdev', kind: 'vtd3', device: 'mdev', pasid: -1 },
  { name: 'vt-d2 VF, one PASID', kind: 'vtd2', device: 'vf', pasid: 5 },
];

/** A guest whose whole memory is below a nest parent, and stage-1 tables of its own. */
export class NestedGuest extends RigGuest {
  readonly device: SimDevice;
  readonly tables: GuestTables;
  readonly cd: number;

  constructor(
    host: SimHost,
    name: string,
    readonly of: Case,
    rid = RID,
    container: 'iommufd' | 'type1-nesting' = 'iommufd',
  ) {
    super(host, name, container);
    this.device = of.device === 'mdev' ? host.addMdev(rid, this.port) : host.addVf(rid, this.port);
    this.space(PARENT, this.device, true);
    this.mapAll(PARENT);
    this.ok((port, done) => port.identify(this.device.number, GUEST_SID, done));
    this.tables = new GuestTables(this.memory, this.pages, of.kind === 'smmuv3' ? 'arm' : 'vtd');
    this.cd = this.pages.take();
    writeCd(this.memory, this.cd, this.tables.root, 77);
  }

  get table(): NestedTable {
    if (this.of.kind === 'smmuv3') return { format: 'smmuv3', ste: guestSte(this.cd) };
    return vtdTable(this.tables.root);
  }

  enter(): this {
    const outcome = this.nest(this.device, PARENT, this.table, this.of.pasid);
    if (outcome.code !== 'OK') throw new Error(outcome.text);
    return this;
  }

  /** Tells the host that one page of the tables has changed, or all. */
  forget(page?: number): string {
    const invalidations = new HostInvalidations();
    if (this.of.kind === 'smmuv3') {
      const words =
        page === undefined
          ? pack(CMD_TLBI, { Opcode: CMD.TLBI_NH_ASID, ASID: 77 })
          : pack(CMD_TLBI, { Opcode: CMD.TLBI_NH_VA, ASID: 77, Address: page });
      invalidations.command(words[0], words[1], words[2], words[3]);
    } else {
      invalidations.range(
        this.device.number,
        this.of.pasid,
        page ?? 0,
        0,
        page === undefined ? ALL_PAGES : 1,
      );
    }
    return this.invalidate(PARENT, invalidations).code;
  }

  write(address: number, values: readonly number[]): number {
    return dmaWrite(this.device, address, values, this.of.pasid);
  }

  read(address: number): number | undefined {
    return dmaRead(this.device, address, 1, this.of.pasid)?.[0];
  }
}

export function vtdTable(root: number): NestedTable {
  return { format: 'vtd', root, levels: 4, writeProtect: false, extendedAccessed: false, supervisor: false };
}

export function setUp(of: Case, container: 'iommufd' | 'type1-nesting' = 'iommufd') {
  const { host } = rig(of.kind, 'iommufd');
  if (of.device === 'mdev') host.addParent(RID);
  return { host, guest: new NestedGuest(host, 'nested', of, RID, container) };
}
