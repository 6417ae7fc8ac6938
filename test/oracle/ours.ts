import { SPAN_WORDS, TRANSLATE_STATUS } from '../../src/device/iommu.js';
import { ArrayMemory } from '../../src/memory/array.js';
import { LocalMachine } from '../support/local-machine.js';
import { type Answers, OPERATION, type Operation, type Translated } from './operations.js';

const REFUSED: Translated = { input: 0n, output: 0n, mask: 0n, permissions: 0 };

/** What the operations of one step yielded. */
class Yield implements Answers {
  readonly loads: bigint[] = [];
  readonly translations: Translated[] = [];
  readonly dumps: Uint8Array[] = [];

  load(): bigint {
    return taken(this.loads);
  }
  translated(): Translated {
    return taken(this.translations);
  }
  dump(): Uint8Array {
    return taken(this.dumps);
  }
}

function taken<T>(list: T[]): T {
  const first = list.shift();
  if (first === undefined) throw new Error('an answer is read that no operation yielded');
  return first;
}

export interface OurOptions {
  readonly model: 'vtd' | 'smmuv3';
  readonly options: Readonly<Record<string, string>>;
  /** Where the unit's registers are in the stock machine. */
  readonly registers: number;
  /** RAM of the stock machine: base and bytes of each region. */
  readonly ram: readonly (readonly [base: number, bytes: number])[];
}

/** Memory that knows what the unit has done to it. */
class WatchedMemory extends ArrayMemory {
  /** The unit is at work, not the guest. */
  watching = false;
  /**
   * 64-bit words with flags that it has set, and what they were before; words that it has stored.
   */
  readonly flagged = new Map<number, bigint>();
  readonly stored = new Set<number>();

  forget(): void {
    this.flagged.clear();
    this.stored.clear();
  }

  override cas32(gpa: number, expected: number, value: number): boolean {
    const word = gpa - (gpa % 8);
    const before = this.watching ? this.peek(word) : undefined;
    const done = super.cas32(gpa, expected, value);
    if (done && before !== undefined && !this.flagged.has(word)) this.flagged.set(word, before);
    return done;
  }
  override store32(gpa: number, value: number): boolean {
    if (this.watching) this.stored.add(gpa - (gpa % 8));
    return super.store32(gpa, value);
  }
  override store64(gpa: number, lo: number, hi: number): boolean {
    if (this.watching) this.stored.add(gpa);
    return super.store64(gpa, lo, hi);
  }
}

/** Our model behind the same operations as a stock machine. */
export class OurMachine {
  readonly memory: WatchedMemory;
  readonly machine: LocalMachine;
  readonly #registers: number;

  constructor({ model, options, registers, ram }: OurOptions) {
    this.memory = new WatchedMemory(ram.map(([base, bytes]) => ({ base, bytes })));
    this.machine = new LocalMachine(this.memory, options, model);
    this.#registers = registers;
  }

  /** {@link WatchedMemory.flagged} and the like are of the last run. */
  run(operations: readonly Operation[]): Answers {
    this.memory.forget();
    const out = new Yield();
    for (const operation of operations) this.#one(operation, out);
    return out;
  }

  #one({ kind, size, who, pasid, address, value }: Operation, out: Yield): void {
    const at = Number(address);
    switch (kind) {
      case OPERATION.STORE:
        this.#store(at, size, value);
        return;
      case OPERATION.LOAD:
        out.loads.push(this.#load(at, size));
        return;
      case OPERATION.ZERO:
        for (let word = at; word < at + Number(value); word += 8) this.memory.store64(word, 0, 0);
        return;
      case OPERATION.TRANSLATE:
        out.translations.push(this.#translate(who, pasid - 1, size, address));
        return;
      case OPERATION.DUMP:
        out.dumps.push(this.#dump(at, Number(value)));
        return;
      case OPERATION.COPY:
        this.#store(Number(value), size, this.#load(at, size));
        return;
      case OPERATION.RESET:
        this.machine.model.reset();
        this.machine.outputs.pending = 0;
        this.machine.outputs.events.length = 0;
        this.machine.outputs.scopes.length = 0;
        this.machine.outputs.interrupts.length = 0;
        return;
      default:
    }
  }

  #register(address: number): number {
    const offset = address - this.#registers;
    return offset >= 0 && offset < this.machine.registerBytes ? offset : -1;
  }

  #store(address: number, size: number, value: bigint): void {
    const register = this.#register(address);
    if (register >= 0) {
      this.memory.watching = true;
      this.machine.writeRegister(register, size, value);
      this.memory.watching = false;
    } else if (size === 8) {
      this.memory.store64(address, Number(value & 0xffff_ffffn) | 0, Number(value >> 32n) | 0);
    } else this.memory.store32(address, Number(value) | 0);
  }

  #load(address: number, size: number): bigint {
    const register = this.#register(address);
    if (register >= 0) return this.machine.readRegister(register, size === 8 ? 8 : 4);
    const word = this.memory.peek(address - (address % 8)) ?? 0n;
    return size === 8 ? word : (word >> BigInt((address % 8) * 8)) & 0xffff_ffffn;
  }

  #translate(rid: number, pasid: number, access: number, address: bigint): Translated {
    this.memory.watching = true;
    const { status, spans } = this.machine.ask(rid, pasid, access, address);
    this.memory.watching = false;
    if (status !== TRANSLATE_STATUS.OK) return REFUSED;
    const [inLo, inHi, outLo, outHi, log2, permissions] = spans.subarray(0, SPAN_WORDS);
    return {
      input: (BigInt(inHi) << 32n) | BigInt(inLo),
      output: (BigInt(outHi) << 32n) | BigInt(outLo),
      mask: (1n << BigInt(log2)) - 1n,
      permissions: permissions & 3,
    };
  }

  #dump(address: number, bytes: number): Uint8Array {
    const out = new Uint8Array(bytes);
    const view = new DataView(out.buffer);
    for (let at = 0; at < bytes; at += 8) {
      if (!this.memory.load64(address + at)) continue;
      view.setInt32(at, this.memory.lo, true);
      view.setInt32(at + 4, this.memory.hi, true);
    }
    return out;
  }
}
