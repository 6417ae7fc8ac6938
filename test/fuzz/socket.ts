import { CodedError } from '../../src/base/errors.js';
import { ACCESS } from '../../src/device/iommu.js';
import { SimVm } from '../../src/sim/vm.js';
import { CODEC } from '../../src/wire/codec.js';
import { ALL_FEATURES, CONTROL, FLAG, MAILBOX, MESSAGE, VERSION } from '../../src/wire/frame.js';
import { firstFrames, frameBytes, plausibleFrame, spoiled } from './frame-maker.js';
import { type Fuzzer, must, type Trace } from './fuzzer.js';
import type { Rng } from './rng.js';

/** The words behind the two frames: the second is not in the control page. */
const ENDS: readonly number[] = [CONTROL.MAIL_FRAME_END, CONTROL.MAIL_ANSWER_END];

/** Words of the control page that the mailbox has. */
const MAIL_WORDS = Object.values(CONTROL).filter(
  (word) => word >= CONTROL.PEER_SLEEPS && !ENDS.includes(word),
);

/**
 * The same frames over a real socket to a real daemon, and what there is to do wrong in the
 * mailbox, while another machine of that daemon goes on translating: it must not notice.
 */
export class SocketFuzzer implements Fuzzer {
  readonly #path: string;
  readonly name = 'socket';
  #ended = 0;
  #mails = 0;
  readonly #witness: SimVm;

  constructor(path: string) {
    this.#path = path;
    this.#witness = SimVm.connect(path, { name: 'witness', ramBytes: 2 ** 20 });
  }

  facts(): Readonly<Record<string, number>> {
    return { ended: this.#ended, mails: this.#mails };
  }

  close(): void {
    this.#witness.close();
  }

  run(rng: Rng, trace: Trace): void {
    const vm = SimVm.connect(this.#path, { name: 'fuzz', ramBytes: 2 ** 20 });
    try {
      for (const bytes of firstFrames(ALL_FEATURES)) vm.client.front.putRaw(bytes);
      const mailing = rng.chance(0.5);
      for (let n = 0; n < 300; n++) {
        if (mailing && rng.chance(0.3)) this.#mail(rng, trace, vm, n);
        this.#send(rng, trace, vm, n);
      }
      // An honest question at the end, when all that was sent could be understood.
      vm.client.timeoutMs = 5000;
      vm.client.awaitEnd();
    } catch (error) {
      if (!(error instanceof CodedError)) throw error;
    } finally {
      this.#ended++;
      vm.close();
    }
    const reply = this.#witness.askTranslation(1, -1, ACCESS.READ, 0x1000n);
    must(reply.status === 0, () => 'the other machine was refused');
  }

  /**
   * Puts a register write into the mailbox, right or not, or writes where it should not; says so,
   * or does not.
   */
  #mail(rng: Rng, trace: Trace, vm: SimVm, n: number): void {
    const { control } = vm;
    if (rng.chance(0.2)) {
      const word = rng.pick(MAIL_WORDS);
      const value = rng.chance(0.5) ? rng.below(4) : rng.u32();
      trace.say(`word ${word}: ${value}`);
      Atomics.store(control, word, value);
    } else {
      const type = rng.chance(0.97) ? MESSAGE.REG_WRITE : rng.below(128);
      const write = { offset: 4 * rng.below(0x400), size: 4, lo: rng.u32(), hi: 0 };
      const frame = frameBytes(type, VERSION | FLAG.NEED_REPLY, n, CODEC.RegWrite, write);
      const bytes = rng.chance(0.05) ? spoiled(rng, frame) : frame;
      // Mostly its turn: what was sent before it, as far as frames sent by hand are counted.
      const after = rng.chance(0.8) ? (control[CONTROL.MAIL_AFTER] as number) : rng.below(2 * n + 2);
      trace.say(`mail after ${after}: ${Buffer.from(bytes).toString('hex')}`);
      new Uint8Array(control.buffer, control.byteOffset + MAILBOX.PEER).set(
        bytes.subarray(0, MAILBOX.PEER_BYTES),
      );
      control[CONTROL.MAIL_AFTER] = after;
      Atomics.add(control, CONTROL.MAIL_SENT, 1);
      this.#mails++;
    }
    if (rng.chance(0.5)) vm.client.post(MESSAGE.MAIL, {});
  }

  #send(rng: Rng, trace: Trace, vm: SimVm, n: number): void {
    let made = plausibleFrame(rng, n, ALL_FEATURES);
    while (made.descriptor) made = plausibleFrame(rng, n, ALL_FEATURES);
    const { type, bytes } = made;
    // The last one is wrong for sure, so that the connection comes to an end.
    const sent = n === 299 ? new Uint8Array(64).fill(0xff) : rng.chance(0.01) ? spoiled(rng, bytes) : bytes;
    trace.say(`type ${type}: ${Buffer.from(sent).toString('hex')}`);
    vm.client.front.putRaw(sent);
    vm.client.front.flush();
    vm.client.serve(0);
  }
}
