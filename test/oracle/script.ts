import { type Answers, type Operation, store } from './operations.js';

/** Named values that a step shows of one side; numbers are compared, text is for people too. */
export type Outcome = Readonly<Record<string, string | number | bigint>>;

export interface Request {
  readonly rid: number;
  /** −1 = without PASID. */
  readonly pasid: number;
  readonly access: number;
  readonly address: bigint;
}

/** One thing done to both sides, and what is compared of it. */
export interface Step {
  readonly text: string;
  readonly operations: readonly Operation[];
  /** Reads what the operations yielded. Without it nothing is compared. */
  readonly look?: (answers: Answers) => Outcome;
  readonly request?: Request;
  /** What the request leaves in registers is there for the next one to meet. */
  readonly keeps?: true;
  /** A store to RAM: too many of them to show unless asked. */
  readonly table?: true;
}

/**
 * The tables and commands of one case, as they are written. Both sides start with zeroed memory and
 * after reset.
 */
export class Script {
  readonly #arenaBytes: number;
  readonly steps: Step[] = [];
  /** Pages given out so far. */
  used = 0;
  /** Number of the second bus. */
  bus = 1;
  readonly #image = new Map<number, bigint>();

  constructor(
    readonly arena: number,
    arenaBytes: number,
  ) {
    this.#arenaBytes = arenaBytes;
  }

  /** Zeroed RAM, aligned to its size or to `align` bytes. */
  allocate(bytes = 4096, align = Math.max(4096, bytes)): number {
    const base = Math.ceil((this.arena + this.used) / align) * align;
    this.used = base + Math.ceil(bytes / 4096) * 4096 - this.arena;
    if (this.used > this.#arenaBytes) throw new Error('a case uses more memory than it may');
    return base;
  }

  /** A 64-bit word as the script last stored it. */
  word(address: number): bigint {
    return this.#image.get(address) ?? 0n;
  }

  store(address: number, value: bigint, what: string): void {
    const bits = BigInt.asUintN(64, value);
    this.#image.set(address, bits);
    const text = `${what} at ${hex(address)} = ${hex(bits)}`;
    this.steps.push({ text, operations: [store(address, 8, bits)], table: true });
  }

  do(text: string, operations: readonly Operation[]): void {
    this.steps.push({ text, operations });
  }

  look(text: string, operations: readonly Operation[], look: (answers: Answers) => Outcome): void {
    this.steps.push({ text, operations, look });
  }
}

export function hex(value: number | bigint): string {
  return `0x${value.toString(16)}`;
}

export function show(request: Request): string {
  const { rid, pasid, access, address } = request;
  const who = `${hex(rid)}${pasid < 0 ? '' : ` PASID ${hex(pasid)}`}`;
  return `${access === 1 ? 'read' : access === 2 ? 'write' : `access ${access}`} by ${who} at ${hex(address)}`;
}
