import { expect } from 'vitest';
import { parseVtdConfig } from '../../src/device/vtd/config.js';
import { plainDescriptors } from '../../src/device/vtd/descriptors.js';
import { pack, type Words } from '../../src/spec/define.js';
import { CC_INV_DSC, DESCRIPTOR, INV_WAIT_DSC, IOTLB_INV_DSC } from '../../src/spec/vtd/descriptors.js';
import { IQH_REG, IQT_REG } from '../../src/spec/vtd/registers.js';
import { CONTROL, MESSAGE, SHARED } from '../../src/wire/frame.js';
import type { Queue } from '../../src/wire/messages.js';
import { eventually } from '../support/daemon.js';
import type { Script } from './scripted-daemon.js';
import { COMMAND, STATUS } from './testdev-driver.js';
import { page, TestdevMachine } from './testdev-machine.js';

export const UNIT = 0xfed9_0000;
export const TAIL = IQT_REG.offset;
export const HEAD = IQH_REG.offset;
/** Where the guest has its queue, a word for completions, and what devices read. */
export const QUEUE = 0x20_0000;
export const STATUS_AT = 0x30_0000;
export const DATA = 0x10_0000;
/** An entry has 16 bytes; there are 256. */
export const ENTRY = 16;
export const ENTRIES = 256;
/** Input addresses below are of domain 1, those above of domain 2. */
export const SECOND = 0x100_0000;
/**
 * A scope that no translation has. Its space has another slot of the bridge's epochs than 1 and 2.
 */
const UNUSED_SCOPE = { space: 0x7ff0, sub: 0, rid: 0xfffe, pasid: 0, lo: 0, hi: 0, log2Size: 12 };

export const [DOMAIN, PAGES, GLOBAL] = [2, 3, 1];

/** The lower 128 bits of a descriptor. */
const narrow = (words: Words): Uint32Array => Uint32Array.from(words).subarray(0, 4);

export function iotlb(domain: number, given: { G?: number; AM?: number; ADDR?: number }): Uint32Array {
  return narrow(pack(IOTLB_INV_DSC, { TypeLow: DESCRIPTOR.IOTLB, G: PAGES, DID: domain, ...given }));
}

export function wait(data: number, given: { IF?: number; StatusAddress?: number } = {}): Uint32Array {
  const fields = { TypeLow: DESCRIPTOR.WAIT, SW: 1, StatusData: data, StatusAddress: STATUS_AT, ...given };
  return narrow(pack(INV_WAIT_DSC, fields));
}

export const contextCache = (): Uint32Array =>
  narrow(pack(CC_INV_DSC, { TypeLow: DESCRIPTOR.CONTEXT_CACHE, G: GLOBAL }));

/** A VT-d's queue in legacy mode. */
export function queueOf(number: number, given: Partial<Queue> = {}): Queue {
  return {
    ...{ number, tail: TAIL, head: HEAD, indexMask: ENTRIES * ENTRY - ENTRY, indexShift: 4, wraps: false },
    ...{ baseLo: QUEUE, baseHi: 0, entryLog2: 4, entriesLog2: Math.log2(ENTRIES) },
    commands: plainDescriptors(parseVtdConfig({}), false),
    ...given,
  };
}

/** What the guest and the daemon see of the queue. */
interface Seen {
  readonly status: number;
  readonly head: number;
  readonly tail: number;
  readonly filled: number;
}

/** A machine whose unit has a queue that the bridge may run, and a daemon that says so. */
export class QueueMachine extends TestdevMachine {
  /** The number of the REG_WRITEs that have come is that of those handled. */
  handles = true;

  async startWith(script: Omit<Script, 'translate'> = {}, device?: readonly string[]): Promise<void> {
    const write = () => {
      if (this.handles) this.handled();
      return { batch: 0, device: 0, ops: [] };
    };
    this.answer = ({ lo }) => ({ ...page(lo & ~0xfff, DATA), space: lo < SECOND ? 1 : 2 });
    await this.start({ write, ...script }, device);
    await this.memory.write(STATUS_AT, new Uint8Array(ENTRY));
  }

  handled(): void {
    this.daemon.setControlWord(CONTROL.HANDLED, this.daemon.writes.length);
  }

  /** The daemon describes a queue; `inForce` = the number that it then shows. */
  async offer(queue: Queue = queueOf(1), inForce: number = queue.number): Promise<void> {
    this.daemon.post(MESSAGE.QUEUE, queue);
    // Behind it, so it has been taken.
    await this.daemon.ask(MESSAGE.INVALIDATE, { ...UNUSED_SCOPE, epoch: 1, devices: [], structures: false });
    this.daemon.setControlWord(CONTROL.QUEUE, inForce);
  }

  /** Writes entries to the guest's queue. @param at index of the first */
  async put(entries: readonly Uint32Array[], at = 0, base = QUEUE): Promise<void> {
    for (const [n, entry] of entries.entries()) {
      await this.memory.write(base + ((at + n) % ENTRIES) * ENTRY, new Uint8Array(entry.slice().buffer));
    }
  }

  /** Rings the doorbell: one store. */
  async ring(value: number, size: 1 | 2 | 4 | 8 = 4, offset = TAIL): Promise<void> {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64LE(BigInt(value));
    await this.memory.write(UNIT + offset, bytes.subarray(0, size));
  }

  /** A register as it stands in the shared page. */
  register(offset: number): number {
    return this.daemon.controlWord((SHARED.REGISTERS + offset) / 4);
  }

  setRegister(offset: number, value: number): void {
    this.daemon.setControlWord((SHARED.REGISTERS + offset) / 4, value);
  }

  /** Words of the ring from a slot on. */
  slots(first: number, count: number): number[] {
    const ring = ((this.daemon.hello?.sharedBytes as number) - SHARED.RING_BYTES) / 4;
    return Array.from({ length: count * 4 }, (_, n) => this.daemon.controlWord(ring + first * 4 + n));
  }

  async seen(): Promise<Seen> {
    return {
      status: await this.memory.readWord(STATUS_AT),
      head: this.register(HEAD),
      tail: this.register(TAIL),
      filled: this.daemon.controlWord(CONTROL.RING_FILLED),
    };
  }

  /** Messages of this kind so far. */
  count(name: string): number {
    return this.daemon.received.filter((received) => received === name).length;
  }

  /** The device reads these pages; those that it had to ask for. */
  async asks(...addresses: readonly number[]): Promise<number[]> {
    this.takeAsked();
    const asked: number[] = [];
    for (const address of addresses) {
      expect(await this.device.run(COMMAND.READ, { address }), this.qemu.text).toBe(STATUS.DONE);
      if (this.takeAsked().length > 0) asked.push(address);
    }
    return asked;
  }

  /** The store is carried out by the bridge. */
  async expectRun(store: () => Promise<void>, after: Partial<Seen>): Promise<void> {
    const sent = this.daemon.controlWord(CONTROL.SENT);
    await store();
    expect(await this.seen(), this.qemu.text).toMatchObject(after);
    expect(this.daemon.controlWord(CONTROL.SENT)).toBe(sent);
  }

  /**
   * The store went to the daemon and nothing else happened: translations of `kept` are the same.
   */
  async expectLeft(store: () => Promise<void>, kept: readonly number[] = []): Promise<void> {
    const before = await this.seen();
    const { writes } = this.daemon;
    const count = writes.length;
    await store();
    await eventually(() => writes.length > count, `the write: ${this.qemu.text}`);
    expect(writes.length).toBe(count + 1);
    expect(await this.seen()).toEqual(before);
    expect(await this.asks(...kept)).toEqual([]);
  }
}
