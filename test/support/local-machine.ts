import { join } from '../../src/base/u64.js';
import {
  DEVICE_TLB,
  emptyResult,
  type InvalidateScope,
  type Iommu,
  type IommuOutputs,
  type ModelEvent,
  REQUEST,
  SPAN_WORDS,
  TRANSLATE_STATUS,
  type TranslateRequest,
  type TranslateResult,
} from '../../src/device/iommu.js';
import { createModel, modelRegisterBytes } from '../../src/device/models.js';
import type { PasidSpace } from '../../src/device/pasid-space.js';
import type { GuestMemory } from '../../src/memory/guest-memory.js';
import type {
  BusAnswer,
  BusPageRequest,
  BusPageResponse,
  DropHandler,
  GuestRam,
  Machine,
  MsiWrite,
  Translation,
} from '../../src/sim/machine.js';
import { throughSpan } from '../../src/sim/sim-iotlb.js';
import { DeviceOutputs } from './device-outputs.js';

/** The guest's own hand on the memory that the model reads through its port. */
export class PortRam implements GuestRam {
  /** Called before and after each store. */
  beforeStore: (gpa: number) => void = () => {};
  afterStore: (gpa: number, bytes: number) => void = () => {};

  constructor(readonly memory: GuestMemory) {}

  load32(gpa: number): number {
    this.#need(this.memory.load32(gpa), gpa);
    return this.memory.lo;
  }
  store32(gpa: number, value: number): void {
    this.beforeStore(gpa);
    this.#need(this.memory.store32(gpa, value), gpa);
    this.afterStore(gpa, 4);
  }
  load64(gpa: number): bigint {
    this.#need(this.memory.load64(gpa), gpa);
    return (BigInt(this.memory.hi >>> 0) << 32n) | BigInt(this.memory.lo >>> 0);
  }
  store64(gpa: number, value: bigint): void {
    const hi = Number((value >> 32n) & 0xffff_ffffn);
    this.beforeStore(gpa);
    this.#need(this.memory.store64(gpa, Number(value & 0xffff_ffffn), hi), gpa);
    this.afterStore(gpa, 8);
  }
  contains(gpa: number, bytes: number): boolean {
    return this.memory.contains(gpa, bytes);
  }
  #need(done: boolean, gpa: number): void {
    if (!done) throw new RangeError(`no RAM at 0x${gpa.toString(16)}`);
  }
}

export function newResult(): TranslateResult {
  return emptyResult();
}

/**
 * The world of a model that is called directly. Acknowledgements come at once, or when {@link ack}
 * is called.
 */
export class LocalOutputs extends DeviceOutputs implements IommuOutputs {
  readonly interrupts: MsiWrite[] = [];
  readonly edges: number[] = [];
  readonly events: ModelEvent[] = [];
  readonly scopes: InvalidateScope[] = [];
  /** Counted, and left unanswered, while set. */
  holdAcks = false;
  pending = 0;
  onInvalidate: (scope: InvalidateScope) => void = () => {};

  invalidate(scope: InvalidateScope): void {
    this.scopes.push({ ...scope });
    this.onInvalidate(scope);
    this.pending++;
  }
  pendingAcks(): number {
    return this.pending;
  }
  interrupt(addressLo: number, addressHi: number, data: number): void {
    this.interrupts.push({ address: join(addressLo, addressHi), data });
  }
  wire(line: number): void {
    this.edges.push(line);
  }
  event(event: ModelEvent): void {
    this.events.push(event);
  }
}

/** A machine whose IOMMU is called directly: no wire, no session, no cache outside of the model. */
export class LocalMachine implements Machine {
  readonly ram: PortRam;
  readonly outputs = new LocalOutputs();
  readonly registers: Uint32Array;
  readonly registerBytes: number;
  readonly model: Iommu;
  readonly #request: TranslateRequest = {
    ...{ rid: 0, pasid: 0, access: 0, lo: 0, hi: 0 },
    ...{ kind: 0, mayStall: false },
  };
  readonly result = newResult();

  constructor(
    readonly memory: GuestMemory,
    options: Readonly<Record<string, string>> = {},
    name = 'vtd',
    pasids?: PasidSpace,
    registers: Uint32Array = new Uint32Array(modelRegisterBytes(name) / 4),
  ) {
    this.ram = new PortRam(memory);
    this.registerBytes = modelRegisterBytes(name);
    this.registers = registers;
    const { outputs } = this;
    this.model = createModel(name, options, { memory, registers, outputs, ...(pasids && { pasids }) });
  }

  readonly deviceTlbs = new Map<number, DropHandler>();
  readonly resumes = new Map<number, number>();
  readonly pageResponses: BusPageResponse[] = [];

  get interrupts(): MsiWrite[] {
    return this.outputs.interrupts;
  }

  get edges(): number[] {
    return this.outputs.edges;
  }

  readRegister(offset: number, size: 4 | 8): bigint {
    const low = BigInt(this.registers[offset / 4] >>> 0);
    return size === 4 ? low : (BigInt(this.registers[offset / 4 + 1] >>> 0) << 32n) | low;
  }

  writeRegister(offset: number, size: number, value: bigint): void {
    const lo = Number(value & 0xffff_ffffn);
    this.model.writeRegister(offset, size, lo, Number((value >> 32n) & 0xffff_ffffn));
    if (!this.outputs.holdAcks) this.ack();
  }

  /** Answers every invalidation that the model has asked for; what follows from that, too. */
  ack(): boolean {
    let some = false;
    for (let round = 0; this.outputs.pending > 0 && round < 100_000; round++) {
      this.outputs.pending = 0;
      this.model.acknowledged();
      some = true;
    }
    return some;
  }

  translate(rid: number, pasid: number, access: number, address: bigint): Translation | undefined {
    this.ask(rid, pasid, access, address);
    if (this.result.status !== TRANSLATE_STATUS.OK) return undefined;
    return throughSpan(Array.from(this.result.spans.subarray(0, SPAN_WORDS)), 0, address);
  }

  request(
    rid: number,
    pasid: number,
    access: number,
    address: bigint,
    kind: number,
    mayStall: boolean,
  ): BusAnswer {
    const { status, stall, count, spans } = this.ask(rid, pasid, access, address, kind, mayStall);
    const once = kind === REQUEST.TRANSLATED || !this.model.answersMayBeKept;
    return { status, stall, span: count === 0 ? [] : Array.from(spans.subarray(0, SPAN_WORDS)), once };
  }

  requestPage({ rid, pasid, access, address, group, last }: BusPageRequest): void {
    const lo = Number(address & 0xffff_ffffn);
    const hi = Number((address >> 32n) & 0xffff_ffffn);
    this.model.devices?.pageRequest?.({ rid, pasid, access, lo, hi, group, last });
    this.tellDevices();
  }

  /** What the model has told devices reaches them, and their answers the model. */
  tellDevices(): boolean {
    const { resumed, pageResponses, deviceTlbs } = this.outputs;
    const some = resumed.length + pageResponses.length + deviceTlbs.length > 0;
    for (const { stall, action } of resumed.splice(0)) this.resumes.set(stall, action);
    this.pageResponses.push(...pageResponses.splice(0));
    for (let round = 0; deviceTlbs.length > 0 && round < 100_000; round++) {
      const { tag, rid, pasid, lo, hi, log2Size, global } = deviceTlbs.splice(0, 1)[0];
      const address = (BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0);
      const result = this.deviceTlbs.get(rid)?.({ pasid, address, log2Size, global });
      this.model.devices?.invalidated(tag, result ?? DEVICE_TLB.UNSUPPORTED);
    }
    return some;
  }

  /** One request; the answer is in {@link result}. */
  ask(
    rid: number,
    pasid: number,
    access: number,
    address: bigint,
    kind: number = REQUEST.UNTRANSLATED,
    mayStall = false,
  ): TranslateResult {
    const lo = Number(address & 0xffff_ffffn);
    const hi = Number((address >> 32n) & 0xffff_ffffn);
    this.model.translate(
      Object.assign(this.#request, { rid, pasid, access, lo, hi, kind, mayStall }),
      this.result,
    );
    return this.result;
  }

  idle(): boolean {
    const delivered = this.tellDevices();
    return this.outputs.holdAcks ? delivered : this.ack() || delivered;
  }
}
