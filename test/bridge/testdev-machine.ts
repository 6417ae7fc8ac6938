import { CODEC } from '../../src/wire/codec.js';
import { FLAG, MESSAGE } from '../../src/wire/frame.js';
import type { Translate, TranslateReply } from '../../src/wire/messages.js';
import { eventually } from '../support/daemon.js';
import { PhysicalMemory } from './physical-memory.js';
import { BridgeQemu } from './qemu.js';
import { type Script, ScriptedDaemon } from './scripted-daemon.js';
import { TestdevDriver } from './testdev-driver.js';

/** Slot 2 of the root bus: after the NVMe disk of {@link BridgeQemu}. */
export const RID = 0x10;
/** Slot 3, for a bridge; a function behind it is on bus 1. */
export const BRIDGE = 0x18;
/**
 * What every function behind a bridge to conventional PCI is to the IOMMU, and slot 0 behind a
 * port.
 */
export const BEHIND_RID = 0x100;

const READ_WRITE = 3;

/** One page's translation. */
export function page(from: number, to: number, access: number = READ_WRITE): Partial<TranslateReply> {
  return { spans: Uint32Array.of(...halves(from), ...halves(to), 12, access) };
}

export const REFUSED: Partial<TranslateReply> = { status: 1 };
export const COMPLETER_ABORT: Partial<TranslateReply> = { status: 3 };
export const stalled = (stall: number): Partial<TranslateReply> => ({ status: 2, stall });

function halves(address: number): [number, number] {
  return [address % 2 ** 32, Math.floor(address / 2 ** 32)];
}

const EMPTY: TranslateReply = {
  status: 0,
  epoch: 0,
  space: 1,
  sub: 0,
  spans: new Uint32Array(0),
  once: false,
  stall: 0,
};

/**
 * A machine that stands still, with a test device, and a daemon whose translations the test
 * decides.
 */
export class TestdevMachine {
  readonly qemu = new BridgeQemu();
  readonly asked: Translate[] = [];
  /** The answer to the next request; undefined: none yet, {@link reply} gives it. */
  answer: (request: Translate) => Partial<TranslateReply> | undefined = ({ lo }) =>
    page(lo & ~0xfff, 0x10_0000);
  daemon!: ScriptedDaemon;
  memory!: PhysicalMemory;
  device!: TestdevDriver;
  /** Preloaded beside the bridge, and what it asks for (`VIOMMU_PROBE`). */
  preload: string | undefined;
  probeAsks = '';
  /** Of the IOMMU, with a comma before each. */
  options = '';
  #reply: ((answer: Partial<TranslateReply>) => void) | undefined;

  async start(
    script: Omit<Script, 'translate'> = {},
    device: readonly string[] = ['-device', 'viommu-testdev'],
    rid: number = RID,
  ): Promise<void> {
    this.daemon = await ScriptedDaemon.start(this.qemu.socket, { ...script, translate: this.#translate });
    await this.#power(device, rid);
    await this.untilReceived('RESET');
  }

  /** The same with an IOMMU of QEMU's own, and without a daemon. */
  async startForeign(iommu: readonly string[]): Promise<void> {
    this.qemu.foreignIommu = iommu;
    await this.#power(['-device', 'viommu-testdev'], RID);
  }

  async #power(device: readonly string[], rid: number): Promise<void> {
    const gdb = this.qemu.path('gdb');
    const probe = this.preload === undefined ? undefined : { asks: this.probeAsks, object: this.preload };
    this.qemu.start(this.options, ['-S', ...device, '-gdb', `unix:${gdb},server=on,wait=off`], probe);
    this.memory = await PhysicalMemory.connect(gdb).catch((error: Error) => {
      throw new Error(`${error.message}: ${this.qemu.text}`);
    });
    this.device = await TestdevDriver.start(this.qemu, this.memory, rid, BRIDGE);
  }

  /** After a reset of the machine: the function is where it was. */
  async reopen(): Promise<void> {
    this.device = await TestdevDriver.start(this.qemu, this.memory, RID, BRIDGE);
  }

  /** Until so many requests of the device have come, answered or not. */
  untilAsked(count = 1): Promise<unknown> {
    return eventually(() => this.asked.length >= count, `request ${count}`, 20_000);
  }

  untilReceived(name: string, after = 0): Promise<unknown> {
    const { received } = this.daemon;
    return eventually(() => received.slice(after).includes(name), `${name}: ${this.qemu.text}`, 20_000);
  }

  /** Gives the answer that was held back. */
  async reply(answer: Partial<TranslateReply>): Promise<void> {
    const reply = await eventually(() => this.#reply, 'a request that is not answered', 20_000);
    this.#reply = undefined;
    reply(answer);
  }

  /** The requests since the last call, in short. */
  takeAsked(): string[] {
    const kinds = ['untranslated', 'ahead', 'translated'];
    return this.asked.splice(0).map(({ kind, pasid, access, lo, hi, mayStall }) => {
      const who = pasid === 0 ? '' : ` pasid ${pasid - 1}`;
      const address = (hi * 2 ** 32 + lo).toString(16);
      return `${kinds[kind]}${who} ${address} ${['', 'r', 'w', 'rw'][access]}${mayStall ? ' may stall' : ''}`;
    });
  }

  async dispose(): Promise<void> {
    this.memory?.close();
    this.qemu.dispose();
    await this.daemon?.dispose();
  }

  readonly #translate: NonNullable<Script['translate']> = (channel, id) => {
    const request = { ...channel.body(CODEC.Translate) };
    const put = (answer: Partial<TranslateReply>): void => {
      channel.put(MESSAGE.TRANSLATE, FLAG.REPLY, id, CODEC.TranslateReply, { ...EMPTY, ...answer });
      channel.flush();
    };
    if (request.rid !== RID && request.rid !== BEHIND_RID) put(REFUSED);
    else {
      this.asked.push(request);
      const answer = this.answer(request);
      if (answer === undefined) this.#reply = put;
      else put(answer);
    }
  };
}
