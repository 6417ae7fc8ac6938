/**
 * What the oracle does to a machine, stock or ours: small operations on the system's address space
 * and requests of devices. The binary form is that of test/shim/oracle.c.
 */

export const OPERATION = {
  STORE: 1,
  LOAD: 2,
  ZERO: 3,
  TRANSLATE: 4,
  DUMP: 5,
  RESET: 6,
  BUS: 7,
  COPY: 8,
} as const;

export interface Operation {
  readonly kind: number;
  /** Bytes of a load or store, 1 to 8; ACCESS bits of a request. */
  readonly size: number;
  /** Requester id; the number of the second bus for BUS. */
  readonly who: number;
  /** PASID + 1; 0 = without. */
  readonly pasid: number;
  readonly address: bigint;
  /** The value to store; bytes of ZERO and DUMP; where COPY stores. */
  readonly value: bigint;
}

export interface Translated {
  /** Base of the block that was translated, and of where it is. */
  readonly input: bigint;
  readonly output: bigint;
  /** Size of the block less one. */
  readonly mask: bigint;
  /** ACCESS bits; 0 = refused. */
  readonly permissions: number;
}

/** A machine that is asked one thing at a time, or has been: both sides are read through this. */
export interface Answers {
  load(): bigint;
  translated(): Translated;
  dump(): Uint8Array;
}

const PLAIN = { size: 0, who: 0, pasid: 0, address: 0n, value: 0n } as const;

export function store(address: number, size: number, value: bigint): Operation {
  return { ...PLAIN, kind: OPERATION.STORE, size, address: BigInt(address), value };
}

export function load(address: number, size: number): Operation {
  return { ...PLAIN, kind: OPERATION.LOAD, size, address: BigInt(address) };
}

export function zero(address: number, bytes: number): Operation {
  return { ...PLAIN, kind: OPERATION.ZERO, address: BigInt(address), value: BigInt(bytes) };
}

export function translate(rid: number, pasid: number, access: number, address: bigint): Operation {
  return { ...PLAIN, kind: OPERATION.TRANSLATE, size: access, who: rid, pasid: pasid + 1, address };
}

export function dump(address: number, bytes: number): Operation {
  return { ...PLAIN, kind: OPERATION.DUMP, address: BigInt(address), value: BigInt(bytes) };
}

export const reset: Operation = { ...PLAIN, kind: OPERATION.RESET };

export function secondBus(number: number): Operation {
  return { ...PLAIN, kind: OPERATION.BUS, who: number };
}

export function copy(from: number, to: number, size: number): Operation {
  return { ...PLAIN, kind: OPERATION.COPY, size, address: BigInt(from), value: BigInt(to) };
}

const OPERATION_BYTES = 32;

/** A batch as the shim takes it. */
export function encode(operations: readonly Operation[]): Buffer {
  const out = Buffer.alloc(4 + operations.length * OPERATION_BYTES);
  out.writeUInt32LE(operations.length, 0);
  let at = 4;
  for (const { kind, size, who, pasid, address, value } of operations) {
    out.writeUInt32LE(kind, at);
    out.writeUInt32LE(size, at + 4);
    out.writeUInt32LE(who, at + 8);
    out.writeUInt32LE(pasid, at + 12);
    out.writeBigUInt64LE(BigInt.asUintN(64, address), at + 16);
    out.writeBigUInt64LE(BigInt.asUintN(64, value), at + 24);
    at += OPERATION_BYTES;
  }
  return out;
}

/** What a batch yielded, read in its order. */
export class BatchAnswers implements Answers {
  readonly #data: Buffer;
  readonly #sizes: readonly number[];
  #nextSize: number;
  #at = 0;

  /** `sizes`: bytes of each DUMP, in order. */
  constructor(data: Buffer, sizes: readonly number[], nextSize = 0) {
    this.#data = data;
    this.#sizes = sizes;
    this.#nextSize = nextSize;
  }

  load(): bigint {
    this.#at += 8;
    return this.#data.readBigUInt64LE(this.#at - 8);
  }

  translated(): Translated {
    const [input, output, mask, permissions] = [this.load(), this.load(), this.load(), this.load()];
    return { input, output, mask, permissions: Number(permissions) };
  }

  dump(): Uint8Array {
    const bytes = this.#sizes[this.#nextSize++];
    this.#at += bytes;
    return this.#data.subarray(this.#at - bytes, this.#at);
  }
}

export function dumpSizes(operations: readonly Operation[]): number[] {
  return operations.filter(({ kind }) => kind === OPERATION.DUMP).map(({ value }) => Number(value));
}
