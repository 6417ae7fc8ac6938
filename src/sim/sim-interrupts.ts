/**
 * The simulated bridge's cache of remapped interrupts. It keeps the epoch rule of the wire
 * (docs/protocol.md): an answer that is older than the last invalidation is used once.
 */
import type * as M from '../wire/messages.js';

/** `log2Count` from here on is every entry. */
const ALL_ENTRIES = 16;

/** What became of an interrupt: the message for the processors, or undefined when it is blocked. */
interface RemappedInterrupt {
  /** Destination bits 31:8 are in bits 63:40, as 32-bit APIC ids need them. */
  readonly address: bigint;
  readonly data: number;
}

interface Kept extends RemappedInterrupt {
  /** Table entry + 1; 0: of none. */
  readonly index: number;
}

export class SimInterrupts {
  readonly counters = { hits: 0, asked: 0, stale: 0 };
  /** Called before an INVALIDATE_INTERRUPTS is obeyed. */
  onInvalidate: (message: M.InvalidateInterrupts) => void = () => {};
  /** Called when an answer is there, before it is used. */
  onAnswer: () => void = () => {};
  readonly #ask: (request: M.RemapInterrupt) => M.RemapInterruptReply;
  readonly #kept = new Map<string, Kept>();
  #passAll = false;
  #epoch = 0;

  constructor(ask: (request: M.RemapInterrupt) => M.RemapInterruptReply) {
    this.#ask = ask;
  }

  get size(): number {
    return this.#kept.size;
  }

  /** An interrupt of a source: from what is kept, or asked for. */
  remap(rid: number, address: number, data: number): RemappedInterrupt | undefined {
    const name = `${rid} ${address} ${data}`;
    const kept = this.#passAll ? { address: BigInt(address), data } : this.#kept.get(name);
    if (kept !== undefined) {
      this.counters.hits++;
      return kept;
    }
    this.counters.asked++;
    const reply = { ...this.ask(rid, address, data) };
    this.onAnswer();
    if (reply.status !== 0) return undefined;
    const remapped = { address: addressOf(reply), data: reply.data, index: reply.index };
    if (((reply.epoch - this.#epoch) | 0) < 0) this.counters.stale++;
    else if (!reply.once) {
      if (reply.passAll) this.#passAll = true;
      else this.#kept.set(name, remapped);
    }
    return remapped;
  }

  /** REMAP_INTERRUPT: always a round trip. The reply is reused by the next one. */
  ask(rid: number, address: number, data: number, look = false): M.RemapInterruptReply {
    return this.#ask({ rid, addressLo: address, addressHi: 0, data, look });
  }

  invalidate(message: M.InvalidateInterrupts): void {
    this.onInvalidate(message);
    const { epoch, index, log2Count } = message;
    this.#epoch = epoch;
    if (log2Count >= ALL_ENTRIES) {
      this.clear();
      return;
    }
    for (const [name, kept] of this.#kept) {
      if (kept.index > 0 && (kept.index - 1) >>> log2Count === index >>> log2Count) this.#kept.delete(name);
    }
  }

  /** Drops everything. Epochs go on counting: they are the session's. */
  clear(): void {
    this.#kept.clear();
    this.#passAll = false;
  }
}

function addressOf({ addressLo, addressHi }: M.RemapInterruptReply): bigint {
  return (BigInt(addressHi >>> 0) << 32n) | BigInt(addressLo >>> 0);
}
