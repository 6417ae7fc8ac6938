/** The SMMUv3: puts its parts together and takes the session's calls. Arm IHI 0070. */
import type { GuestMemory } from '../../memory/guest-memory.js';
import {
  AIDR,
  CR0,
  CR0ACK,
  IDR0,
  IDR1,
  IDR3,
  IDR5,
  IRQ_CTRL,
  IRQ_CTRLACK,
  PRIQ_BASE,
  PRIQ_CONS,
  PRIQ_IRQ_CFG0,
  PRIQ_IRQ_CFG1,
  PRIQ_IRQ_CFG2,
  PRIQ_PROD,
  SMMU_REGISTER_BYTES,
  SMMU_REGISTERS,
} from '../../spec/smmuv3/registers.js';
import { VIRTUAL_COMMAND_REGISTERS } from '../../spec/smmuv3/virtual-commands.js';
import { type ModelCounters, zeroCounters } from '../counters.js';
import {
  type DeviceView,
  type DumpView,
  type Iommu,
  type IommuOutputs,
  type PasidView,
  type PeerWalkView,
  REQUEST,
  type SpacesView,
  type SurveyView,
  TRANSLATE_STATUS,
  type TranslateRequest,
  type TranslateResult,
} from '../iommu.js';
import type { NestedView } from '../nested-view.js';
import { OwnedPasids } from '../pasid-commands.js';
import { type PasidSpace, PrivatePasids } from '../pasid-space.js';
import type { PeerQueue } from '../peer-queue.js';
import { RegisterFile } from '../registers.js';
import { refuse } from '../spans.js';
import { SmmuAddressSpaces } from './address-space.js';
import { Ats } from './ats.js';
import { CommandQueue } from './command-queue.js';
import { aidr, idr0, idr1, idr3, idr5, type SmmuConfig } from './config.js';
import { Control } from './control.js';
import { DeviceInvalidations } from './device-invalidations.js';
import { SmmuDumper } from './dump.js';
import { EventQueue } from './event-queue.js';
import { ABORTED, type Fault, OK } from './fault.js';
import { SmmuFormats } from './formats.js';
import { GlobalErrors } from './global-errors.js';
import { Interrupts } from './interrupts.js';
import { SmmuInvalidator } from './invalidation.js';
import { SmmuLookup } from './lookup.js';
import { SmmuNestedView } from './nested-view.js';
import { SmmuPageRequests } from './page-requests.js';
import { SmmuPeerQueue } from './peer-queue.js';
import { Stalls } from './stalls.js';
import { Streams } from './streams.js';
import { SmmuSurvey } from './survey.js';
import { SmmuTranslator } from './translate.js';
import { identifyVirtualCommands, SmmuVirtualCommand } from './virtual-command.js';
import { Walks } from './walks.js';

/** Registers that exist with IDR0.PRI only. */
const PRI_REGISTERS = [PRIQ_BASE, PRIQ_PROD, PRIQ_CONS, PRIQ_IRQ_CFG0, PRIQ_IRQ_CFG1, PRIQ_IRQ_CFG2] as const;

export class SmmuModel implements Iommu {
  readonly #outputs: IommuOutputs;
  readonly model = 'smmuv3';
  readonly registerBytes = SMMU_REGISTER_BYTES;
  readonly counters: ModelCounters = zeroCounters();
  readonly answersMayBeKept: boolean;
  readonly #file: RegisterFile;
  readonly #lookup: SmmuLookup;
  readonly #streams: Streams;
  readonly #walks: Walks;
  readonly #translator: SmmuTranslator;
  readonly #ats: Ats;
  readonly #events: EventQueue;
  readonly #stalls: Stalls;
  readonly #deviceInvalidations: DeviceInvalidations;
  readonly #queue: CommandQueue;
  readonly #control: Control;
  readonly #virtualCommand: SmmuVirtualCommand | undefined;
  readonly dumper: DumpView;
  readonly survey: SurveyView;
  readonly spaces: SpacesView;
  readonly devices: DeviceView;
  readonly pasids: PasidView | undefined;
  readonly nested: NestedView;
  readonly peerWalk: PeerWalkView;
  readonly peerQueue: PeerQueue;

  constructor(
    config: SmmuConfig,
    memory: GuestMemory,
    registers: Uint32Array,
    outputs: IommuOutputs,
    pasids?: PasidSpace,
  ) {
    this.#outputs = outputs;
    const { counters } = this;
    this.answersMayBeKept = config.cachePolicy !== 'none';
    const formats = new SmmuFormats(config);
    const virtual = config.virtualCommands ? VIRTUAL_COMMAND_REGISTERS : [];
    this.#file = new RegisterFile(registers, [...SMMU_REGISTERS, ...virtual], 4);
    identify(this.#file, config);
    const file = this.#file;
    const interrupts = new Interrupts(file, memory, outputs, counters);
    const errors = new GlobalErrors(file, interrupts);
    const owned = config.virtualCommands ? new OwnedPasids(config.ssidBits) : undefined;
    this.#lookup = new SmmuLookup(config, formats, file, memory, owned);
    const lookup = this.#lookup;
    this.#streams = new Streams(config, formats, lookup);
    this.#walks = new Walks(config, memory, counters);
    const streams = this.#streams;
    const walks = this.#walks;
    this.#translator = new SmmuTranslator(config, streams, walks, memory, counters);
    this.#ats = new Ats(config, formats, file, lookup, streams, walks, this.#translator);
    this.#events = new EventQueue(file, memory, interrupts, errors, outputs, counters);
    this.#stalls = new Stalls(this.#events, outputs);
    const invalidator = new SmmuInvalidator(lookup, walks, outputs, counters);
    this.#deviceInvalidations = new DeviceInvalidations(config, outputs);
    const stalls = this.#stalls;
    const deviceInvalidations = this.#deviceInvalidations;
    this.#queue = new CommandQueue(
      config,
      file,
      memory,
      invalidator,
      deviceInvalidations,
      stalls,
      errors,
      interrupts,
      outputs,
      counters,
    );
    const queue = this.#queue;
    errors.acknowledged = () => {
      queue.kick();
      stalls.writeRecords();
    };
    this.#control = new Control(file, invalidator, queue, stalls, outputs);
    const control = this.#control;
    if (owned !== undefined) {
      const space = pasids ?? new PrivatePasids(config.ssidBits);
      this.#virtualCommand = new SmmuVirtualCommand(file, owned, space, invalidator, outputs, counters);
      this.pasids = this.#virtualCommand;
    }
    this.dumper = new SmmuDumper(config, formats, file, lookup, stalls, memory);
    this.survey = new SmmuSurvey(config, formats, lookup, control, memory);
    this.spaces = new SmmuAddressSpaces(config, formats, lookup, control);
    const invalidated = (_tag: number, result: number): void => {
      deviceInvalidations.ended(result);
      queue.kick();
    };
    if (config.pri) {
      const requests = new SmmuPageRequests(config, file, memory, lookup, interrupts, errors, outputs);
      this.devices = { invalidated, pageRequest: (request) => requests.take(request) };
    } else this.devices = { invalidated };
    const translator = this.#translator;
    this.peerWalk = {
      describe: (rid, pasid, hi, out) => control.enabled && translator.describeWalk(rid, pasid, hi, out),
    };
    this.nested = new SmmuNestedView(lookup, control, this.#events, config.stage2);
    this.peerQueue = new SmmuPeerQueue(config, file, walks, queue, stalls);
    this.reset();
  }

  /** See {@link Iommu.reset}. Announces nothing: the session tells the caches outside. */
  reset(): void {
    this.#lookup.invalidateAll();
    this.#streams.reset();
    this.#walks.reset();
    this.#events.reset();
    this.#stalls.reset();
    this.#deviceInvalidations.reset();
    this.#queue.reset();
    this.#virtualCommand?.reset();
    this.#file.reset();
  }

  /** See {@link Iommu.writeRegister}. §6.2: words and doublewords, aligned. */
  writeRegister(offset: number, size: number, lo: number, hi: number): void {
    const whole = (size === 4 || size === 8) && offset % size === 0;
    if (!whole || offset < 0 || offset + size > SMMU_REGISTER_BYTES) {
      const detail = `${size} bytes at 0x${offset.toString(16)}`;
      this.#outputs.event({ kind: 'invalidation', name: 'register write ignored', detail });
      return;
    }
    this.#writeWord(offset, lo);
    if (size === 8) this.#writeWord(offset + 4, hi);
  }

  #writeWord(offset: number, value: number): void {
    this.#file.write(this.#control.place(offset), 4, value, 0);
  }

  /** See {@link Iommu.translate}. A look without access never records an event. */
  translate(request: TranslateRequest, result: TranslateResult): void {
    this.counters.translations++;
    const { fault } = this.#walks;
    if (request.kind !== REQUEST.UNTRANSLATED) {
      if (this.#ats.answer(request, result) !== OK) this.#events.record(fault, this.#ats.taken);
    } else if (this.#control.enabled) {
      const outcome = this.#translator.translate(request, result);
      if (outcome !== OK && request.access !== 0) this.#refused(fault, request, result);
    } else if (this.#control.aborting || !this.#translator.untouched(request, result)) {
      refuse(result);
      fault.clear();
      fault.raise(ABORTED);
      if (request.access !== 0) this.#events.record(fault, request);
    }
  }

  /**
   * A transaction of a device that can wait is stalled where the stage that faulted says so; others
   * end. §3.12
   */
  #refused(fault: Fault, request: TranslateRequest, result: TranslateResult): void {
    const stall = fault.stalls && request.mayStall ? this.#stalls.hold(fault, request) : 0;
    if (stall === 0) {
      this.#events.record(fault, request);
      return;
    }
    result.status = TRANSLATE_STATUS.STALLED;
    result.stall = stall;
  }

  /** See {@link Iommu.acknowledged}. */
  acknowledged(): void {
    this.#control.publish();
    this.#virtualCommand?.publish();
    this.#queue.kick();
  }
}

function identify(file: RegisterFile, config: SmmuConfig): void {
  file.setInitial(IDR0.offset, idr0(config)[0]);
  file.setInitial(IDR1.offset, idr1(config)[0]);
  file.setInitial(IDR3.offset, idr3(config)[0]);
  file.setInitial(IDR5.offset, idr5(config)[0]);
  file.setInitial(AIDR.offset, aidr()[0]);
  if (config.virtualCommands) identifyVirtualCommands(file, config);
  const controls = [CR0, CR0ACK];
  if (!config.ats) for (const { offset } of controls) file.absent(offset, maskOf(CR0.fields.ATSCHK));
  if (config.pri) return;
  for (const { offset } of controls) file.absent(offset, maskOf(CR0.fields.PRIQEN));
  for (const { offset } of [IRQ_CTRL, IRQ_CTRLACK]) file.absent(offset, maskOf(IRQ_CTRL.fields.PRIQ_IRQEN));
  for (const { offset, width } of PRI_REGISTERS) {
    file.absent(offset, -1);
    if (width === 64) file.absent(offset + 4, -1);
  }
}

/** The field, which has one bit, as a mask. */
function maskOf({ lsb }: { readonly lsb: number }): number {
  return 1 << lsb;
}
