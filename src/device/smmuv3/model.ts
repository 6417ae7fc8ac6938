/** The SMMUv3: puts its parts together and takes the session's calls. Arm IHI 0070. */
import type { GuestMemory } from '../../memory/port.js';
import {
  AIDR,
  CMDQ_PROD,
  CR0,
  EVENTQ_CONS,
  EVENTQ_PROD,
  GBPA,
  GERRORN,
  IDR0,
  IDR1,
  IDR3,
  IDR5,
  IRQ_CTRL,
  PAGE_1,
  SMMU_REGISTER_BYTES,
  SMMU_REGISTERS,
} from '../../spec/smmuv3/registers.js';
import {
  type DumpNode,
  type DumpOptions,
  type InvalidateScope,
  type Iommu,
  type IommuOutputs,
  type ModelCounters,
  type TranslateRequest,
  type TranslateResult,
  zeroCounters,
} from '../iommu.js';
import { RegisterFile, type RegisterListener } from '../registers.js';
import { refuse } from '../spans.js';
import { CommandQueue } from './command-queue.js';
import { aidr, idr0, idr1, idr3, idr5, type SmmuConfig } from './config.js';
import { Control } from './control.js';
import { Dumper } from './dump.js';
import { EventQueue } from './event-queue.js';
import { ABORTED, OK } from './fault.js';
import { Formats } from './formats.js';
import { GlobalErrors } from './global-errors.js';
import { Interrupts } from './interrupts.js';
import { Invalidator } from './invalidation.js';
import { Lookup } from './lookup.js';
import { Survey } from './survey.js';
import { Translator } from './translate.js';

/** Where page 0 shows the registers of page 1. §6.1 */
const ALIASED: readonly number[] = [EVENTQ_PROD.offset, EVENTQ_CONS.offset];

export class SmmuModel implements Iommu, RegisterListener {
  readonly model = 'smmuv3';
  readonly registerBytes = SMMU_REGISTER_BYTES;
  readonly counters: ModelCounters = zeroCounters();
  readonly answersMayBeKept: boolean;
  private readonly file: RegisterFile;
  private readonly lookup: Lookup;
  private readonly translator: Translator;
  private readonly events: EventQueue;
  private readonly queue: CommandQueue;
  private readonly control: Control;
  private readonly survey: Survey;
  private readonly dumper: Dumper;

  constructor(
    config: SmmuConfig,
    memory: GuestMemory,
    registers: Uint32Array,
    private readonly outputs: IommuOutputs,
  ) {
    const { counters } = this;
    this.answersMayBeKept = config.cachePolicy !== 'none';
    const formats = new Formats(config);
    this.file = new RegisterFile(registers, SMMU_REGISTERS, 4);
    identify(this.file, config);
    const interrupts = new Interrupts(this.file, memory, outputs, counters);
    const errors = new GlobalErrors(this.file, interrupts);
    this.lookup = new Lookup(config, formats, this.file, memory);
    this.translator = new Translator(config, formats, this.lookup, memory, counters);
    this.events = new EventQueue(this.file, memory, interrupts, errors, outputs, counters);
    const invalidator = new Invalidator(this.lookup, this.translator, outputs, counters);
    this.queue = new CommandQueue(
      config,
      this.file,
      memory,
      invalidator,
      errors,
      interrupts,
      outputs,
      counters,
    );
    this.control = new Control(this.file, invalidator, this.queue, outputs);
    this.survey = new Survey(config, formats, this.lookup, memory);
    this.dumper = new Dumper(config, formats, this.file, this.lookup, memory);
    this.reset();
  }

  /** See {@link Iommu.reset}. Tells nobody outside: the session does. */
  reset(): void {
    this.lookup.invalidateAll();
    this.translator.reset();
    this.events.reset();
    this.queue.reset();
    this.file.reset();
  }

  /** See {@link Iommu.writeRegister}. §6.2: words and doublewords, aligned. */
  writeRegister(offset: number, size: number, lo: number, hi: number): void {
    const whole = (size === 4 || size === 8) && offset % size === 0;
    if (!whole || offset < 0 || offset + size > SMMU_REGISTER_BYTES) {
      const detail = `${size} bytes at 0x${offset.toString(16)}`;
      this.outputs.event({ kind: 'invalidation', name: 'register write ignored', detail });
      return;
    }
    this.writeWord(offset, lo);
    if (size === 8) this.writeWord(offset + 4, hi);
  }

  private writeWord(offset: number, value: number): void {
    const at = ALIASED.includes(offset + PAGE_1) ? offset + PAGE_1 : offset;
    if (!this.control.ignores(at, value)) this.file.write(at, 4, value, 0, this);
  }

  /** The register file has stored a word for the guest. */
  registerWritten(offset: number, _written: number, before: number): void {
    switch (offset) {
      case CR0.offset:
        this.control.controlWritten(before);
        return;
      case GBPA.offset:
        this.control.bypassWritten();
        return;
      case IRQ_CTRL.offset:
        this.control.interruptControlWritten();
        return;
      case GERRORN.offset:
      case CMDQ_PROD.offset:
        this.queue.kick();
        return;
      case EVENTQ_PROD.offset:
      case EVENTQ_CONS.offset:
        this.file.set(offset - PAGE_1, this.file.get(offset));
        return;
      default:
        return;
    }
  }

  /** See {@link Iommu.translate}. A look without access never records an event. */
  translate(request: TranslateRequest, result: TranslateResult): void {
    this.counters.translations++;
    const { fault } = this.translator;
    if (this.control.enabled) {
      const outcome = this.translator.translate(request, result);
      if (outcome !== OK && request.access !== 0) this.events.record(fault, request);
      return;
    }
    if (!this.control.aborting) {
      this.translator.identity(result);
      return;
    }
    refuse(result);
    fault.clear();
    fault.raise(ABORTED);
    if (request.access !== 0) this.events.record(fault, request);
  }

  /** See {@link Iommu.acknowledged}. */
  acknowledged(): void {
    this.control.publish();
    this.queue.kick();
  }

  /** See {@link Iommu.enumerate}. */
  enumerate(rid: number, pasid: number, lo: number, hi: number, result: TranslateResult): boolean {
    if (!this.control.enabled && this.control.aborting) {
      refuse(result);
      return false;
    }
    return this.survey.enumerate(this.control.enabled, rid, pasid, lo, hi, result);
  }

  /** See {@link Iommu.affected}. */
  affected(scope: InvalidateScope, rids: readonly number[], out: number[]): number {
    return this.survey.affected(this.control.enabled, scope, rids, out);
  }

  /** See {@link Iommu.dump}. */
  dump(options: DumpOptions): DumpNode[] {
    return this.dumper.dump(options);
  }
}

function identify(file: RegisterFile, config: SmmuConfig): void {
  file.setInitial(IDR0.offset, idr0(config)[0]);
  file.setInitial(IDR1.offset, idr1(config)[0]);
  file.setInitial(IDR3.offset, idr3(config)[0]);
  file.setInitial(IDR5.offset, idr5(config)[0]);
  file.setInitial(AIDR.offset, aidr()[0]);
}
