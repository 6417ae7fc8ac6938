import { ANY, SPAN_WORDS, TRANSLATE_STATUS, type WalkTables } from '../../src/device/iommu.js';
import type { GuestMemory } from '../../src/memory/port.js';
import { DeviceTable } from '../../src/session/devices.js';
import { Invalidations } from '../../src/session/invalidation.js';
import { PeerWalks } from '../../src/session/walks.js';
import { Iotlb, type Scope, throughSpan } from '../../src/sim/iotlb.js';
import type { Translation } from '../../src/sim/machine.js';
import { MESSAGE, NOTIFY } from '../../src/wire/frame.js';
import type { Invalidate, Tables } from '../../src/wire/messages.js';
import { LocalMachine } from '../support/local-machine.js';
import { Walker } from '../support/peer-walks.js';
import { heard } from '../support/spoil.js';
import { CountingMemory } from './counting-memory.js';
import { must } from './fuzzer.js';
import { WORDS_PER_TRANSLATION, WORDS_PER_WRITE } from './limits.js';
import type { Rng } from './rng.js';

/** An answer on its way to the bridge's cache. */
interface Fill {
  readonly rid: number;
  readonly pasid: number;
  readonly space: number;
  readonly sub: number;
  readonly epoch: number;
  readonly spans: readonly number[];
}

/** A message on its way to the bridge: an INVALIDATE, or TABLES. */
type Message =
  | {
      readonly id: number;
      readonly epoch: number;
      readonly scope: Scope;
      readonly structures: boolean;
      readonly devices: readonly number[];
    }
  | { readonly rid: number; readonly pasid: number; readonly tables: WalkTables };

/**
 * A model with the session's bookkeeping of invalidations, a bridge's cache in front of it, and a bridge that walks
 * tables itself where it is told of them. An invalidation
 * reaches that cache late, at a random moment before it is acknowledged, and so do answers: a completion that
 * is published too early, or an invalidation that was left out, shows as a stale translation.
 */
export class FuzzMachine extends LocalMachine {
  readonly bridge = new Iotlb();
  readonly counting: CountingMemory;
  mostPerWrite = 0;
  mostPerTranslation = 0;
  /** Looks at the spans of every answer before they are kept. */
  onSpans: (rid: number, pasid: number, spans: readonly number[]) => void = () => {};
  /** Devices at work while the driver waits. */
  onIdle: () => void = () => {};
  readonly #rng: Rng;
  readonly #walks = new PeerWalks();
  readonly #devices = new DeviceTable();
  readonly #invalidations = new Invalidations(this.#devices, this.#walks);
  /** What devices keep that are told of invalidations by name, as vhost does, by their handles. */
  readonly #listeners = new Map<number, { readonly rid: number; readonly kept: Iotlb }>();
  readonly #walker: Walker;
  /** Walks of the bridge that found what it needed. */
  walksFound = 0;
  /** Address of the request that the model answers. */
  #asked = 0n;
  /** The newest epoch that the bridge knows. */
  #newest = 0;
  /** Messages that the bridge has not taken yet, oldest first. */
  readonly #waiting: Message[] = [];
  readonly #late: Fill[] = [];

  constructor(rng: Rng, memory: GuestMemory, options: Readonly<Record<string, string>>, model = 'vtd') {
    const counting = new CountingMemory(memory);
    super(counting, options, model);
    this.counting = counting;
    this.#rng = rng;
    this.#walker = new Walker(memory);
    this.outputs.holdAcks = true;
    this.outputs.invalidate = (scope) => {
      const told = heard(scope);
      if (told !== undefined) this.#invalidations.invalidate(told, this.model);
    };
    this.outputs.pendingAcks = () => this.#invalidations.pending;
    this.#invalidations.open({
      put: (_type, _flags, id, _codec, message) => {
        const { lo, hi, epoch, structures, devices, ...rest } = message as unknown as Invalidate;
        const base = (BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0);
        this.#waiting.push({ id, epoch, structures, devices: Array.from(devices), scope: { ...rest, base } });
      },
    });
    this.#walks.open({
      put: (type, _flags, _id, _codec, message) => {
        must(type === MESSAGE.TABLES, () => `a message of type ${type}`);
        const { rid, pasid } = message as unknown as Tables;
        const hi = Number(this.#asked >> 32n) | 0;
        const tables = this.#walker.describe(this.model, rid, pasid - 1, hi);
        this.#waiting.push({ rid, pasid: pasid - 1, tables });
      },
    });
  }

  override writeRegister(offset: number, size: number, value: bigint): void {
    this.#bounded('write', WORDS_PER_WRITE, () => super.writeRegister(offset, size, value));
  }

  /** Serves every invalidation that waits, and what follows from that. */
  override ack(): boolean {
    let some = false;
    for (let round = 0; this.#waiting.length > 0; round++) {
      must(round < 1_000_000, () => 'invalidations never come to an end');
      this.#ackOne();
      some = true;
    }
    return some;
  }

  /** Time goes by: some invalidation, or some answer, arrives. */
  override idle(): boolean {
    this.onIdle();
    if (this.#rng.chance(0.5)) this.tellDevices();
    const late = this.#late.length > 0 && this.#rng.chance(0.3) ? this.#late.shift() : undefined;
    if (late !== undefined) this.#fill(late);
    if (this.#waiting.length === 0 || this.#rng.chance(0.5)) return false;
    this.#ackOne();
    return true;
  }

  /** A device keeps what it is answered until an INVALIDATE names it: it knows no tags, only addresses. */
  listen(rid: number): void {
    const device = this.#listeners.size + 1;
    this.#devices.add(device, rid, `listener ${device}`);
    this.#devices.notify(device, NOTIFY.UNMAP);
    this.#listeners.set(device, { rid, kept: new Iotlb() });
  }

  override translate(rid: number, pasid: number, access: number, address: bigint): Translation | undefined {
    const kept = this.#keptBy(rid);
    const own = kept?.lookup(rid, pasid, access, address);
    if (own !== undefined) return own;
    const found = this.#translate(rid, pasid, access, address);
    if (found !== undefined && kept !== undefined) {
      const { gpa, permissions } = found;
      const page = [Number(address & 0xffff_f000n), Number(address >> 32n), (gpa - (gpa % 4096)) % 2 ** 32];
      kept.fill(rid, pasid, 0, 0, 0, [...page, Math.floor(gpa / 2 ** 32), 12, permissions]);
    }
    return found;
  }

  #keptBy(rid: number): Iotlb | undefined {
    if (!this.model.answersMayBeKept) return undefined;
    for (const listener of this.#listeners.values()) if (listener.rid === rid) return listener.kept;
    return undefined;
  }

  #translate(rid: number, pasid: number, access: number, address: bigint): Translation | undefined {
    const hit = this.bridge.lookup(rid, pasid, access, address);
    if (hit !== undefined) return hit;
    const walked = this.#walker.find(rid, pasid, access, address);
    if (walked !== undefined) {
      this.walksFound++;
      this.onSpans(rid, pasid, walked.spans);
      this.#fillSometime({ rid, pasid, epoch: this.#newest, ...walked });
      return throughSpan(walked.spans, 0, address);
    }
    this.#asked = address;
    this.#bounded('translation', WORDS_PER_TRANSLATION, () => this.ask(rid, pasid, access, address));
    const { status, count, space, sub } = this.result;
    must(count <= 64 && (status === TRANSLATE_STATUS.OK) === count > 0, () => 'status and count disagree');
    if (status !== TRANSLATE_STATUS.OK) return undefined;
    this.#invalidations.handOut(rid, space >>> 0, sub >>> 0);
    const spans = Array.from(this.result.spans.subarray(0, count * SPAN_WORDS));
    this.onSpans(rid, pasid, spans);
    const { epoch } = this.#invalidations;
    const told = this.#walks.answered(rid, pasid, Number(address >> 32n) | 0, this.model);
    if (told !== undefined) this.#invalidations.handOut(rid, told.space >>> 0, told.sub >>> 0);
    this.#fillSometime({ rid, pasid, space: space >>> 0, sub: sub >>> 0, epoch, spans });
    return throughSpan(spans, 0, address);
  }

  #fillSometime(fill: Fill): void {
    if (this.#rng.chance(0.2)) this.#late.push(fill);
    else this.#fill(fill);
  }

  #fill({ rid, pasid, space, sub, epoch, spans }: Fill): void {
    this.bridge.fill(rid, pasid, space, sub, epoch, spans);
  }

  #ackOne(): void {
    const next = this.#waiting.shift();
    if (next === undefined) return;
    if ('tables' in next) {
      this.#walker.take(next.rid, next.pasid, next.tables);
      return;
    }
    if (next.structures) this.#walker.dropAll();
    this.#newest = next.epoch;
    this.bridge.invalidate(next.scope, next.epoch);
    const all = { ...next.scope, space: ANY, sub: ANY, rid: ANY, pasid: ANY };
    for (const device of next.devices) this.#listeners.get(device)?.kept.invalidate(all, 0);
    if (this.#invalidations.acknowledge(next.id)) {
      this.#bounded('acknowledgement', WORDS_PER_WRITE, () => this.model.acknowledged());
    }
  }

  #bounded(what: 'write' | 'translation' | 'acknowledgement', limit: number, work: () => void): void {
    this.counting.taken();
    work();
    const words = this.counting.taken();
    if (what === 'translation') this.mostPerTranslation = Math.max(this.mostPerTranslation, words);
    else this.mostPerWrite = Math.max(this.mostPerWrite, words);
    must(words <= limit, () => `one ${what} touched ${words} words of memory`);
  }
}
