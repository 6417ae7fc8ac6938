/**
 * Commands of the VT-d cases: global commands, and invalidations through registers or the queue.
 * VT-d §6.5, §11.4
 */
import type { Rng } from '../fuzz/rng.js';
import { load, store } from './operations.js';
import { hex, type Script } from './script.js';
import { REG, reg, write } from './vtd-machine.js';

const TYPE = { CONTEXT: 1n, IOTLB: 2n, WAIT: 5n, PASID_IOTLB: 6n, PASID_CACHE: 7n } as const;
const GRANULARITY = { GLOBAL: 1n, DOMAIN: 2n, SELECTIVE: 3n } as const;
const GCMD = { QIE: 1n << 26n, SRTP: 1n << 30n, TE: 1n << 31n } as const;

/** Up to four 64-bit words. */
export type Descriptor = readonly bigint[];

export class Commands {
  readonly #script: Script;
  readonly #rng: Rng;
  #state = 0n;
  #tail = 0;
  #queue = 0;

  constructor(
    script: Script,
    rng: Rng,
    /** Bytes of a descriptor, or none: registers. */
    readonly descriptorBytes: 0 | 16 | 32,
  ) {
    this.#script = script;
    this.#rng = rng;
  }

  get queued(): boolean {
    return this.descriptorBytes !== 0;
  }

  setRoot(root: number, scalable: boolean): void {
    write(this.#script, REG.RTADDR, 8, BigInt(root) | (scalable ? 0x400n : 0n), 'RTADDR');
    this.#command(GCMD.SRTP, 'GCMD.SRTP');
  }

  enableQueue(): void {
    if (!this.queued) return;
    const script = this.#script;
    this.#queue = script.allocate();
    write(script, REG.IQT, 8, 0n, 'IQT');
    write(script, REG.IQA, 8, BigInt(this.#queue) | (this.descriptorBytes === 32 ? 0x800n : 0n), 'IQA');
    this.#state |= GCMD.QIE;
    this.#command(0n, 'GCMD.QIE');
  }

  translation(on: boolean): void {
    this.#state = on ? this.#state | GCMD.TE : this.#state & ~GCMD.TE;
    this.#command(0n, `GCMD.TE ${on ? 'on' : 'off'}`);
  }

  #command(once: bigint, name: string): void {
    const operations = [store(reg(REG.GCMD), 4, this.#state | once), load(reg(REG.GSTS), 4)];
    this.#script.look(name, operations, (answers) => ({ GSTS: answers.load() }));
  }

  // Invalidations, however they are asked for.

  contextGlobal(): void {
    this.#context(GRANULARITY.GLOBAL, 0, 0, 0);
  }

  contextDomain(did: number): void {
    this.#context(GRANULARITY.DOMAIN, did, 0, 0);
  }

  /** `functionMask`: how many function-number bits are ignored. */
  contextDevice(did: number, rid: number, functionMask = 0): void {
    this.#context(GRANULARITY.SELECTIVE, did, rid, functionMask);
  }

  #context(granularity: bigint, did: number, rid: number, functionMask: number): void {
    const name = `context cache ${granularityName(granularity)} did ${did} rid ${hex(rid)} fm ${functionMask}`;
    const [domain, source, mask] = [BigInt(did), BigInt(rid), BigInt(functionMask)];
    if (this.queued) {
      this.submit(name, [
        [TYPE.CONTEXT | (granularity << 4n) | (domain << 16n) | (source << 32n) | (mask << 48n)],
      ]);
      return;
    }
    const value = domain | (source << 16n) | (mask << 32n) | (granularity << 61n) | (1n << 63n);
    this.#script.look(
      `${name} by CCMD`,
      [store(reg(REG.CCMD), 8, value), load(reg(REG.CCMD), 8)],
      (answers) => {
        const now = answers.load();
        return { 'CCMD.ICC': Number(now >> 63n), 'CCMD.CAIG': Number((now >> 59n) & 3n) };
      },
    );
  }

  iotlbGlobal(): void {
    this.#iotlb(GRANULARITY.GLOBAL, 0, 0n, 0);
  }

  iotlbDomain(did: number): void {
    this.#iotlb(GRANULARITY.DOMAIN, did, 0n, 0);
  }

  /** 2^mask pages around an address. */
  iotlbPages(did: number, address: bigint, mask: number): void {
    this.#iotlb(GRANULARITY.SELECTIVE, did, address, mask);
  }

  #iotlb(granularity: bigint, did: number, address: bigint, mask: number): void {
    const name = `IOTLB ${granularityName(granularity)} did ${did} at ${hex(address)} mask ${mask}`;
    const domain = BigInt(did);
    // ADDR, IH clear, AM.
    const pages = (address & ~0xfffn) | BigInt(mask);
    const drain = BigInt(this.#rng.below(4));
    if (this.queued) {
      this.submit(name, [[TYPE.IOTLB | (granularity << 4n) | (drain << 6n) | (domain << 16n), pages]]);
      return;
    }
    const value = (domain << 32n) | (drain << 48n) | (granularity << 60n) | (1n << 63n);
    const operations = [
      store(reg(REG.IVA), 8, pages),
      store(reg(REG.IOTLB), 8, value),
      load(reg(REG.IOTLB), 8),
    ];
    this.#script.look(`${name} by IOTLB`, operations, (answers) => {
      const now = answers.load();
      return { 'IOTLB.IVT': Number(now >> 63n), 'IOTLB.IAIG': Number((now >> 57n) & 3n) };
    });
  }

  pasidCacheGlobal(): void {
    this.submit('PASID cache global', [[TYPE.PASID_CACHE | (3n << 4n)]]);
  }

  pasidCacheDomain(did: number): void {
    this.submit(`PASID cache did ${did}`, [[TYPE.PASID_CACHE | (BigInt(did) << 16n)]]);
  }

  pasidCache(did: number, pasid: number): void {
    const who = (BigInt(did) << 16n) | (BigInt(pasid) << 32n);
    this.submit(`PASID cache did ${did} PASID ${pasid}`, [[TYPE.PASID_CACHE | (1n << 4n) | who]]);
  }

  pasidIotlb(did: number, pasid: number): void {
    const who = (BigInt(did) << 16n) | (BigInt(pasid) << 32n);
    this.submit(`PASID IOTLB did ${did} PASID ${pasid}`, [[TYPE.PASID_IOTLB | (2n << 4n) | who]]);
  }

  pasidIotlbPages(did: number, pasid: number, address: bigint, mask: number): void {
    const who = (BigInt(did) << 16n) | (BigInt(pasid) << 32n);
    const name = `PASID IOTLB did ${did} PASID ${pasid} at ${hex(address)} mask ${mask}`;
    this.submit(name, [[TYPE.PASID_IOTLB | (3n << 4n) | who, (address & ~0xfffn) | BigInt(mask)]]);
  }

  /** A wait descriptor: status write, or interrupt. */
  wait(statusAddress: number | undefined): void {
    if (!this.queued) return;
    const data = BigInt(this.#rng.u32());
    const fence = this.#rng.chance(0.3) ? 0x40n : 0n;
    if (statusAddress === undefined) this.submit('wait, interrupt', [[TYPE.WAIT | 0x10n | fence]]);
    else this.submit('wait, status', [[TYPE.WAIT | 0x20n | fence | (data << 32n), BigInt(statusAddress)]]);
  }

  /** Puts descriptors behind the tail, moves it, and looks at what the queue did. */
  submit(name: string, descriptors: readonly Descriptor[]): void {
    this.put(descriptors);
    this.kick(name);
  }

  put(descriptors: readonly Descriptor[]): void {
    for (const words of descriptors) {
      for (let at = 0; at < this.descriptorBytes / 8; at++) {
        this.#script.store(this.#queue + this.#tail + at * 8, words[at] ?? 0n, 'descriptor');
      }
      this.#tail = (this.#tail + this.descriptorBytes) % 4096;
    }
  }

  /** The last descriptor that was put is this one now. */
  replaceLast(words: Descriptor): void {
    this.#tail = (this.#tail - this.descriptorBytes + 4096) % 4096;
    this.put([words]);
  }

  kick(name: string, tail = this.#tail): void {
    this.#script.look(name, [store(reg(REG.IQT), 8, BigInt(tail)), ...this.#status()], queueStatus);
  }

  /**
   * Software has put things right: clears FSTS.IQE, and moves the tail once more, for the stock
   * model goes on only then.
   */
  recover(): void {
    const tail = store(reg(REG.IQT), 8, BigInt(this.#tail));
    const operations = [tail, store(reg(REG.FSTS), 4, 0x10n), tail];
    this.#script.look('IQE cleared', [...operations, ...this.#status()], queueStatus);
  }

  clearCompletion(): void {
    const operations = [store(reg(REG.ICS), 4, 1n), ...this.#status()];
    this.#script.look('ICS.IWC cleared', operations, queueStatus);
  }

  #status() {
    return [load(reg(REG.IQH), 8), load(reg(REG.FSTS), 4), load(reg(REG.ICS), 4), load(reg(REG.IECTL), 4)];
  }
}

function queueStatus(answers: { load(): bigint }) {
  const [head, faults, completion, control] = [
    answers.load(),
    answers.load(),
    answers.load(),
    answers.load(),
  ];
  return {
    IQH: head,
    'FSTS.IQE': Number((faults >> 4n) & 1n),
    'ICS.IWC': Number(completion & 1n),
    'IECTL.IP': Number((control >> 30n) & 1n),
  };
}

function granularityName(granularity: bigint): string {
  return granularity === 1n
    ? 'global'
    : granularity === 2n
      ? 'domain'
      : granularity === 3n
        ? 'selective'
        : 'reserved';
}
