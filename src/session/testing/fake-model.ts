/**
 * A model as small as can be, for tests of the session: one register page that stores what is
 * written, an identity translation that can be revoked, and a completion that is published only
 * when nothing is pending.
 */

import { CodedError } from '../../base/errors.js';
import { ANY, NO_PASID } from '../../base/ids.js';
import { PAGE_BYTES, PAGE_OFFSET } from '../../base/page.js';
import { type ModelCounters, zeroCounters } from '../../device/counters.js';
import {
  ACCESS,
  type DeviceView,
  type DumpView,
  type Iommu,
  type IommuOutputs,
  type SpacesView,
  type SurveyView,
  TRANSLATE_STATUS,
  type TranslateRequest,
  type TranslateResult,
} from '../../device/iommu.js';
import type { ModelPorts } from '../../device/models.js';
import type { GuestMemory } from '../../memory/guest-memory.js';
import type { ModelFactory } from '../ports.js';

/** Byte offsets of the registers that do something; all others just store. */
export const FAKE = {
  /** Translations answer with input + this many pages. */
  OFFSET: 0x00,
  /**
   * Invalidates the space that is written, then completes: {@link STATUS} becomes the value of
   * {@link TOKEN}.
   */
  INVALIDATE: 0x04,
  TOKEN: 0x08,
  STATUS: 0x0c,
  /** Raises an interrupt to 0xfee00000 with the data written. */
  INTERRUPT: 0x10,
  /** Copies the 32-bit word at the address written to STATUS, and adds 1 to it in memory (cas). */
  PEEK: 0x14,
  /** 64-bit load at the address written; halves to 0x20 and 0x24. */
  PEEK64: 0x18,
  VALUE: 0x20,
  /** Throws. */
  FAIL: 0x28,
  /** The space that answers are tagged with. */
  SPACE: 0x2c,
  /** Sends this many invalidations of one page each of the present space. */
  FLOOD: 0x30,
  /** On a completion: also load the word at this address (0 = don't) to {@link VALUE}. */
  THEN_PEEK: 0x34,
  /** An edge on the unit's own output of this number. */
  WIRE: 0x38,
  /** Sends an ATS invalidation request for the requester that is written. */
  DEVICE_TLB: 0x3c,
  /**
   * What devices have said, a decimal digit each: 1 a page request, 2 the end of an invalidation
   * request.
   */
  HEARD: 0x40,
  /**
   * When an invalidation request ends: invalidates space 1, then loads the word at this address (0
   * = neither).
   */
  THEN_INVALIDATE: 0x44,
  BYTES: 4096,
} as const;

export class FakeModel implements Iommu {
  readonly model = 'vtd';
  readonly registerBytes = FAKE.BYTES;
  answersMayBeKept = true;
  readonly counters: ModelCounters = zeroCounters();
  readonly dumper: DumpView = { dump: () => [{ label: 'OFFSET', raw: String(this.#registers[0]) }] };
  readonly survey: SurveyView = {
    enumerate: (_rid, _pasid, lo, _hi, result) => {
      result.count = 1;
      result.space = this.#registers[FAKE.SPACE / 4] as number;
      result.sub = ANY;
      result.spans.set([lo, 0, lo, 0, 12, 3], 0);
      return lo < 0x3000;
    },
  };
  spaces: SpacesView = { concerns: () => true };
  readonly #registers: Uint32Array;
  readonly #memory: GuestMemory;
  readonly #outputs: IommuOutputs;
  #waiting: number | undefined;

  constructor(ports: ModelPorts) {
    this.#registers = ports.registers;
    this.#memory = ports.memory;
    this.#outputs = ports.outputs;
    this.#registers.fill(0);
    this.#registers[FAKE.SPACE / 4] = 1;
  }

  writeRegister(offset: number, size: number, lo: number, _hi: number): void {
    const registers = this.#registers;
    if (size === 4 && offset % 4 === 0) registers[offset / 4] = lo;
    if (offset === FAKE.INVALIDATE) this.#invalidate(lo);
    else if (offset === FAKE.INTERRUPT) this.#outputs.interrupt(0xfee0_0000, 0, lo);
    else if (offset === FAKE.WIRE) this.#outputs.wire?.(lo);
    else if (offset === FAKE.PEEK) this.#peek(lo);
    else if (offset === FAKE.PEEK64) this.#peek64(lo);
    else if (offset === FAKE.FAIL) throw new Error('a defect of the fake model');
    else if (offset === FAKE.FLOOD) this.#flood(lo);
    else if (offset === FAKE.DEVICE_TLB) this.#outputs.invalidateDeviceTlb(1, lo, -1, 0, 0, 64, false);
  }

  translate(request: TranslateRequest, result: TranslateResult): void {
    this.counters.translations++;
    result.space = this.#registers[FAKE.SPACE / 4] as number;
    result.sub = ANY;
    if (request.hi >= 0x8000_0000) {
      this.counters.faults++;
      result.status = TRANSLATE_STATUS.FAULT;
      result.count = 0;
      this.#outputs.event({
        kind: 'fault',
        ...{ rid: request.rid, pasid: request.pasid, reason: 5, name: 'FAKE', recorded: true },
        ...{ lo: request.lo, hi: request.hi, access: request.access },
      });
      return;
    }
    const page = (request.lo & ~PAGE_OFFSET) >>> 0;
    const offset = (this.#registers[FAKE.OFFSET / 4] as number) * PAGE_BYTES;
    result.status = TRANSLATE_STATUS.OK;
    result.count = 2;
    result.spans.set(
      [page, request.hi, (page + offset) >>> 0, request.hi, 12, ACCESS.READ | ACCESS.WRITE],
      0,
    );
    result.spans.set(
      [(page + PAGE_BYTES) >>> 0, request.hi, (page + PAGE_BYTES + offset) >>> 0, request.hi, 12, 3],
      6,
    );
  }

  acknowledged(): void {
    if (this.#waiting === undefined) return;
    this.#registers[FAKE.STATUS / 4] = this.#waiting;
    this.#waiting = undefined;
    const address = this.#registers[FAKE.THEN_PEEK / 4] as number;
    if (address !== 0) this.#peek64(address);
  }

  reset(): void {
    this.#registers.fill(0);
    this.#registers[FAKE.SPACE / 4] = 1;
    this.#waiting = undefined;
  }

  #invalidate(space: number): void {
    this.#waiting = this.#registers[FAKE.TOKEN / 4] as number;
    this.#outputs.invalidate({ space, sub: ANY, rid: ANY, pasid: ANY, lo: 0, hi: 0, log2Size: 64 });
    if (this.#outputs.pendingAcks() === 0) this.acknowledged();
  }

  #flood(count: number): void {
    const space = this.#registers[FAKE.SPACE / 4] as number;
    for (let i = 0; i < count; i++) {
      this.#outputs.invalidate({
        space,
        sub: ANY,
        rid: ANY,
        pasid: NO_PASID,
        lo: i * PAGE_BYTES,
        hi: 0,
        log2Size: 12,
      });
    }
    this.#waiting = this.#registers[FAKE.TOKEN / 4] as number;
    if (this.#outputs.pendingAcks() === 0) this.acknowledged();
  }

  #peek(address: number): void {
    const memory = this.#memory;
    const there = memory.load32(address);
    this.#registers[FAKE.STATUS / 4] = there ? memory.lo : 0xdead;
    if (there) memory.cas32(address, memory.lo, memory.lo + 1);
  }

  #peek64(address: number): void {
    const there = this.#memory.load64(address);
    this.#registers[FAKE.VALUE / 4] = there ? this.#memory.lo : 0xdead;
    this.#registers[FAKE.VALUE / 4 + 1] = there ? this.#memory.hi : 0xdead;
  }
}

/** Keeps in which order devices were heard. */
class HearingModel extends FakeModel {
  readonly devices: DeviceView = {
    pageRequest: () => this.#hear(1),
    invalidated: () => this.#invalidated(),
  };
  readonly #heard: Uint32Array;
  readonly #registers: Uint32Array;

  constructor(ports: ModelPorts) {
    super(ports);
    this.#registers = ports.registers;
    this.#heard = ports.registers.subarray(FAKE.HEARD / 4, FAKE.HEARD / 4 + 1);
  }

  #invalidated(): void {
    this.#hear(2);
    const address = this.#registers[FAKE.THEN_INVALIDATE / 4] as number;
    if (address === 0) return;
    this.writeRegister(FAKE.INVALIDATE, 4, 1, 0);
    this.writeRegister(FAKE.PEEK64, 4, address, 0);
  }

  #hear(what: number): void {
    this.#heard[0] = (this.#heard[0] as number) * 10 + what;
  }
}

/** Knows two models, `fake` and `hearing`, with one option. */
export const fakeModels: ModelFactory = {
  createModel(name, options, ports) {
    fakeModels.modelRegisterBytes(name);
    for (const option of Object.keys(options)) {
      if (option !== 'caching-mode') throw new CodedError('BAD_OPTION', `option ${option}`);
    }
    return name === 'hearing' ? new HearingModel(ports) : new FakeModel(ports);
  },
  modelRegisterBytes(name) {
    if (name !== 'fake' && name !== 'hearing') throw new CodedError('UNKNOWN_MODEL', `model "${name}"`);
    return FAKE.BYTES;
  },
};

export { fakeModels as models };
