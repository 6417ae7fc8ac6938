/**
 * One virtual machine: what its bridge asks, in order, of one model (ARCHITECTURE.md, Ordering).
 *
 * All that ever reaches the engine enters through {@link Session.input}, and all that leaves it
 * goes through {@link SessionPorts}: no clock, no waiting, no randomness in here. What cannot
 * finish now (a completion that waits for the bridge) is state of the model, which goes on when the
 * acknowledgement comes in.
 *
 * The rules of ARCHITECTURE.md, Ordering, and where they are kept:
 *   1 frames are handled in the order of their channel, to the end, one at a time;
 *   2 a model publishes a completion when `pendingAcks()` is 0, and `acknowledged()` tells it so
 *     (completions.ts);
 *   3 every answer carries `Invalidations.epoch`, which an INVALIDATE advances before the model
 *     goes on;
 *   4 RESET and the end of the connection drop everything;
 *   5 nothing here waits, so translations are answered whatever is pending;
 *   6 what the peer has carried out itself is taken before anything that comes in.
 */
import { CodedError } from '../base/errors.js';
import type { Iommu } from '../device/iommu.js';
import { CODEC, isMessage } from '../wire/codec.js';
import { type Frame, MESSAGE, messageName } from '../wire/frame.js';
import { AssignedDevices } from './assigned.js';
import { answerHandler } from './backend.js';
import { Completions } from './completions.js';
import { type Agreement, Connection } from './connection.js';
import { expectDescriptors } from './descriptor-count.js';
import { DeviceTlbs } from './device-tlb-requests.js';
import { DeviceTable } from './devices.js';
import { type FrontTable, frontTable } from './front.js';
import { HostAnswers } from './host-answers.js';
import { InterruptRemapping } from './interrupt-requests.js';
import { MemoryTable } from './memory-table.js';
import { ModelOutputs } from './model-outputs.js';
import { PeerCommands } from './peer-commands.js';
import { Invalidations } from './peer-invalidations.js';
import { PeerWalks } from './peer-walks.js';
import type { SessionPorts, SessionSettings, SharedPage } from './ports.js';
import { RegisterWindow } from './register-window.js';
import { Requests } from './requests.js';
import { Shadowing } from './shadowing.js';

/** The two channels of a session. */
export const CHANNEL = { FRONT: 0, BACKEND: 1 } as const;
export type ChannelName = (typeof CHANNEL)[keyof typeof CHANNEL];

export class Session {
  readonly connection: Connection;
  readonly devices = new DeviceTable();
  readonly walks = new PeerWalks();
  readonly peerCommands = new PeerCommands();
  readonly invalidations = new Invalidations(this.devices, this.walks);
  readonly deviceTlbs = new DeviceTlbs();
  readonly completions: Completions;
  readonly interrupts: InterruptRemapping;
  readonly shadowing: Shadowing;
  readonly assigned: AssignedDevices;
  readonly outputs: ModelOutputs;
  readonly answers: HostAnswers;
  readonly memory: MemoryTable;
  readonly registers: RegisterWindow;
  readonly requests: Requests;
  /** Frames handled, by channel. */
  readonly frames = new Uint32Array(2);
  readonly #front: FrontTable;

  constructor(
    readonly ports: SessionPorts,
    readonly settings: SessionSettings,
  ) {
    const connection = new Connection(ports.front);
    const { devices, walks, peerCommands, invalidations, deviceTlbs } = this;
    const shadowing = new Shadowing(ports, devices);
    const completions = new Completions(deviceTlbs, () => shadowing.completing());
    const changed = (): void => completions.mark();
    const model = (): Iommu | undefined => connection.model;
    const assigned = new AssignedDevices(ports, settings, devices, shadowing.shadow, model, changed);
    shadowing.assigned = assigned;
    const interrupts = new InterruptRemapping(connection, changed);
    for (const work of [invalidations, interrupts, assigned, shadowing]) completions.register(work);
    this.connection = connection;
    this.shadowing = shadowing;
    this.completions = completions;
    this.interrupts = interrupts;
    this.assigned = assigned;
    this.outputs = new ModelOutputs(
      connection,
      completions,
      invalidations,
      interrupts,
      peerCommands,
      deviceTlbs,
      assigned,
      (event) => ports.event(event),
    );
    this.answers = new HostAnswers(connection, completions, assigned, shadowing, invalidations, interrupts);
    this.memory = new MemoryTable(connection, ports, shadowing.shadow, assigned, this.answers);
    this.registers = new RegisterWindow(connection, completions, shadowing);
    this.requests = new Requests(connection, invalidations, walks, peerCommands, this.outputs);
    this.#front = frontTable(this);
  }

  get agreement(): Agreement | undefined {
    return this.connection.agreement;
  }

  get model(): Iommu | undefined {
    return this.connection.model;
  }

  get page(): SharedPage | undefined {
    return this.connection.page;
  }

  /**
   * The one way in: a frame of a channel, its body in `bytes`. Throws a {@link CodedError} of
   * severity `connection` when the peer broke the protocol; the session is then over.
   */
  input(channel: ChannelName, frame: Frame, bytes: Uint8Array): void {
    this.frames[channel]++;
    this.takeRun();
    if (channel === CHANNEL.FRONT) this.#fromFront(frame, bytes);
    else {
      this.completions.mark();
      answerHandler(frame)(this, frame, bytes);
    }
    if (this.completions.marked) this.#settle();
  }

  /** Does what is due after a change. Nothing of it is seen outside before all of it is done. */
  #settle(): void {
    const { completions } = this;
    const { model } = this.connection;
    if (model === undefined) return;
    completions.settle(model);
    // Before an answer: that of a write may be seen at once.
    this.#publishQueue();
    this.registers.publishHandled();
    completions.answer();
  }

  /** Takes what the peer has carried out by itself. Throws `BAD_ARGUMENT`. */
  takeRun(): void {
    const { model } = this.connection;
    if (model !== undefined && this.peerCommands.take(model)) this.completions.mark();
  }

  /**
   * One more observer wants completions checked, or one less. While there is one, the peer
   * completes nothing itself.
   */
  watchCompletions(on: boolean): void {
    this.shadowing.watch(on);
    this.#publishQueue();
  }

  /**
   * Opens the peer's queue where only the peer's cache keeps translations and no completion would
   * wait; closes it otherwise.
   */
  #publishQueue(): void {
    const { model } = this.connection;
    if (model === undefined) return;
    const unshared =
      this.devices.notifiedRids.length === 0 && this.assigned.idle && this.shadowing.shadow.idle;
    const alone = unshared && !this.shadowing.watched && this.completions.pending === 0;
    this.peerCommands.publish(model, alone);
  }

  /**
   * Ends the session: the guest's memory is given up. Channels and descriptors are the caller's.
   */
  end(): void {
    this.connection.end();
    try {
      this.shadowing.shadow.end();
    } finally {
      this.ports.memory.clear();
    }
  }

  #fromFront(frame: Frame, bytes: Uint8Array): void {
    const { type } = frame;
    if (!isMessage(type)) throw new CodedError('UNKNOWN_TYPE', `message type ${type}`);
    if (frame.reply) {
      // The only batch that is answered here is one that went with an answer.
      if (type === MESSAGE.HOST_BATCH && this.shadowing.writeReply.batch === frame.id && frame.id !== 0) {
        this.completions.mark();
        this.#hostAnswered(frame, bytes);
        return;
      }
      throw new CodedError('UNEXPECTED_REPLY', `a reply to ${messageName(type)} on the front channel`);
    }
    const entry = this.#front[type];
    if (entry === undefined)
      throw new CodedError('OUT_OF_ORDER', `${messageName(type)} on the front channel`);
    const { agreement } = this.connection;
    if ((agreement === undefined) !== (type === MESSAGE.HELLO)) {
      const when = agreement === undefined ? 'before HELLO' : 'a second time';
      throw new CodedError('OUT_OF_ORDER', `${messageName(type)} ${when}`);
    }
    if (entry.feature !== 0 && (this.connection.features & entry.feature) === 0) {
      throw new CodedError('NOT_NEGOTIATED', `${messageName(type)} needs a feature that is not in force`);
    }
    if (!entry.descriptors) expectDescriptors(frame, 0);
    if (entry.changes) this.completions.mark();
    entry.handle(frame, bytes);
  }

  #hostAnswered(frame: Frame, bytes: Uint8Array): void {
    expectDescriptors(frame, 0);
    const { failures } = CODEC.HostBatchReply.decode(bytes, frame.start, frame.end);
    this.shadowing.answered(frame.id, failures);
  }
}
