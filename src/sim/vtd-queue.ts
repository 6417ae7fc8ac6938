import { PAGE_BYTES } from '../base/page.js';
import { pack } from '../spec/define.js';
import { DESCRIPTOR, INV_WAIT_DSC } from '../spec/vtd/descriptors.js';
import { FSTS_REG, IQA_REG, IQERCD_REG, IQH_REG, IQT_REG } from '../spec/vtd/registers.js';
import type { PageAllocator } from './machine.js';
import type { Registers } from './vtd-registers.js';

/** What stopped the queue. VT-d §11.4.7.1, §11.4.9.9 */
interface QueueError {
  readonly IQE: boolean;
  readonly ITE: boolean;
  readonly ICE: boolean;
  readonly IQEI: number;
  /** Byte offset of the descriptor that the head stands at. */
  readonly head: number;
}

export class InvalidationQueueError extends Error {
  constructor(readonly error: QueueError) {
    super(`simulated guest: invalidation queue stopped, IQEI ${error.IQEI} at 0x${error.head.toString(16)}`);
    this.name = 'InvalidationQueueError';
  }
}

interface WaitOptions {
  /** SW: store the status word. Default true. */
  readonly status?: boolean;
  /** IF: raise the invalidation completion interrupt. */
  readonly interrupt?: boolean;
  /** FN: fence. */
  readonly fence?: boolean;
  /** PD: page requests that were received before are in their queue. */
  readonly drainPages?: boolean;
}

/** The guest's side of the invalidation queue. VT-d §6.5.2 */
export class VtdDriverQueue {
  /** Guest-physical address of the ring. */
  readonly base: number;
  /** Guest-physical address of the word that wait descriptors store to. */
  readonly status: number;
  readonly descriptorBytes: number;
  readonly bytes: number;
  /** Byte offset that goes into IQT_REG next. */
  tail = 0;
  /** Descriptors submitted, waits not counted. */
  submitted = 0;
  #sequence = 0;
  /** The head as last read. */
  #head = 0;

  /** `size` as IQA_REG.QS: the ring has 2^size pages. `wide`: 256-bit descriptors. */
  constructor(
    readonly registers: Registers,
    pages: PageAllocator,
    readonly wide: boolean,
    readonly size = 0,
  ) {
    this.base = pages.take(2 ** size);
    this.status = pages.take();
    this.descriptorBytes = wide ? 32 : 16;
    this.bytes = PAGE_BYTES * 2 ** size;
  }

  /** Programs IQT_REG and IQA_REG and sets GCMD_REG.QIE. §6.5.2 */
  enable(): void {
    this.tail = 0;
    this.#head = 0;
    this.registers.machine.writeRegister(IQT_REG.offset, 8, 0n);
    this.registers.write(IQA_REG, { QS: this.size, DW: this.wide ? 1 : 0, IQA: this.base });
    this.registers.command('QIE', 'QIES');
  }

  disable(): void {
    this.registers.command('QIE', 'QIES', false);
  }

  /**
   * Writes a descriptor (words beyond the descriptor width are dropped) behind the tail, without
   * telling the unit.
   */
  submit(words: Uint32Array): void {
    this.#waitForRoom();
    this.#store(this.base + this.tail, words);
    this.tail = (this.tail + this.descriptorBytes) % this.bytes;
    this.submitted++;
  }

  /** Adds a wait descriptor; returns the value that its status word will get. */
  submitWait(options: WaitOptions = {}): number {
    this.#sequence = (this.#sequence + 1) >>> 0;
    this.submit(
      pack(INV_WAIT_DSC, {
        TypeLow: DESCRIPTOR.WAIT,
        SW: (options.status ?? true) ? 1 : 0,
        IF: options.interrupt ? 1 : 0,
        FN: options.fence ? 1 : 0,
        PD: options.drainPages ? 1 : 0,
        StatusData: this.#sequence,
        StatusAddress: this.status,
      }) as Uint32Array,
    );
    this.submitted--;
    return this.#sequence;
  }

  /** Tells the unit how far the queue is filled. */
  kick(): void {
    this.registers.write(IQT_REG, { QT: this.tail });
  }

  /** The status word of the last wait descriptor that completed. */
  completed(): number {
    return this.registers.machine.ram.load32(this.status) >>> 0;
  }

  /** Waits until everything submitted so far is complete. Throws {@link InvalidationQueueError}. */
  sync(): void {
    const value = this.submitWait();
    this.kick();
    this.await(value);
  }

  /**
   * Waits for a wait descriptor's status value. Throws {@link InvalidationQueueError} when the
   * queue stopped.
   */
  await(value: number): void {
    let polls = 0;
    this.registers.waitUntil(() => {
      if (this.completed() === value) return true;
      if (++polls % 64 === 0) this.#throwIfStopped();
      return false;
    }, `wait descriptor ${value}`);
  }

  /** The error that the queue stopped on, if any. */
  error(): QueueError | undefined {
    const fsts = this.registers.read(FSTS_REG);
    const IQE = FSTS_REG.get.IQE(fsts) === 1;
    const ITE = FSTS_REG.get.ITE(fsts) === 1;
    const ICE = FSTS_REG.get.ICE(fsts) === 1;
    if (!IQE && !ITE && !ICE) return undefined;
    const IQEI = this.registers.field(IQERCD_REG, 'IQEI');
    return { IQE, ITE, ICE, IQEI, head: this.registers.field(IQH_REG, 'QH') };
  }

  /**
   * Replaces the descriptor at the head by a harmless one (a wait without effect) and lets the
   * queue go on.
   */
  recover(): void {
    const head = this.registers.field(IQH_REG, 'QH');
    const harmless = pack(INV_WAIT_DSC, { TypeLow: DESCRIPTOR.WAIT, FN: 1 }) as Uint32Array;
    this.#store(this.base + head, harmless);
    this.registers.write(FSTS_REG, { IQE: 1, ITE: 1, ICE: 1 });
  }

  #throwIfStopped(): void {
    const error = this.error();
    if (error !== undefined) throw new InvalidationQueueError(error);
  }

  #store(at: number, words: Uint32Array): void {
    const ram = this.registers.machine.ram;
    for (let i = 0; i < this.descriptorBytes / 4; i++) ram.store32(at + i * 4, words[i] ?? 0);
  }

  /** The ring is full when the tail would reach the head; the head is read only when it might. */
  #waitForRoom(): void {
    const next = (this.tail + this.descriptorBytes) % this.bytes;
    if (next !== this.#head) return;
    this.#head = this.registers.field(IQH_REG, 'QH');
    if (next !== this.#head) return;
    this.kick();
    this.registers.waitUntil(() => {
      this.#throwIfStopped();
      this.#head = this.registers.field(IQH_REG, 'QH');
      return next !== this.#head;
    }, 'room in the invalidation queue');
  }
}
