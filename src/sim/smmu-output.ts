import { PAGE_BYTES, PAGE_OFFSET } from '../base/page.js';
import { hex64 } from '../base/u64.js';
import type { Layout, Register } from '../spec/define.js';
import { EVENT_BYTES, EVENT_LAYOUT, eventName, PRI_ENTRY } from '../spec/smmuv3/events.js';
import {
  EVENTQ_BASE,
  EVENTQ_CONS,
  EVENTQ_PROD,
  PRIQ_BASE,
  PRIQ_CONS,
  PRIQ_PROD,
} from '../spec/smmuv3/registers.js';
import type { DeviceRegisters } from './driver-registers.js';
import type { PageAllocator } from './machine.js';
import { loadStructure } from './structure.js';

/** An event as a driver's handler reads it. */
export interface SmmuEvent {
  readonly name: string;
  readonly sid: number;
  /** −1 when it has none. */
  readonly ssid: number;
  /** Input address; 0 where the event has none. */
  readonly address: bigint;
  readonly stall: boolean;
  readonly stag: number;
  readonly read: boolean;
  /** Fields that are not zero, by name. */
  readonly fields: Readonly<Record<string, number>>;
}

/** A page request. */
interface SmmuPageRequest {
  readonly sid: number;
  readonly ssid: number;
  readonly address: bigint;
  readonly read: boolean;
  readonly write: boolean;
  readonly execute: boolean;
  readonly privileged: boolean;
  readonly group: number;
  readonly last: boolean;
}

const OVERFLOW = 0x8000_0000;

/** The guest's side of a queue that the SMMU fills. IHI 0070 §3.5, §7.4, §8.1 */
abstract class OutputRing {
  readonly #entryBytes: number;
  readonly #shapes: {
    readonly base: Register<'LOG2SIZE' | 'ADDR' | 'WA'>;
    readonly prod: Register<'WR' | 'OVFLG'>;
    readonly cons: Register<'RD' | 'OVACKFLG'>;
  };
  readonly base: number;
  readonly entries: number;
  /** Overflows that were acknowledged. */
  overflows = 0;
  #cons = 0;

  constructor(
    readonly registers: DeviceRegisters,
    pages: PageAllocator,
    readonly log2: number,
    entryBytes: number,
    shapes: {
      readonly base: Register<'LOG2SIZE' | 'ADDR' | 'WA'>;
      readonly prod: Register<'WR' | 'OVFLG'>;
      readonly cons: Register<'RD' | 'OVACKFLG'>;
    },
  ) {
    this.#entryBytes = entryBytes;
    this.#shapes = shapes;
    this.entries = 2 ** log2;
    const bytes = Math.max(PAGE_BYTES, this.entries * entryBytes);
    this.base = pages.takeAligned(Math.log2(bytes), bytes);
  }

  /** Programs base and indexes; the enable is the driver's. */
  program(): void {
    this.#cons = 0;
    this.registers.write(this.#shapes.base, { LOG2SIZE: this.log2, ADDR: this.base, WA: 1 });
    this.registers.write(this.#shapes.prod, { WR: 0 });
    this.registers.write(this.#shapes.cons, { RD: 0 });
  }

  /** Entries that wait. Does not take them. */
  get waiting(): number {
    const prod = this.registers.read(this.#shapes.prod)[0];
    return (prod - this.#cons) & (2 * this.entries - 1);
  }

  /** Takes up to `most` entries, the oldest first, and acknowledges an overflow. */
  protected take(most: number): number[] {
    const prod = this.registers.read(this.#shapes.prod)[0];
    const mask = 2 * this.entries - 1;
    const found: number[] = [];
    let index = this.#cons & mask;
    while (index !== (prod & mask) && found.length < most) {
      found.push(this.base + (index & (this.entries - 1)) * this.#entryBytes);
      index = (index + 1) & mask;
    }
    if (((prod ^ this.#cons) & OVERFLOW) !== 0) this.overflows++;
    this.#next = ((prod & OVERFLOW) | index) >>> 0;
    return found;
  }

  /** Moves CONS, so that the unit may reuse the entries that were taken. */
  protected give(): void {
    this.#cons = this.#next;
    this.registers.writeWords(this.#shapes.cons, [this.#cons]);
  }

  #next = 0;
}

export class EventRing extends OutputRing {
  constructor(registers: DeviceRegisters, pages: PageAllocator, log2: number) {
    const shapes = { base: EVENTQ_BASE, prod: EVENTQ_PROD, cons: EVENTQ_CONS };
    super(registers, pages, log2, EVENT_BYTES, shapes);
  }

  /** What a handler does: reads every event that is there, oldest first. */
  drain(most = this.entries): SmmuEvent[] {
    const events = this.take(most).map((at) => this.#event(at));
    this.give();
    return events;
  }

  #event(at: number): SmmuEvent {
    const { ram } = this.registers.machine;
    const number = ram.load32(at) & 0xff;
    const shape = EVENT_LAYOUT[number] as Layout<string> | undefined;
    if (shape === undefined) throw new Error(`simulated guest: ${eventName(number)}`);
    const words = loadStructure(ram, at, shape);
    const fields: Record<string, number> = {};
    for (const name of Object.keys(shape.fields)) {
      const value = shape.get[name](words);
      if (value !== 0 && name !== 'InputAddr' && name !== 'EventNumber') fields[name] = value;
    }
    const wide = 'InputAddr' in shape.fields;
    const substream = fields['SSV'] === 1 || (!('SSV' in shape.fields) && 'SubstreamID' in shape.fields);
    return {
      name: shape.name,
      sid: fields['StreamID'] ?? 0,
      ssid: substream ? (fields['SubstreamID'] ?? 0) : -1,
      address: wide ? (BigInt(words[5] >>> 0) << 32n) | BigInt(words[4] >>> 0) : 0n,
      stall: fields['Stall'] === 1,
      stag: fields['STAG'] ?? 0,
      read: fields['RnW'] === 1,
      fields,
    };
  }
}

export class PageRequestRing extends OutputRing {
  constructor(registers: DeviceRegisters, pages: PageAllocator, log2: number) {
    const shapes = { base: PRIQ_BASE, prod: PRIQ_PROD, cons: PRIQ_CONS };
    super(registers, pages, log2, PRI_ENTRY.bytes, shapes);
  }

  /** What a handler does: reads every request that is there, oldest first. */
  drain(most = this.entries): SmmuPageRequest[] {
    const requests = this.take(most).map((at) => this.#request(at));
    this.give();
    return requests;
  }

  #request(at: number): SmmuPageRequest {
    const words = loadStructure(this.registers.machine.ram, at, PRI_ENTRY);
    const { get } = PRI_ENTRY;
    return {
      sid: get.StreamID(words),
      ssid: get.SSV(words) === 1 ? get.SubstreamID(words) : -1,
      address: (BigInt(words[3] >>> 0) << 32n) | BigInt((words[2] & ~PAGE_OFFSET) >>> 0),
      read: get.Read(words) === 1,
      write: get.Write(words) === 1,
      execute: get.Exec(words) === 1,
      privileged: get.Priv(words) === 1,
      group: get.PRGIndex(words),
      last: get.Last(words) === 1,
    };
  }
}

/** An event as a driver's log would have it. */
export function eventText({ name, sid, ssid, address, read, stall, stag }: SmmuEvent): string {
  const substream = ssid < 0 ? '' : ` SubstreamID 0x${ssid.toString(16)}`;
  const held = stall ? ` STAG 0x${stag.toString(16)}` : '';
  const at = hex64(Number(address & 0xffff_ffffn), Number(address >> 32n));
  return `${name} StreamID 0x${sid.toString(16)}${substream} ${read ? 'read' : 'write'} of ${at}${held}`;
}
