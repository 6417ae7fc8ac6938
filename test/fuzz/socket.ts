import { CodedError } from '../../src/base/errors.js';
import { ACCESS } from '../../src/device/iommu.js';
import { SimVm } from '../../src/sim/vm.js';
import { ALL_FEATURES } from '../../src/wire/frame.js';
import { firstFrames, plausibleFrame, spoiled } from './frame-maker.js';
import { type Fuzzer, must, type Trace } from './fuzzer.js';
import type { Rng } from './rng.js';

/**
 * The same frames over a real socket to a real daemon, while another machine of that daemon goes on
 * translating: it must not notice.
 */
export class SocketFuzzer implements Fuzzer {
  readonly name = 'socket';
  #ended = 0;
  readonly #witness: SimVm;

  constructor(private readonly path: string) {
    this.#witness = SimVm.connect(path, { name: 'witness', ramBytes: 2 ** 20 });
  }

  facts(): Readonly<Record<string, number>> {
    return { ended: this.#ended };
  }

  close(): void {
    this.#witness.close();
  }

  run(rng: Rng, trace: Trace): void {
    const vm = SimVm.connect(this.path, { name: 'fuzz', ramBytes: 2 ** 20 });
    try {
      for (const bytes of firstFrames(ALL_FEATURES)) vm.client.front.putRaw(bytes);
      for (let n = 0; n < 300; n++) this.#send(rng, trace, vm, n);
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
