/**
 * A simulated host with guests whose memory a test looks at, and completions that it sees one by
 * one.
 */

import type { Container, HostKind } from '../../src/assignment/request.js';
import { PAGE_BYTES } from '../../src/base/page.js';
import type {
  HostFault,
  HostInvalidations,
  HostOutcome,
  HostPageRequest,
  NestedTable,
  PasidRefusal,
} from '../../src/host/port.js';
import { MapChanges } from '../../src/host/port.js';
import type { SimDevice } from '../../src/host/sim/sim-device.js';
import type { SimGuest } from '../../src/host/sim/sim-guest.js';
import { SimHost } from '../../src/host/sim/sim-host.js';
import { ArrayMemory } from '../../src/memory/array.js';
import { GuestPages } from './guest-tables.js';

export const GUEST_BYTES = 2 ** 24;
export const READ_WRITE = 3;

export class RigGuest {
  readonly memory = new ArrayMemory([{ base: 0, bytes: GUEST_BYTES }]);
  /** Pages for tables: the upper half. */
  readonly pages = new GuestPages(GUEST_BYTES / 2);
  readonly faults: HostFault[] = [];
  readonly refusals: PasidRefusal[] = [];
  readonly requests: HostPageRequest[] = [];
  readonly port: SimGuest;

  constructor(
    readonly host: SimHost,
    readonly name: string,
    container: Container,
    options: { pinLimit?: number; pasidQuota?: number } = {},
  ) {
    this.port = host.addGuest({ name, memory: this.memory, bytes: GUEST_BYTES, container, ...options });
    this.port.listen({
      fault: (fault) => void this.faults.push(fault),
      refusedPasid: (refusal) => void this.refusals.push(refusal),
      pageRequest: (request) => void this.requests.push(request),
    });
  }

  /** Does one operation to its end. */
  outcome(ask: (port: SimGuest, done: (outcome: HostOutcome) => void) => void): HostOutcome {
    let outcome: HostOutcome | undefined;
    ask(this.port, (ended) => {
      outcome = ended;
    });
    if (outcome !== undefined) throw new Error('a completion came from within the call');
    this.port.run();
    if (outcome === undefined) throw new Error('no completion');
    return outcome;
  }

  /** The same, which has to succeed. */
  ok(ask: (port: SimGuest, done: (outcome: HostOutcome) => void) => void): HostOutcome {
    const outcome = this.outcome(ask);
    if (outcome.code !== 'OK') throw new Error(outcome.text);
    return outcome;
  }

  space(space: number, device: SimDevice, parent = false): void {
    this.ok((port, done) => port.createSpace(space, device.number, parent, done));
  }

  map(space: number, page: number, guestPage: number, pages: number, rights = READ_WRITE): HostOutcome {
    return this.change(space, (changes) => changes.map(page, guestPage, pages, rights));
  }

  unmap(space: number, page: number, pages: number): HostOutcome {
    return this.change(space, (changes) => changes.unmap(page, pages));
  }

  change(space: number, fill: (changes: MapChanges) => void): HostOutcome {
    const changes = new MapChanges();
    fill(changes);
    return this.outcome((port, done) => port.change(space, changes, done));
  }

  attach(device: SimDevice, space: number, pasid = -1): HostOutcome {
    return this.outcome((port, done) => port.attach(device.number, pasid, space, done));
  }

  nest(device: SimDevice, parent: number, table: NestedTable, pasid = -1): HostOutcome {
    return this.outcome((port, done) => port.attachNested(device.number, pasid, parent, table, done));
  }

  detach(device: SimDevice, pasid = -1): HostOutcome {
    return this.outcome((port, done) => port.detach(device.number, pasid, done));
  }

  invalidate(parent: number, invalidations: HostInvalidations): HostOutcome {
    return this.outcome((port, done) => port.invalidate(parent, invalidations, done));
  }

  /**
   * All of this guest's memory, as a nest parent has it: guest-physical addresses are device
   * addresses.
   */
  mapAll(space: number): void {
    const outcome = this.map(space, 0, 0, GUEST_BYTES / PAGE_BYTES);
    if (outcome.code !== 'OK') throw new Error(outcome.text);
  }

  word(gpa: number): number {
    return Number((this.memory.peek(gpa - (gpa % 8)) ?? 0n) >> (gpa % 8 === 0 ? 0n : 32n)) >>> 0;
  }
}

/** Writes words at a device address below 2^53; returns how many bytes went through. */
export function dmaWrite(device: SimDevice, address: number, values: readonly number[], pasid = -1): number {
  const [lo, hi] = [address % 2 ** 32, Math.floor(address / 2 ** 32)];
  return device.write(lo, hi, Uint32Array.from(values), pasid).done;
}

/** Reads words; undefined when the device was refused before the end. */
export function dmaRead(device: SimDevice, address: number, words: number, pasid = -1): number[] | undefined {
  const data = new Uint32Array(words);
  const [lo, hi] = [address % 2 ** 32, Math.floor(address / 2 ** 32)];
  const { failedAt } = device.read(lo, hi, data, pasid);
  return failedAt === undefined ? [...data] : undefined;
}

/** A host with one guest. */
export function rig(
  kind: HostKind,
  container: Container,
  options: { pinLimit?: number; pasidQuota?: number } = {},
) {
  const host = new SimHost({ kind, tableBytes: 2 ** 24 });
  return { host, guest: new RigGuest(host, 'guest', container, options) };
}

/** Everything that a host has left over, without zeros. */
export function leftovers(host: SimHost): Readonly<Record<string, number>> {
  return Object.fromEntries(Object.entries(host.leftovers()).filter(([, count]) => count !== 0));
}
