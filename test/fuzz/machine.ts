import { ANY } from '../../src/base/ids.js';
import { SPAN_WORDS, TRANSLATE_STATUS, type TranslateResult } from '../../src/device/iommu.js';
import { modelRegisterBytes } from '../../src/device/models.js';
import type { WalkTables } from '../../src/device/tables.js';
import type { GuestMemory } from '../../src/memory/guest-memory.js';
import { Completions } from '../../src/session/completions.js';
import { DeviceTable } from '../../src/session/devices.js';
import { PeerCommands } from '../../src/session/peer-commands.js';
import { Invalidations } from '../../src/session/peer-invalidations.js';
import { PeerWalks } from '../../src/session/peer-walks.js';
import type { SharedPage } from '../../src/session/ports.js';
import type { BusPageRequest, Translation } from '../../src/sim/machine.js';
import { type Scope, SimIotlb, throughSpan } from '../../src/sim/sim-iotlb.js';
import { SimPeerQueue } from '../../src/sim/sim-peer-queue.js';
import { CONTROL, MESSAGE, NOTIFY, SHARED } from '../../src/wire/frame.js';
import type { Invalidate, PeerWalk, Queue } from '../../src/wire/messages.js';
import { LocalMachine } from '../support/local-machine.js';
import { Walker } from '../support/peer-walks.js';
import { heard, peerSpoilt } from '../support/spoil.js';
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
  /** The cache's generation when it was asked for, or its walk began. */
  readonly since: number;
  readonly spans: readonly number[];
}

/** A message on its way to the bridge: an INVALIDATE, PEER_WALK, or QUEUE. */
type Message =
  | {
      readonly id: number;
      readonly epoch: number;
      readonly scope: Scope;
      readonly structures: boolean;
      readonly devices: readonly number[];
    }
  | { readonly rid: number; readonly pasid: number; readonly tables: WalkTables }
  | { readonly queue: Queue };

/**
 * A model with the session's bookkeeping of invalidations, a bridge's cache in front of it, and a
 * bridge that walks tables itself where it is told of them. An invalidation reaches that cache
 * late, at a random moment before it is acknowledged, and so do answers: a completion that is
 * published too early, or an invalidation that was left out, shows as a stale translation.
 *
 * Often that bridge carries out plain commands itself, in the store that rings their doorbell. The
 * model gets its copies late, but before anything else that comes in.
 */
export class FuzzMachine extends LocalMachine {
  readonly bridge = new SimIotlb();
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
  readonly #completions = new Completions({ deliver: () => false }, () => {});
  /** What devices keep that are told of invalidations by name, as vhost does, by their handles. */
  readonly #listeners = new Map<number, { readonly rid: number; readonly kept: SimIotlb }>();
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
  readonly #page: SharedPage & { readonly ring: Uint32Array };
  readonly #commands = new PeerCommands();
  /** Carries out what it may; undefined: everything is a write. */
  readonly peerQueue: SimPeerQueue | undefined;
  #writes = 0;

  /** @param carriesOut plain commands by itself, where it may */
  constructor(
    rng: Rng,
    memory: GuestMemory,
    options: Readonly<Record<string, string>>,
    model = 'vtd',
    carriesOut = rng.chance(0.7),
  ) {
    const counting = new CountingMemory(memory);
    const page = sharedPage(modelRegisterBytes(model));
    super(counting, options, model, undefined, page.registers);
    this.#page = page;
    this.counting = counting;
    this.#rng = rng;
    this.#walker = new Walker(memory);
    this.outputs.holdAcks = true;
    this.outputs.invalidate = (scope) => {
      const told = heard(scope);
      if (told === undefined) return;
      if (this.#commands.following) {
        if (this.#commands.exactly) this.#invalidations.carriedOut(told);
      } else this.#completions.record(told);
    };
    this.outputs.pendingAcks = () => this.#completions.pendingForModel();
    this.#completions.register(this.#invalidations);
    this.#invalidations.open({
      put: (_type, _flags, id, _codec, message) => {
        const { lo, hi, epoch, structures, devices, ...rest } = message as unknown as Invalidate;
        const base = (BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0);
        this.#waiting.push({ id, epoch, structures, devices: Array.from(devices), scope: { ...rest, base } });
      },
    });
    this.#walks.open({
      put: (type, _flags, _id, _codec, message) => {
        must(type === MESSAGE.PEER_WALK, () => `a message of type ${type}`);
        const { rid, pasid } = message as unknown as PeerWalk;
        const hi = Number(this.#asked >> 32n) | 0;
        const tables = this.#walker.describe(this.model, rid, pasid - 1, hi);
        this.#waiting.push({ rid, pasid: pasid - 1, tables });
      },
    });
    this.peerQueue = carriesOut ? this.#makePeer() : undefined;
  }

  #makePeer(): SimPeerQueue {
    this.#commands.open(
      {
        put: (type, _flags, _id, _codec, message) => {
          must(type === MESSAGE.QUEUE, () => `a message of type ${type}`);
          const { commands, ...rest } = message as unknown as Queue;
          const told = Uint32Array.from(commands);
          peerSpoilt().describes?.(told);
          this.#waiting.push({ queue: { ...rest, commands: told } });
        },
      },
      this.#page,
    );
    const { ram, bridge } = this;
    const file = this.#page.registers.buffer;
    return new SimPeerQueue({ file, ram, drop: (what) => bridge.drop(what), queueRan: () => {} });
  }

  override writeRegister(offset: number, size: number, value: bigint): void {
    const done = this.#listeners.size === 0 && this.peerQueue?.ring(offset, size, value, this.#writes);
    if (done === true) return;
    this.#writes++;
    this.#input('write', WORDS_PER_WRITE, () => super.writeRegister(offset, size, value));
    Atomics.store(this.#page.control, CONTROL.HANDLED, this.#writes);
  }

  override ask(...request: Parameters<LocalMachine['ask']>): TranslateResult {
    this.#input('translation', WORDS_PER_TRANSLATION, () => super.ask(...request));
    return this.result;
  }

  override requestPage(request: BusPageRequest): void {
    this.#takeRun();
    super.requestPage(request);
    this.#settle();
  }

  override tellDevices(): boolean {
    this.#takeRun();
    const some = super.tellDevices();
    this.#settle();
    return some;
  }

  /**
   * Something reaches the model: after what the peer has done by itself, and before it may do more.
   */
  #input(what: 'write' | 'translation' | 'acknowledgement', limit: number, work: () => void): void {
    if (what !== 'translation' || peerSpoilt().takesLate !== true) this.#takeRun();
    this.#bounded(what, limit, () => {
      work();
      this.#settle();
    });
  }

  #settle(): void {
    if (this.#completions.marked) this.#completions.settle(this.model);
    this.#publishQueue();
  }

  #takeRun(): void {
    if (this.peerQueue !== undefined) this.#commands.take(this.model);
  }

  #publishQueue(): void {
    if (this.peerQueue === undefined) return;
    const alone = this.#listeners.size === 0 && this.#invalidations.pending === 0;
    this.#commands.publish(this.model, alone);
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

  /**
   * A device keeps what it is answered until an INVALIDATE names it: it knows no tags, only
   * addresses.
   */
  listen(rid: number): void {
    const device = this.#listeners.size + 1;
    this.#devices.add(device, rid, `listener ${device}`);
    this.#devices.notify(device, NOTIFY.UNMAP);
    this.#listeners.set(device, { rid, kept: new SimIotlb() });
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

  #keptBy(rid: number): SimIotlb | undefined {
    if (!this.model.answersMayBeKept) return undefined;
    for (const listener of this.#listeners.values()) if (listener.rid === rid) return listener.kept;
    return undefined;
  }

  #translate(rid: number, pasid: number, access: number, address: bigint): Translation | undefined {
    const hit = this.bridge.lookup(rid, pasid, access, address);
    if (hit !== undefined) return hit;
    const since = this.bridge.generation;
    const walked = this.#walker.find(rid, pasid, access, address);
    if (walked !== undefined) {
      this.walksFound++;
      this.onSpans(rid, pasid, walked.spans);
      this.#fillSometime({ rid, pasid, epoch: this.#newest, since, ...walked });
      return throughSpan(walked.spans, 0, address);
    }
    this.#asked = address;
    this.ask(rid, pasid, access, address);
    const { status, count, space, sub } = this.result;
    must(count <= 64 && (status === TRANSLATE_STATUS.OK) === count > 0, () => 'status and count disagree');
    if (status !== TRANSLATE_STATUS.OK) return undefined;
    this.#invalidations.handOut(rid, space >>> 0, sub >>> 0);
    const spans = Array.from(this.result.spans.subarray(0, count * SPAN_WORDS));
    this.onSpans(rid, pasid, spans);
    const { epoch } = this.#invalidations;
    const told = this.#walks.answered(rid, pasid, Number(address >> 32n) | 0, this.model);
    if (told !== undefined) this.#invalidations.handOut(rid, told.space >>> 0, told.sub >>> 0);
    this.#fillSometime({ rid, pasid, space: space >>> 0, sub: sub >>> 0, epoch, since, spans });
    return throughSpan(spans, 0, address);
  }

  #fillSometime(fill: Fill): void {
    if (this.#rng.chance(0.2)) this.#late.push(fill);
    else this.#fill(fill);
  }

  #fill({ rid, pasid, space, sub, epoch, since, spans }: Fill): void {
    const forgets = peerSpoilt().forgetsGeneration === true;
    this.bridge.fill(rid, pasid, space, sub, epoch, spans, forgets ? this.bridge.generation : since);
  }

  #ackOne(): void {
    const next = this.#waiting.shift();
    if (next === undefined) return;
    if ('tables' in next) {
      this.#walker.take(next.rid, next.pasid, next.tables);
      return;
    }
    if ('queue' in next) {
      this.peerQueue?.take(next.queue);
      return;
    }
    if (next.structures) this.#walker.dropAll();
    this.#newest = next.epoch;
    this.bridge.invalidate(next.scope, next.epoch);
    const all = { ...next.scope, space: ANY, sub: ANY, rid: ANY, pasid: ANY };
    for (const device of next.devices) this.#listeners.get(device)?.kept.invalidate(all, 0);
    this.#completions.mark();
    this.#invalidations.acknowledge(next.id);
    if (this.#invalidations.pending === 0) this.#input('acknowledgement', WORDS_PER_WRITE, () => {});
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

/** A shared page file, in memory. */
function sharedPage(registerBytes: number): SharedPage & { readonly ring: Uint32Array } {
  const ringAt = SHARED.REGISTERS + registerBytes;
  const file = new ArrayBuffer(ringAt + SHARED.RING_BYTES);
  return {
    control: new Uint32Array(file, SHARED.CONTROL, SHARED.SAVED / 4),
    registers: new Uint32Array(file, SHARED.REGISTERS, registerBytes / 4),
    registerBytes: new Uint8Array(file, SHARED.REGISTERS, registerBytes),
    ring: new Uint32Array(file, ringAt, SHARED.RING_BYTES / 4),
  };
}
