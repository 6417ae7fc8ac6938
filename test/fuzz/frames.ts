import { CodedError, ERRORS } from '../../src/base/errors.js';
import { createModel, modelRegisterBytes } from '../../src/device/models.js';
import { ArrayMemory } from '../../src/memory/array.js';
import type { Outlet, SessionMemory, SessionPorts, SharedPage } from '../../src/session/ports.js';
import { CHANNEL, type ChannelName, Session } from '../../src/session/session.js';
import { HOST_OPERATION_WORDS } from '../../src/sim/host.js';
import { CODEC } from '../../src/wire/codec.js';
import {
  ALL_FEATURES,
  CONTROL_MAGIC,
  FLAG,
  Frame,
  MAX_FRAME_BYTES,
  MESSAGE,
  VERSION,
} from '../../src/wire/frame.js';
import type { RegWriteReply } from '../../src/wire/messages.js';
import { Receiver } from '../../src/wire/receiver.js';
import { CountingMemory } from './counting-memory.js';
import { firstFrames, frameBytes, plausibleFrame, replyDue, spoiled } from './frame-maker.js';
import { type Fuzzer, must, type Trace } from './fuzzer.js';
import { WORDS_PER_WRITE } from './limits.js';
import type { Rng } from './rng.js';

const STEPS = 150;
/** Descriptors that are nobody's: closing them does nothing. */
const NO_FD = 0x4000_0000;

/** Guest memory that accepts any region and serves one. */
class FuzzMemory extends CountingMemory implements SessionMemory {
  readonly #regions = new Set<number>();
  constructor() {
    super(new ArrayMemory([{ base: 0, bytes: 2 ** 20 }]));
  }
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

const ASKS: ReadonlySet<number> = new Set([
  MESSAGE.INVALIDATE,
  MESSAGE.DEVICE_TLB,
  MESSAGE.HOST_BATCH,
  MESSAGE.TRACK,
]);

/**
 * Random frames against a session: right ones, wrong ones, and bytes that are none, in pieces of any size. The
 * session may end only with an error of the table that ends connections; until then every question has one
 * answer, in order (some wait for the host, which answers when it likes), and no frame costs more than its bound.
 */
export class FramesFuzzer implements Fuzzer {
  readonly name = 'frames';
  #frames = 0;
  #ended = 0;
  readonly #reasons: Record<string, number> = {};

  facts(): Readonly<Record<string, number>> {
    return { frames: this.#frames, ended: this.#ended, ...this.#reasons };
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
      this.#ended++;
      this.#reasons[error.reason] = (this.#reasons[error.reason] ?? 0) + 1;
    } finally {
      talk.end();
      this.#frames += talk.frames;
    }
  }
}

class Talk {
  frames = 0;
  readonly #memory = new FuzzMemory();
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

  constructor(
    private readonly rng: Rng,
    private readonly trace: Trace,
  ) {
    const outlet = (sent: (frame: Sent) => void, channel: ChannelName): Outlet => ({
      put: (type, flags, id, _codec, message) => {
        const { ops, batch } = message as Partial<RegWriteReply>;
        const operations = (ops?.length ?? 0) / HOST_OPERATION_WORDS;
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
      mapSharedPage: (_fd, _bytes, registerBytes) => sharedPage(registerBytes),
      fileBytes: () => 2 ** 20,
      log: () => {},
      event: () => {},
    };
    this.#session = new Session(ports, { session: 'fuzz', modelDefaults: {} });
  }

  end(): void {
    this.#session.end();
  }

  hello(): void {
    const { rng } = this;
    const features = rng.pick([...new Array<number>(5).fill(ALL_FEATURES), 1, rng.u32()]);
    const model = rng.chance(0.7) ? 'vtd' : 'smmuv3';
    const sharedBytes = 8192 + modelRegisterBytes(model);
    const options = model === 'smmuv3' && rng.chance(0.7) ? { ats: 'on' } : {};
    const given = { version: VERSION, features, vm: 'fuzz', model, sharedBytes, options };
    const message = { ...CODEC.Hello.create(), ...given };
    this.#features = features & ALL_FEATURES;
    const flags = VERSION | FLAG.NEED_REPLY;
    this.#receive(frameBytes(MESSAGE.HELLO, flags, 0, CODEC.Hello, message), [NO_FD, NO_FD + 1]);
    for (const bytes of firstFrames(this.#features)) this.#receive(bytes, []);
  }

  step(): void {
    const { rng } = this;
    if (rng.chance(0.3) && this.#asked.length > 0) {
      this.#acknowledge();
      return;
    }
    const { type, bytes, descriptor } = plausibleFrame(rng, this.#nextId++, this.#features);
    const wrong = rng.chance(0.005);
    const descriptors = descriptor !== rng.chance(0.002) ? [NO_FD] : [];
    const sent = wrong ? spoiled(rng, bytes) : bytes;
    this.trace.say(`${wrong ? 'spoiled ' : ''}type ${type}: ${Buffer.from(sent).toString('hex')}`);
    this.#receive(sent, descriptors);
  }

  #ask(sent: Sent): void {
    if (ASKS.has(sent.type)) this.#asked.push(sent);
  }

  #acknowledge(): void {
    const { rng } = this;
    const asked = this.#asked.shift() as Sent;
    const { type, channel } = asked;
    const id = rng.chance(0.998) ? asked.id : rng.u32();
    const bytes = this.#answerTo(asked, id);
    this.trace.say(`answer to type ${type}, ${id}`);
    const frame = new Frame();
    Object.assign(frame, { type, flags: VERSION | FLAG.REPLY, id, start: 16, end: bytes.length });
    this.#input(channel, frame, bytes);
  }

  #answerTo({ type, operations }: Sent, id: number): Uint8Array {
    const { rng } = this;
    const flags = VERSION | FLAG.REPLY;
    if (type === MESSAGE.DEVICE_TLB) {
      return frameBytes(type, flags, id, CODEC.DeviceTlbReply, { result: rng.below(4) });
    }
    if (type === MESSAGE.HOST_BATCH) {
      const index = rng.chance(0.998) ? rng.below(Math.max(operations, 1)) : rng.u32();
      const failures = operations > 0 && rng.chance(0.1) ? Uint32Array.of(index, 14) : new Uint32Array(0);
      return frameBytes(type, flags, id, CODEC.HostBatchReply, { failures });
    }
    return frameBytes(type, flags, id, CODEC.Status, { code: rng.chance(0.999) ? 0 : 5, text: '' });
  }

  /** Bytes arrive, whole or in pieces; frames that are complete are handled. */
  #receive(bytes: Uint8Array, descriptors: readonly number[]): void {
    const { rng } = this;
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
    const late = (): string => `${JSON.stringify(this.#open[0])} is not answered, and nothing is waited for`;
    must(this.#asked.length > 0 || this.#open.length === 0, late);
  }
}

function sharedPage(registerBytes: number): SharedPage {
  const control = new Uint32Array(1024);
  control[0] = CONTROL_MAGIC;
  const registers = new Uint32Array(registerBytes / 4);
  return { control, registers, registerBytes: new Uint8Array(registers.buffer) };
}
