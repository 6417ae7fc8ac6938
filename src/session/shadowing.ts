/**
 * The session's part of shadowing: batches on the backend channel, and completions that wait for their answers. Devices
 * come with NOTIFIER (MAP events), ranges with HOST_LISTEN.
 */
import { CodedError } from '../base/errors.js';
import { join } from '../base/u64.js';
import type { InvalidateScope, Iommu } from '../device/iommu.js';
import type { ShadowEvent } from '../events/events.js';
import { Audit, type AuditAnswer } from '../shadow/audit/audit.js';
import { SmmuCommands } from '../shadow/audit/smmuv3.js';
import { VtdCommands } from '../shadow/audit/vtd.js';
import type { Batch } from '../shadow/outbox.js';
import { LAST_PAGE, pageOf } from '../shadow/pages.js';
import { Shadow } from '../shadow/shadow.js';
import { CODEC } from '../wire/codec.js';
import { FLAG, MESSAGE, NOTIFY } from '../wire/frame.js';
import type { HostListen, TableWrite } from '../wire/messages.js';
import type { DeviceTable } from './devices.js';
import type { Outlet, SessionPorts } from './ports.js';

/** Completions that one input may bring before an answer of the host is waited for. */
const MOST_ROUNDS = 64;
const PAGE_MASK = 0xfff;
/** Bytes of one store. */
const MOST_STORED = 4096;
const MOST_HI = 1 << 20;
const NO_OPERATIONS = new Uint32Array(0);

export class Shadowing {
  readonly shadow: Shadow;
  /** Devices that are served by host objects, and their batches. */
  assigned: { takes(batch: Batch): boolean; has(device: number): boolean } | undefined;
  /** HOST_BATCHes and TRACKs sent, modulo 2^32. */
  sent = 0;
  readonly #devices: DeviceTable;
  readonly #message = CODEC.HostBatch.create();
  readonly #track = CODEC.Track.create();
  readonly #written = CODEC.RegWriteReply.create();
  /** A REG_WRITE is to be answered when what it leads to is known. */
  #writing = false;
  #writeId = 0;
  /** The batch that went with such an answer and is not answered itself; 0: none. */
  #handed = 0;
  #backend: Outlet | undefined;
  /** The model waits to hear that nothing is pending. */
  #owed = false;
  #audit: Audit | undefined;
  #watchers = 0;
  readonly #completing = (): void => this.#audit?.completing();

  /** Devices of which the log says that something is refused. */
  readonly #refused = new Set<number>();
  /** Devices of which it says that their tables change in silence. */
  readonly #silent = new Set<number>();

  constructor(
    private readonly ports: Pick<SessionPorts, 'memory' | 'event' | 'log'>,
    devices: DeviceTable,
  ) {
    this.shadow = new Shadow(ports.memory, (event) => this.#tell(event));
    this.#devices = devices;
  }

  /**
   * @param backend where batches go; undefined: the peer does not know them
   * @param tracking the guest does not say when it maps something: stores to its tables are trapped
   */
  open(backend: Outlet | undefined, tracking: boolean): void {
    this.#backend = backend;
    if (tracking) this.shadow.track();
    this.#devices.shadowing = backend !== undefined;
  }

  /** A device's wish for MAP events may have changed. */
  notified(device: number, model: Iommu): void {
    if (this.#backend === undefined) return;
    const known = this.#devices.find(device);
    const elsewhere = this.assigned?.has(device) === true;
    const wanted = known !== undefined && !elsewhere && (known.flags & NOTIFY.MAP) !== 0;
    const space = this.shadow.deviceSpace(device);
    if (known === undefined || !wanted) this.shadow.detach(device);
    else if (space === undefined) this.shadow.attach(device, known.rid, model);
    else this.shadow.renumber(device, known.rid, model);
  }

  /** Throws `OUT_OF_ORDER` for a device that is not shadowed, `BAD_ARGUMENT` for half pages. */
  listen(message: HostListen): void {
    if (this.assigned?.has(message.device) === true) return;
    if (this.shadow.deviceSpace(message.device) === undefined) {
      throw new CodedError('OUT_OF_ORDER', `device ${message.device} does not want MAP events`);
    }
    const first = pageOf(message.firstLo, message.firstHi);
    const last = pageOf(message.lastLo, message.lastHi);
    const whole = (message.firstLo & PAGE_MASK) === 0 && (message.lastLo & PAGE_MASK) === PAGE_MASK;
    if (!whole || first > last) throw new CodedError('BAD_ARGUMENT', `pages ${first} to ${last}`);
    this.shadow.listen(message.device, first, Math.min(last, LAST_PAGE));
  }

  /** The guest has stored to a page that is tracked, or was until a moment ago. Throws `BAD_ARGUMENT`. */
  stored({ lo, hi, size }: TableWrite): void {
    if (size < 1 || size > MOST_STORED) throw new CodedError('BAD_ARGUMENT', `a store of ${size} bytes`);
    if (hi >= MOST_HI) throw new CodedError('BAD_ARGUMENT', 'a store above 2^52');
    this.shadow.stored(join(lo, hi), size);
    if (this.#audit !== undefined) this.#audit.stored();
  }

  /** The guest invalidates. */
  touch(scope: InvalidateScope, model: Iommu): void {
    if (this.shadow.idle) return;
    this.#owed = true;
    this.shadow.touch(scope, model);
  }

  /** The model is to hear of it when nothing is pending. */
  owe(): void {
    this.#owed = true;
  }

  /** The batch that was handed over with an answer and is being carried out: its own answer comes soon. 0: none. */
  get handed(): number {
    return this.#handed;
  }

  /** A REG_WRITE, which {@link answerWrite} answers: until then a batch can go with the answer. */
  answersWrite(id: number): void {
    this.#writing = true;
    this.#writeId = id;
    this.#written.batch = 0;
    this.#written.device = 0;
    this.#written.ops = NO_OPERATIONS;
  }

  /** Answers the REG_WRITE that was handled, if one is waited for. */
  answerWrite(front: Outlet): void {
    if (!this.#writing) return;
    this.#writing = false;
    front.put(MESSAGE.REG_WRITE, FLAG.REPLY, this.#writeId, CODEC.RegWriteReply, this.#written);
  }

  /** The host has done a batch. Throws as {@link Shadow.answered}. */
  answered(id: number, failures: ArrayLike<number>): void {
    if (id === this.#handed) this.#handed = 0;
    this.shadow.answered(id, failures);
    this.#owed = true;
  }

  /** Goes on as far as that is possible now. `others`: what else is unanswered. */
  goOn(model: Iommu, others: () => number): void {
    const { shadow } = this;
    for (let round = 0; ; round++) {
      shadow.work();
      this.#send();
      if (!this.#owed || others() > 0 || shadow.pending > 0) return;
      this.#owed = false;
      if (round === MOST_ROUNDS && !shadow.idle) {
        this.#owed = true;
        shadow.pause();
        this.#send();
        return;
      }
      if (this.#audit !== undefined) this.#looking(this.#completing);
      model.acknowledged();
    }
  }

  /** Checks of completions are wanted by one more, or one less. They begin with the next register write. */
  watch(on: boolean): void {
    this.#watchers += on ? 1 : -1;
    if (this.#watchers === 0) this.#audit = undefined;
  }

  /** Completions are being checked. */
  get watched(): boolean {
    return this.#watchers > 0;
  }

  /** The guest is about to write a register. `registers`: the unit's, as the guest sees them. */
  asking(model: Iommu, registers: Uint32Array, offset: number, size: number, lo: number, hi: number): void {
    if (this.#watchers === 0) return;
    this.#looking(() => {
      this.#audit ??= this.#newAudit(model, registers);
      this.#audit.asking(offset, size, lo, hi);
    });
  }

  /** What the checks have found since they began. */
  checked(from: number): AuditAnswer {
    return this.#audit?.answer(from) ?? { completions: 0, differences: [], more: false };
  }

  #newAudit(model: Iommu, registers: Uint32Array): Audit {
    const { memory } = this.ports;
    const Commands = model.model === 'vtd' ? VtdCommands : SmmuCommands;
    return new Audit(this.shadow, model, memory, new Commands(registers, memory));
  }

  /** An observer that fails ends no session. */
  #looking(look: () => void): void {
    try {
      look();
    } catch (error) {
      this.#audit = undefined;
      const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
      this.ports.log('error', 'a check of completions failed, and begins anew', { error: text });
    }
  }

  /** Observers hear everything, the log once until it is over. */
  #tell(event: ShadowEvent): void {
    const { device, rid } = event;
    const name = this.#devices.find(device)?.name ?? '';
    this.ports.event(event);
    if (event.kind === 'hostRefused' && !this.#refused.has(device)) {
      this.#refused.add(device);
      const what = event.unmap ? 'unmap' : 'map';
      const fields = { device: name, rid, error: event.error, count: event.count, bytes: event.bytes };
      this.ports.log('warn', `the host refused to ${what}: DMA there fails`, fields);
    } else if (event.kind === 'hostAccepted') {
      this.#refused.delete(device);
    } else if (event.kind === 'shadowLimit') {
      this.ports.log('warn', `more ${event.what} than are shadowed: DMA there fails`, { device: name, rid });
    } else if (event.kind === 'shadowSilent' && !this.#silent.has(device)) {
      this.#silent.add(device);
      const what =
        'the guest has first-stage tables for a device that is shadowed, and does not say what comes to them';
      this.ports.log('warn', `${what}: start the machine with first-stage=off`, { device: name, rid });
    }
  }

  #send(): void {
    // What is handed over is carried out at once, and what follows it must not overtake it on the other channel.
    if (this.#handed !== 0) return;
    const backend = this.#backend;
    for (let track = this.shadow.takeTrack(); track !== undefined; track = this.shadow.takeTrack()) {
      this.#track.pages = track.words;
      this.sent = (this.sent + 1) >>> 0;
      backend?.put(MESSAGE.TRACK, FLAG.NEED_REPLY, track.id, CODEC.Track, this.#track);
    }
    const message = this.#message;
    const { shadow } = this;
    let first = this.#writing && shadow.trackPending === 0 && shadow.sent === 0;
    for (let batch = shadow.take(); batch !== undefined; batch = shadow.take()) {
      if (this.assigned?.takes(batch) === true || backend === undefined) continue;
      if (first) {
        this.#handOver(batch);
        return;
      }
      first = false;
      message.device = batch.space.device;
      message.ops = batch.words;
      this.sent = (this.sent + 1) >>> 0;
      backend.put(MESSAGE.HOST_BATCH, FLAG.NEED_REPLY, batch.id, CODEC.HostBatch, message);
    }
  }

  #handOver(batch: Batch): void {
    const reply = this.#written;
    reply.batch = batch.id;
    reply.device = batch.space.device;
    reply.ops = batch.words;
    this.#handed = batch.id;
  }
}
