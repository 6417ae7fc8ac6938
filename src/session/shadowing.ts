/**
 * The session's part of shadowing: sends batches on the backend channel and takes their answers.
 * Devices come with NOTIFIER (MAP events), ranges with HOST_LISTEN.
 */
import { CodedError } from '../base/errors.js';
import { PAGE_OFFSET, pageOf } from '../base/page.js';
import { join } from '../base/u64.js';
import type { InvalidateScope, Iommu } from '../device/iommu.js';
import type { ShadowEvent } from '../events/viommu-events.js';
import { Audit, type AuditAnswer } from '../shadow/audit/audit.js';
import { SmmuCommands } from '../shadow/audit/smmuv3.js';
import { VtdCommands } from '../shadow/audit/vtd.js';
import type { Batch } from '../shadow/outbox.js';
import { LAST_PAGE } from '../shadow/pages.js';
import { Shadow } from '../shadow/shadow.js';
import { CODEC } from '../wire/codec.js';
import { FLAG, MESSAGE, NOTIFY } from '../wire/frame.js';
import type { HostListen, TableWrite } from '../wire/messages.js';
import type { PendingWork } from './completions.js';
import type { DeviceTable } from './devices.js';
import type { Outlet, SessionPorts } from './ports.js';
import { WriteReply } from './write-reply.js';

/** Bytes of one store. */
const MOST_STORED = 4096;
const MOST_HI = 1 << 20;

export class Shadowing implements PendingWork {
  readonly #ports: Pick<SessionPorts, 'memory' | 'event' | 'log'>;
  readonly shadow: Shadow;
  readonly writeReply = new WriteReply();
  /** Devices that are served by host objects, and their batches. */
  assigned: { takes(batch: Batch): boolean; has(device: number): boolean } | undefined;
  /** HOST_BATCHes and TRACKs sent, modulo 2^32. */
  sent = 0;
  readonly #devices: DeviceTable;
  readonly #message = CODEC.HostBatch.create();
  readonly #track = CODEC.Track.create();
  #backend: Outlet | undefined;
  #audit: Audit | undefined;
  #watchers = 0;
  readonly #completing = (): void => this.#audit?.completing();
  /** Devices of which the log says that something is refused. */
  readonly #refused = new Set<number>();
  /** Devices of which it says that their tables change in silence. */
  readonly #silent = new Set<number>();

  constructor(ports: Pick<SessionPorts, 'memory' | 'event' | 'log'>, devices: DeviceTable) {
    this.#ports = ports;
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
    const whole = (message.firstLo & PAGE_OFFSET) === 0 && (message.lastLo & PAGE_OFFSET) === PAGE_OFFSET;
    if (!whole || first > last) throw new CodedError('BAD_ARGUMENT', `pages ${first} to ${last}`);
    this.shadow.listen(message.device, first, Math.min(last, LAST_PAGE));
  }

  /**
   * The guest has stored to a page that is tracked, or was until a moment ago. Throws
   * `BAD_ARGUMENT`.
   */
  stored({ lo, hi, size }: TableWrite): void {
    if (size < 1 || size > MOST_STORED) throw new CodedError('BAD_ARGUMENT', `a store of ${size} bytes`);
    if (hi >= MOST_HI) throw new CodedError('BAD_ARGUMENT', 'a store above 2^52');
    this.shadow.stored(join(lo, hi), size);
    if (this.#audit !== undefined) this.#audit.stored();
  }

  get pending(): number {
    return this.shadow.pending;
  }

  invalidated(scope: InvalidateScope, model: Iommu): void {
    if (!this.shadow.idle) this.shadow.markStale(scope, model);
  }

  advance(): void {
    if (this.shadow.pending === 0) return;
    this.shadow.work();
    this.#send();
  }

  /** An empty batch is answered when the host has seen it. */
  pause(): boolean {
    if (this.shadow.idle) return false;
    this.shadow.pause();
    return true;
  }

  /** The host has done a batch. Throws as {@link Shadow.answered}. */
  answered(id: number, failures: ArrayLike<number>): void {
    this.writeReply.carriedOut(id);
    this.shadow.answered(id, failures);
  }

  /** The model is about to hear that nothing is pending. */
  completing(): void {
    if (this.#audit !== undefined) this.#looking(this.#completing);
  }

  /**
   * Checks of completions are wanted by one more, or one less. They begin with the next register
   * write.
   */
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
    if (this.#watchers > 0) this.#ask(model, registers, offset, size, lo, hi);
  }

  /** Apart, since the closure holds the parameters of every write otherwise. */
  #ask(model: Iommu, registers: Uint32Array, offset: number, size: number, lo: number, hi: number): void {
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
    const { memory } = this.#ports;
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
      this.#ports.log('error', 'a check of completions failed, and begins anew', { error: text });
    }
  }

  /** Observers hear everything, the log once until it is over. */
  #tell(event: ShadowEvent): void {
    const { device, rid } = event;
    const name = this.#devices.find(device)?.name ?? '';
    this.#ports.event(event);
    if (event.kind === 'hostRefused' && !this.#refused.has(device)) {
      this.#refused.add(device);
      const what = event.unmap ? 'unmap' : 'map';
      const fields = { device: name, rid, error: event.error, count: event.count, bytes: event.bytes };
      this.#ports.log('warn', `the host refused to ${what}: DMA there fails`, fields);
    } else if (event.kind === 'hostAccepted') {
      this.#refused.delete(device);
    } else if (event.kind === 'shadowLimit') {
      this.#ports.log('warn', `more ${event.what} than are shadowed: DMA there fails`, { device: name, rid });
    } else if (event.kind === 'shadowSilent' && !this.#silent.has(device)) {
      this.#silent.add(device);
      const what =
        'the guest has first-stage tables for a device that is shadowed, and does not say what comes to them';
      this.#ports.log('warn', `${what}: start the machine with first-stage=off`, { device: name, rid });
    }
  }

  #send(): void {
    const { shadow, writeReply } = this;
    // What goes with an answer is carried out at once. What follows it must not overtake it on the
    // other channel.
    if (writeReply.batch !== 0) return;
    const backend = this.#backend;
    for (let track = shadow.takeTrack(); track !== undefined; track = shadow.takeTrack()) {
      this.#track.pages = track.words;
      this.sent = (this.sent + 1) >>> 0;
      backend?.put(MESSAGE.TRACK, FLAG.NEED_REPLY, track.id, CODEC.Track, this.#track);
    }
    const message = this.#message;
    let first = writeReply.takesBatch && shadow.trackPending === 0 && shadow.sent === 0;
    for (let batch = shadow.take(); batch !== undefined; batch = shadow.take()) {
      if (this.assigned?.takes(batch) === true || backend === undefined) continue;
      if (first) {
        writeReply.carry(batch);
        return;
      }
      first = false;
      message.device = batch.space.device;
      message.ops = batch.words;
      this.sent = (this.sent + 1) >>> 0;
      backend.put(MESSAGE.HOST_BATCH, FLAG.NEED_REPLY, batch.id, CODEC.HostBatch, message);
    }
  }
}
