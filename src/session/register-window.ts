/**
 * REG_WRITE and REG_READ: the guest's stores to registers and its loads, one after the other
 * (ordering rule 1).
 */
import type { Iommu } from '../device/iommu.js';
import { CODEC } from '../wire/codec.js';
import { CONTROL, FEATURE, type Frame } from '../wire/frame.js';
import type * as M from '../wire/messages.js';
import type { Completions } from './completions.js';
import type { Connection } from './connection.js';
import type { SharedPage } from './ports.js';
import type { Shadowing } from './shadowing.js';

export class RegisterWindow {
  readonly #connection: Connection;
  readonly #completions: Completions;
  readonly #shadowing: Shadowing;
  /** Writes handled, and what of that count stands in the control page. Modulo 2^32. */
  #handled = 0;
  #published = 0;
  readonly #value = CODEC.RegReadReply.create();
  readonly #answer = (): boolean => {
    this.#shadowing.writeReply.send(this.#connection.front);
    return true;
  };

  constructor(connection: Connection, completions: Completions, shadowing: Shadowing) {
    this.#connection = connection;
    this.#completions = completions;
    this.#shadowing = shadowing;
  }

  /**
   * The write counts as handled, and is answered, when what it makes complete at once has been
   * published.
   */
  write(frame: Frame, message: M.RegWrite): void {
    const { offset, size, lo, hi } = message;
    const connection = this.#connection;
    const shadowing = this.#shadowing;
    const model = connection.model as Iommu;
    // A bridge sends no other sizes. What the guest may do wrong within these is the model's
    // matter.
    if ((size === 1 || size === 2 || size === 4 || size === 8) && offset + size <= model.registerBytes) {
      shadowing.asking(model, (connection.page as SharedPage).registers, offset, size, lo, hi);
      model.writeRegister(offset, size, lo, hi);
    }
    this.#handled = (this.#handled + 1) >>> 0;
    if (!frame.needsReply || (connection.features & FEATURE.WRITE_REPLY) === 0) return;
    shadowing.writeReply.begin(frame.id);
    this.#completions.hold(this.#answer);
  }

  read(frame: Frame, message: M.RegRead): void {
    const bytes = (this.#connection.page as SharedPage).registerBytes;
    const value = this.#value;
    value.lo = littleEndian(bytes, message.offset, Math.min(message.size, 4));
    value.hi = littleEndian(bytes, message.offset + 4, Math.min(message.size, 8) - 4);
    value.unsettled = this.#waits();
    this.#connection.reply(frame, CODEC.RegReadReply, value);
  }

  /**
   * Linux reads GSTS.IRES once when it switches remapping on, and IRES comes after interrupts and
   * translations have been dropped (those of the interrupt range go with it).
   */
  #waits(): boolean {
    return this.#connection.model?.interrupts !== undefined && this.#completions.pending > 0;
  }

  /**
   * Stores the count of handled writes, after everything that they have done: a peer that sees it
   * sees the rest. Where interrupts are remapped, not while anything is pending: reads have to ask
   * then, and the peer settles.
   */
  publishHandled(): void {
    if (this.#handled === this.#published || this.#waits()) return;
    this.#published = this.#handled;
    Atomics.store((this.#connection.page as SharedPage).control, CONTROL.HANDLED, this.#handled);
  }
}

/** Up to four bytes at `offset`; those outside read as 0. */
function littleEndian(bytes: Uint8Array, offset: number, count: number): number {
  let value = 0;
  for (let i = 0; i < count; i++) value |= (bytes[offset + i] ?? 0) << (8 * i);
  return value >>> 0;
}
