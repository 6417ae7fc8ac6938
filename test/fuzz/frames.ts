import { CodedError, ERRORS } from '../../src/base/errors.js';
import { createModel, modelRegisterBytes } from '../../src/device/models.js';
import { ArrayMemory } from '../../src/memory/array.js';
import type { Outlet, SessionMemory, SessionPorts, SharedPage } from '../../src/session/ports.js';
import { CHANNEL, type ChannelName, Session } from '../../src/session/session.js';
import { HOST_OPERATION_WORDS } from '../../src/sim/container.js';
import { CODEC } from '../../src/wire/codec.js';
import {
  ALL_FEATURES,
  CONTROL_MAGIC,
  FEATURE,
  FLAG,
  Frame,
  MAX_FRAME_BYTES,
  MESSAGE,
  SHARED,
  VERSION,
} from '../../src/wire/frame.js';
import type { Queue, RegWriteReply } from '../../src/wire/messages.js';
import { Receiver } from '../../src/wire/receiver.js';
import { CountingMemory } from './counting-memory.js';
import { putTables, startFrames } from './first-tables.js';
import { firstFrames, frameBytes, hostFrames, plausibleFrame, replyDue, spoiled } from './frame-maker.js';
import { type Fuzzer, must, type Trace } from './fuzzer.js';
import { WORDS_PER_WRITE } from './limits.js';
import { MemoryPeer } from './memory-peer.js';
import { RingMaker } from './ring-maker.js';
import type { Rng } from './rng.js';

const STEPS = 150;
const RAM_BYTES = 2 ** 20;
/** Descriptors that are not open: closing them does nothing. */
const NO_FD = 0x4000_0000;

/** Guest memory that accepts any region and serves one. */
class FuzzMemory extends CountingMemory implements SessionMemory {
  readonly #regions = new Set<number>();
  addMapped({ region }: { readonly region: number }): boolean {
    this.#add(region);
    return true;
  }
  addRemote({ region }: { readonly region: number }): void {
    this.#add(region);
  }
  remove(region: number): void {
    if (!this.#regions.delete(region)) throw new CodedError('REGION_UNKNOWN', `region ${region}`);
  }
  clear(): void {
    this.#regions.clear();
  }
  #add(region: number): void {
    if (this.#regions.has(region)) throw new CodedError('REGION_EXISTS', `region ${region}`);
    if (region % 7 === 3) throw new CodedError('BAD_REGION', `region ${region}`);
    this.#regions.add(region);
  }
}

interface Sent {
  readonly type: number;
  readonly flags: number;
  readonly id: number;
  /** Where it is to be answered. */
  readonly channel: ChannelName;
  /** Operations of a batch. */
  readonly operations: number;
}

/**
 * Random frames against a session: right ones, wrong ones, and bytes that are none, in pieces of
 * any size. The session may end only with an error of the table that ends connections, and for an
 * answer only when that was wrong; until then every question has one answer, in order (some wait
 * for the host, which answers when it likes), and no frame costs more than its bound. In half of
 * the cases the peer keeps guest memory, and answers what it was asked before while it is asked for
 * it.
 */
export class FramesFuzzer implements Fuzzer {
  readonly name = 'frames';
  #frames = 0;
  #ended = 0;
  #early = 0;
  #runs = 0;
  readonly #reasons: Record<string, number> = {};

  facts(): Readonly<Record<string, number>> {
    return {
      frames: this.#frames,
      ended: this.#ended,
      early: this.#early,
      runs: this.#runs,
      ...this.#reasons,
    };
  }

  run(rng: Rng, trace: Trace): void {
    const talk = new Talk(rng, trace);
    try {
      if (rng.chance(0.95)) talk.hello();
      for (let step = 0; step < STEPS; step++) talk.step();
    } catch (error) {
      if (!(error instanceof CodedError)) throw error;
      const { severity } = ERRORS[error.reason];
      must(severity === 'connection', () => `ended by ${error.reason}, which does not end connections`);
      must(error.reason !== 'INTERNAL', () => `INTERNAL: ${error.message}`);
      const answered = error.reason === 'UNEXPECTED_REPLY' || error.reason === 'PEER_REFUSED';
      must(!answered || talk.strayed, () => `${error.message}, of a peer that was right`);
      this.#ended++;
      this.#reasons[error.reason] = (this.#reasons[error.reason] ?? 0) + 1;
    } finally {
      talk.end();
      this.#frames += talk.frames;
      this.#early += talk.early;
      this.#runs += talk.runs;
    }
  }
}

class Talk {
  readonly #rng: Rng;
  readonly #trace: Trace;
  frames = 0;
  /** Something was wrong that may look like an answer. */
  strayed = false;
  /** Answers that came while memory was asked for. */
  early = 0;
  /** Runs of commands that the peer has carried out. */
  runs = 0;
  readonly #ram = new ArrayMemory([{ base: 0, bytes: RAM_BYTES }]);
  readonly #peer: MemoryPeer;
  readonly #memory: FuzzMemory;
  readonly #bytes = new Uint8Array(3 * MAX_FRAME_BYTES);
  readonly #receiver = new Receiver(this.#bytes);
  readonly #frame = new Frame();
  readonly #answers: Sent[] = [];
  /** What the session waits for. */
  readonly #asked: Sent[] = [];
  /** Types of questions that are answered later, by id; ids may repeat. */
  readonly #open: { readonly type: number; readonly id: number }[] = [];
  #features = 0;
  readonly #session: Session;
  #nextId = 1;
  #delivering = false;
  readonly #ring = new RingMaker();
  #page: SharedPage | undefined;
  /** Only the peer's own cache keeps translations, so the peer may complete commands. */
  readonly #alone: boolean;

  constructor(rng: Rng, trace: Trace) {
    this.#rng = rng;
    this.#trace = trace;
    const ram = this.#ram;
    this.#alone = rng.chance(0.4);
    this.#peer = new MemoryPeer(ram, RAM_BYTES, () => this.#answerEarly());
    this.#memory = new FuzzMemory(rng.chance(0.5) ? this.#peer.memory : ram);
    const outlet = (sent: (frame: Sent) => void, channel: ChannelName): Outlet => ({
      put: (type, flags, id, codec, message) => {
        const { ops, batch } = message as Partial<RegWriteReply>;
        const operations = (ops?.length ?? 0) / HOST_OPERATION_WORDS;
        if (type === MESSAGE.QUEUE) this.#ring.take(message as unknown as Queue);
        if (channel === CHANNEL.BACKEND) this.#peer.ask(type, flags, id, codec, message);
        sent({ type, flags, id, channel, operations });
        // A batch that comes with the answer to a write is answered where it came.
        if (type === MESSAGE.REG_WRITE && batch)
          this.#ask({ type: MESSAGE.HOST_BATCH, flags, id: batch, channel, operations });
      },
    });
    const ports: SessionPorts = {
      front: outlet((frame) => this.#answers.push(frame), CHANNEL.FRONT),
      memory: this.#memory,
      models: { createModel, modelRegisterBytes },
      openBackend: () => outlet((frame) => this.#ask(frame), CHANNEL.BACKEND),
      mapSharedPage: (_fd, _bytes, registerBytes, ringBytes) => {
        this.#page = sharedPage(registerBytes, ringBytes);
        return this.#page;
      },
      fileBytes: () => 2 ** 20,
      log: () => {},
      event: () => {},
    };
    this.#session = new Session(ports, { session: 'fuzz', modelDefaults: {} });
  }

  end(): void {
    this.#session.end();
    this.#peer.close();
  }

  hello(): void {
    const rng = this.#rng;
    const features = rng.pick([...new Array<number>(5).fill(ALL_FEATURES), 1, rng.u32()]);
    const model = rng.chance(0.7) ? 'vtd' : 'smmuv3';
    const sharedBytes = SHARED.REGISTERS + modelRegisterBytes(model) + SHARED.RING_BYTES;
    const options = model === 'smmuv3' && rng.chance(0.7) ? { ats: 'on' } : {};
    const given = { version: VERSION, features, vm: 'fuzz', model, sharedBytes, options };
    const message = { ...CODEC.Hello.create(), ...given };
    this.#features = features & ALL_FEATURES;
    const flags = VERSION | FLAG.NEED_REPLY;
    this.#receive(frameBytes(MESSAGE.HELLO, flags, 0, CODEC.Hello, message), [NO_FD, NO_FD + 1]);
    for (const bytes of firstFrames(this.#plausible)) this.#receive(bytes, []);
    if (rng.chance(0.7)) {
      putTables(this.#ram, model);
      for (const bytes of startFrames(model)) this.#receive(bytes, []);
    }
    if ((this.#plausible & FEATURE.NESTING) === 0 || rng.chance(0.3)) return;
    for (const bytes of hostFrames(rng, model)) this.#receive(bytes, []);
  }

  /** Features whose messages are sent now and then. */
  get #plausible(): number {
    const others = FEATURE.NOTIFIERS | FEATURE.HOST_BATCH | FEATURE.NESTING;
    return this.#alone ? this.#features & ~others : this.#features;
  }

  step(): void {
    const rng = this.#rng;
    if (this.#page !== undefined && rng.chance(0.3)) {
      const ran = this.#ring.put(rng, this.#page);
      if (ran !== undefined) {
        this.runs++;
        this.#trace.say(ran);
      }
    }
    if (rng.chance(0.3) && this.#asked.length > 0) {
      this.#acknowledge();
      return;
    }
    const { type, bytes, descriptor } = plausibleFrame(rng, this.#nextId++, this.#plausible);
    const wrong = rng.chance(0.005);
    const descriptors = descriptor !== rng.chance(0.002) ? [NO_FD] : [];
    const sent = wrong ? spoiled(rng, bytes) : bytes;
    if (wrong) this.strayed = true;
    this.#trace.say(`${wrong ? 'spoiled ' : ''}type ${type}: ${Buffer.from(sent).toString('hex')}`);
    this.#receive(sent, descriptors);
  }

  #ask(sent: Sent): void {
    const needsReply = (sent.flags & FLAG.NEED_REPLY) !== 0;
    // What went with an answer is answered, too.
    if (needsReply || sent.channel === CHANNEL.FRONT) this.#asked.push(sent);
  }

  #acknowledge(): void {
    const asked = this.#asked.shift() as Sent;
    const bytes = this.#answerBytes(asked);
    if (asked.channel === CHANNEL.FRONT) {
      const frame = new Frame();
      const { type, flags } = { type: asked.type, flags: VERSION | FLAG.REPLY };
      const id = new DataView(bytes.buffer).getUint32(12, true);
      Object.assign(frame, { type, flags, id, start: 16, end: bytes.length });
      this.#input(CHANNEL.FRONT, frame, bytes);
      return;
    }
    this.#peer.send(bytes);
    this.#deliver();
    this.#checkAnswered();
  }

  /**
   * Some of what the peer was asked on the backend channel, in order, in the middle of an input
   * that waits for memory.
   */
  #answerEarly(): void {
    const rng = this.#rng;
    while (this.#asked[0]?.channel === CHANNEL.BACKEND && rng.chance(0.5)) {
      this.early++;
      this.#peer.send(this.#answerBytes(this.#asked.shift() as Sent));
    }
  }

  #answerBytes(asked: Sent): Uint8Array {
    const rng = this.#rng;
    const right = rng.chance(0.998);
    if (!right) this.strayed = true;
    const id = right ? asked.id : rng.u32();
    this.#trace.say(`answer to type ${asked.type}, ${id}`);
    return this.#answerTo(asked, id);
  }

  #answerTo({ type, operations }: Sent, id: number): Uint8Array {
    const rng = this.#rng;
    const flags = VERSION | FLAG.REPLY;
    if (type === MESSAGE.DEVICE_TLB) {
      return frameBytes(type, flags, id, CODEC.DeviceTlbReply, { result: rng.below(4) });
    }
    if (type === MESSAGE.HOST_BATCH) {
      const index = rng.chance(0.998) ? rng.below(Math.max(operations, 1)) : rng.u32();
      const failures = operations > 0 && rng.chance(0.1) ? Uint32Array.of(index, 14) : new Uint32Array(0);
      return frameBytes(type, flags, id, CODEC.HostBatchReply, { failures });
    }
    if (type >= MESSAGE.HOST_SPACE_CREATE) {
      const failed = rng.chance(0.1);
      const code = failed ? 1 + rng.below(21) : 0;
      const done = failed ? rng.below(operations + 1) : operations;
      return frameBytes(type, flags, id, CODEC.HostReply, {
        code,
        text: '',
        done,
        value: rng.below(2 ** 20),
      });
    }
    const refused = rng.chance(0.001);
    if (refused) this.strayed = true;
    return frameBytes(type, flags, id, CODEC.Status, { code: refused ? 5 : 0, text: '' });
  }

  /** Bytes arrive, whole or in pieces; frames that are complete are handled. */
  #receive(bytes: Uint8Array, descriptors: readonly number[]): void {
    const rng = this.#rng;
    for (let at = 0; at < bytes.length; ) {
      const count =
        descriptors.length > 0 || rng.chance(0.7) ? bytes.length : 1 + rng.below(bytes.length - at);
      const piece = bytes.subarray(at, at + count);
      must(this.#receiver.makeRoom() >= piece.length, () => 'no room to receive');
      this.#bytes.set(piece, this.#receiver.writePosition);
      this.#receiver.received(piece.length, at === 0 ? descriptors : []);
      at += piece.length;
      while (this.#receiver.next(this.#frame)) {
        this.#input(CHANNEL.FRONT, this.#frame, this.#bytes);
        this.#frame.descriptors.length = 0;
      }
    }
  }

  /** What has come on the backend channel. */
  #deliver(): void {
    this.#delivering = true;
    this.#peer.deliver((frame, bytes) => this.#input(CHANNEL.BACKEND, frame, bytes));
    this.#delivering = false;
  }

  #input(channel: ChannelName, frame: Frame, bytes: Uint8Array): void {
    this.frames++;
    this.#memory.taken();
    this.#answers.length = 0;
    const { type, id } = frame;
    const due = channel === CHANNEL.FRONT ? replyDue(type, frame.flags, this.#features) : 'never';
    if (due === 'later') this.#open.push({ type, id });
    this.#session.input(channel, frame, bytes);
    const words = this.#memory.taken();
    must(words <= WORDS_PER_WRITE, () => `type ${type} touched ${words} words of memory`);
    let now = due === 'at once' ? 1 : 0;
    for (const answer of this.#answers) {
      const right = (answer.flags & FLAG.REPLY) !== 0;
      const waits = this.#open.findIndex((one) => one.type === answer.type && one.id === answer.id);
      must(right, () => `type ${type} id ${id} got ${JSON.stringify(answer)}`);
      if (answer.type === type && answer.id === id && now > 0) now--;
      else if (waits >= 0) this.#open.splice(waits, 1);
      else must(false, () => `type ${type} id ${id} got ${JSON.stringify(answer)}`);
    }
    must(now === 0, () => `type ${type} got no answer`);
    if (this.#delivering) return;
    this.#deliver();
    this.#checkAnswered();
  }

  #checkAnswered(): void {
    const late = (): string => `${JSON.stringify(this.#open[0])} is not answered, and nothing is waited for`;
    must(this.#asked.length > 0 || this.#open.length === 0, late);
  }
}

function sharedPage(registerBytes: number, ringBytes: number): SharedPage {
  const control = new Uint32Array(1024);
  control[0] = CONTROL_MAGIC;
  const registers = new Uint32Array(registerBytes / 4);
  const ring = ringBytes > 0 ? new Uint32Array(ringBytes / 4) : undefined;
  return { control, registers, registerBytes: new Uint8Array(registers.buffer), ring };
}
