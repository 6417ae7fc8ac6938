/** The Command queue as the peer may run it. IHI 0070 §3.5, §6.3.25 to §6.3.27. */
import { COMMAND_BYTES } from '../../spec/smmuv3/commands.js';
import { CMDQ_BASE, CMDQ_CONS, CMDQ_PROD } from '../../spec/smmuv3/registers.js';
import type { PeerQueue, QueueDescription } from '../peer-queue.js';
import type { RegisterFile } from '../registers.js';
import { type CommandQueue, indexMask, queueBase } from './command-queue.js';
import { plainCommandsOf } from './commands.js';
import type { SmmuConfig } from './config.js';
import type { Stalls } from './stalls.js';
import type { Walks } from './walks.js';

const ENTRY_LOG2 = Math.log2(COMMAND_BYTES);
/** Bits 19:0 of CMDQ_PROD and CMDQ_CONS, whatever the size of the queue. */
const INDEXES = 0xfffff;

export class SmmuPeerQueue implements PeerQueue {
  readonly #file: RegisterFile;
  readonly #walks: Walks;
  readonly #queue: CommandQueue;
  readonly #stalls: Stalls;
  readonly #commands: Uint32Array;
  readonly #faithful: boolean;
  #changes = 0;
  #lo = -1;
  #hi = -1;

  constructor(config: SmmuConfig, file: RegisterFile, walks: Walks, queue: CommandQueue, stalls: Stalls) {
    this.#file = file;
    this.#walks = walks;
    this.#queue = queue;
    this.#stalls = stalls;
    this.#commands = plainCommandsOf(config);
    this.#faithful = config.cachePolicy === 'faithful';
  }

  /**
   * See {@link PeerQueue.ready}. What invalidations by address may miss outside, only the model
   * knows to find.
   */
  get ready(): boolean {
    return this.#mayRun() && this.#plainIndexes() && !this.loose;
  }

  /** See {@link PeerQueue.loose}. */
  get loose(): boolean {
    return this.#walks.handedOutLoose || this.#stalls.held > 0;
  }

  /**
   * The peer leaves bits beside the index as they are, where a store would clear them; and a queue
   * of one entry is not described.
   */
  #plainIndexes(): boolean {
    const file = this.#file;
    const mask = indexMask(file);
    const beyond = (file.get(CMDQ_PROD.offset) | file.get(CMDQ_CONS.offset)) & ~mask & INDEXES;
    return beyond === 0 && mask > 1;
  }

  /**
   * What only register writes change. A request that the peer sent before may have been answered
   * loosely, or stalled, since it began: what it drops by its commands' VMID it does not keep of
   * that answer, and is not in need of more.
   */
  #mayRun(): boolean {
    return this.#faithful && this.#queue.atRest;
  }

  /** See {@link PeerQueue.version}. */
  get version(): number {
    const lo = this.#file.get(CMDQ_BASE.offset);
    const hi = this.#file.get(CMDQ_BASE.offset + 4);
    if (lo !== this.#lo || hi !== this.#hi) {
      this.#lo = lo;
      this.#hi = hi;
      this.#changes++;
    }
    return this.#changes;
  }

  /** See {@link PeerQueue.describe}. */
  describe(out: QueueDescription): void {
    const base = queueBase(this.#file);
    const mask = indexMask(this.#file);
    out.tail = CMDQ_PROD.offset;
    out.head = CMDQ_CONS.offset;
    out.entryLog2 = ENTRY_LOG2;
    out.entriesLog2 = Math.log2(mask + 1) - 1;
    out.indexShift = 0;
    out.indexMask = mask;
    out.wraps = true;
    out.baseLo = base % 2 ** 32;
    out.baseHi = Math.floor(base / 2 ** 32);
    out.commands = this.#commands;
  }

  /** See {@link PeerQueue.ran}. */
  ran(words: Uint32Array, at: number, count: number, index: number): boolean {
    if (!this.#mayRun()) return false;
    const file = this.#file;
    const mask = indexMask(file);
    if (count * 2 > mask + 1 || ((file.get(CMDQ_CONS.offset) + count) & mask) !== index) return false;
    for (let entry = 0; entry < count; entry++) {
      if (!this.#queue.ran(words, at + (entry * COMMAND_BYTES) / 4)) return false;
    }
    file.adopt(CMDQ_CONS.offset, mask, index);
    file.adopt(CMDQ_PROD.offset, mask, index);
    return true;
  }
}
