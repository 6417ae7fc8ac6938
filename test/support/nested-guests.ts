/**
 * Guests that a simulated host has assigned devices to, nested: model, nesting and host called
 * directly.
 */
import type { SimDevice } from '../../src/host/sim/sim-device.js';
import { SimHost } from '../../src/host/sim/sim-host.js';
import { ArrayMemory } from '../../src/memory/array.js';
import { SmmuDriver } from '../../src/sim/smmu-driver.js';
import { VtdDriver } from '../../src/sim/vtd-driver.js';
import { NestedMachine } from './nested-machine.js';

export const RAM = 2 ** 24;
/** Requester id on the host, and what the guest calls it. */
export const HOST_RID = 0x0210;
export const GUEST_RID = 0x0018;
/** Where tests map. */
export const IOVA = 0x4000_0000;

/** One guest on a vt-d3 host, its driver probed and enabled. */
export class VtdGuest {
  readonly memory = new ArrayMemory([{ base: 0, bytes: RAM }]);
  readonly machine: NestedMachine;
  readonly driver: VtdDriver;

  constructor(
    readonly host: SimHost,
    name = 'guest',
    options: Readonly<Record<string, string>> = {},
    pasidQuota?: number,
  ) {
    this.machine = new NestedMachine({
      host,
      name,
      memory: this.memory,
      bytes: RAM,
      model: 'vtd',
      options: { 'caching-mode': 'on', ...options },
      ...(pasidQuota === undefined ? {} : { pasidQuota }),
    });
    this.driver = new VtdDriver(this.machine, { mode: 'scalable', pages: [RAM / 2, RAM], pdts: 1 });
  }

  vf(rid = HOST_RID, guestRid = GUEST_RID): SimDevice {
    return this.machine.plug(this.host.addVf(rid, this.machine.guest), guestRid);
  }

  mdev(rid = HOST_RID, guestRid = GUEST_RID): SimDevice {
    return this.machine.plug(this.host.addMdev(rid, this.machine.guest), guestRid);
  }

  word(gpa: number): number {
    this.memory.load32(gpa);
    return this.memory.lo >>> 0;
  }

  /** Fault records of the guest's own unit, emptied as its driver does. */
  faults(): { reason: number; rid: number; pasid: number; address: bigint }[] {
    return this.driver.faults
      .drain()
      .map(({ reason, rid, pasid, address }) => ({ reason, rid, pasid, address }));
  }
}

export function vtd3(): SimHost {
  return new SimHost({ kind: 'vtd3', tableBytes: 2 ** 23 });
}

/** One guest on an SMMUv3 host, its driver not started. */
export class SmmuGuest {
  readonly memory = new ArrayMemory([{ base: 0, bytes: RAM }]);
  readonly machine: NestedMachine;
  readonly driver: SmmuDriver;

  constructor(
    readonly host: SimHost,
    name = 'guest',
    options: Readonly<Record<string, string>> = {},
  ) {
    this.machine = new NestedMachine({
      host,
      name,
      memory: this.memory,
      bytes: RAM,
      model: 'smmuv3',
      options,
    });
    this.driver = new SmmuDriver(this.machine, { pages: [RAM / 2, RAM] });
  }

  vf(rid = HOST_RID, sid = GUEST_RID): SimDevice {
    return this.machine.plug(this.host.addVf(rid, this.machine.guest), sid);
  }

  word(gpa: number): number {
    this.memory.load32(gpa);
    return this.memory.lo >>> 0;
  }

  /** Events of the guest's own unit, emptied as its driver does. */
  events() {
    this.machine.drain();
    return this.driver.events.drain();
  }
}

export function smmu(): SimHost {
  return new SimHost({ kind: 'smmuv3', tableBytes: 2 ** 23 });
}

/** Opcodes of the commands that the host is asked to carry out from now on. */
export function forwarded(machine: NestedMachine): number[] {
  const calls: number[] = [];
  const { guest } = machine;
  const invalidate = guest.invalidate.bind(guest);
  guest.invalidate = (parent, list, done) => {
    for (let at = 0; at < list.count * 4; at += 4) calls.push((list.words[at] as number) & 0xff);
    invalidate(parent, list, done);
  };
  return calls;
}
