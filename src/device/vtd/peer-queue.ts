/** The invalidation queue as the peer may run it. VT-d §6.5.2, §11.4.9. */
import { IQA_REG, IQH_REG, IQT_REG, TTM } from '../../spec/vtd/registers.js';
import type { PeerQueue, QueueDescription } from '../peer-queue.js';
import type { RegisterFile } from '../registers.js';
import type { VtdConfig } from './config.js';
import { plainDescriptors } from './descriptors.js';
import { type InvalidationQueue, isWide, queueBytes } from './invalidation-queue.js';
import type { VtdLookup } from './lookup.js';

export class VtdPeerQueue implements PeerQueue {
  readonly #file: RegisterFile;
  readonly #lookup: VtdLookup;
  readonly #queue: InvalidationQueue;
  readonly #legacy: Uint32Array;
  readonly #scalable: Uint32Array;
  readonly #faithful: boolean;
  #changes = 0;
  #lo = -1;
  #hi = -1;
  #mode = -1;

  constructor(config: VtdConfig, file: RegisterFile, lookup: VtdLookup, queue: InvalidationQueue) {
    this.#file = file;
    this.#lookup = lookup;
    this.#queue = queue;
    this.#legacy = plainDescriptors(config, false);
    this.#scalable = plainDescriptors(config, true);
    this.#faithful = config.cachePolicy === 'faithful';
  }

  /**
   * See {@link PeerQueue.ready}. Commands name all that is handed out: in legacy mode, where the
   * peer drops pages, there are no first stages: Set Root Table Pointer leaves none in the IOTLB.
   */
  get ready(): boolean {
    return this.#faithful && this.#queue.atRest;
  }

  /** See {@link PeerQueue.version}. */
  get version(): number {
    const lo = this.#file.get(IQA_REG.offset);
    const hi = this.#file.get(IQA_REG.offset + 4);
    const { mode } = this.#lookup;
    if (lo !== this.#lo || hi !== this.#hi || mode !== this.#mode) {
      this.#lo = lo;
      this.#hi = hi;
      this.#mode = mode;
      this.#changes++;
    }
    return this.#changes;
  }

  /** See {@link PeerQueue.describe}. */
  describe(out: QueueDescription): void {
    const base = IQA_REG.get.IQA(this.#file.words, IQA_REG.offset >> 2);
    const bytes = queueBytes(this.#file);
    out.tail = IQT_REG.offset;
    out.head = IQH_REG.offset;
    out.entryLog2 = isWide(this.#file) ? 5 : 4;
    out.entriesLog2 = Math.log2(bytes) - out.entryLog2;
    out.indexShift = out.entryLog2;
    out.indexMask = bytes - 2 ** out.entryLog2;
    out.wraps = false;
    out.baseLo = base % 2 ** 32;
    out.baseHi = Math.floor(base / 2 ** 32);
    out.commands = this.#lookup.mode === TTM.SCALABLE ? this.#scalable : this.#legacy;
  }

  /** See {@link PeerQueue.ran}. */
  ran(words: Uint32Array, at: number, count: number, index: number): boolean {
    if (!this.ready) return false;
    const size = isWide(this.#file) ? 8 : 4;
    const bytes = queueBytes(this.#file);
    const head = this.#file.get(IQH_REG.offset);
    if (count * size * 4 >= bytes || (head + count * size * 4) % bytes !== index) return false;
    for (let entry = 0; entry < count; entry++) {
      if (!this.#queue.ran(words, at + entry * size, size)) return false;
    }
    this.#file.adopt(IQH_REG.offset, bytes - 1, index);
    this.#file.adopt(IQT_REG.offset, bytes - 1, index);
    return true;
  }
}
