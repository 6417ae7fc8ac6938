/** The VT-d unit: puts its parts together and takes the session's calls. Intel VT-d Rev. 5.10. */
import { NO_PASID } from '../../base/ids.js';
import type { GuestMemory } from '../../memory/guest-memory.js';
import { maskIn } from '../../spec/define.js';
import { FAULT } from '../../spec/vtd/faults.js';
import {
  BASE_REGISTERS,
  CAP_REG,
  ECAP_REG,
  faultRecordingRegister,
  INTERRUPT_REGISTERS,
  IRTA_REG,
  PAGE_REQUEST_REGISTERS,
  VCCAP_REG,
  VER_REG,
  VIRTUAL_COMMAND_REGISTERS,
} from '../../spec/vtd/registers.js';
import { type ModelCounters, zeroCounters } from '../counters.js';
import type { InterruptView } from '../interrupts.js';
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
  type TranslateRequest,
  type TranslateResult,
} from '../iommu.js';
import type { NestedView } from '../nested-view.js';
import { type PasidSpace, PrivatePasids } from '../pasid-space.js';
import type { PeerQueue } from '../peer-queue.js';
import { type AnyRegister, RegisterFile } from '../registers.js';
import { VtdAddressSpaces } from './address-space.js';
import { DeviceTlbRequests } from './ats.js';
import {
  capabilityWords,
  extendedCapabilityWords,
  VTD_REGISTER_BYTES,
  type VtdConfig,
  versionWords,
} from './config.js';
import { VtdFormats } from './domain.js';
import { VtdDumper } from './dump.js';
import { FaultRecorder } from './fault-recorder.js';
import { GlobalCommand } from './global-command.js';
import { VtdInterruptRemapping } from './interrupt-remapping.js';
import { VtdInvalidator } from './invalidation.js';
import { InvalidationQueue } from './invalidation-queue.js';
import { OK, VtdLookup } from './lookup.js';
import { VtdNestedView } from './nested-view.js';
import { VtdPageRequests } from './page-requests.js';
import { VtdPeerQueue } from './peer-queue.js';
import { RegisterInvalidation } from './register-invalidation.js';
import { inInterruptRange } from './spans.js';
import { VtdSurvey } from './survey.js';
import { TableWalk } from './table-walk.js';
import { VtdTranslator } from './translate.js';
import { VIRTUAL_COMMANDS, VtdVirtualCommand } from './virtual-command.js';

export class VtdModel implements Iommu {
  readonly #outputs: IommuOutputs;
  readonly model = 'vtd';
  readonly registerBytes = VTD_REGISTER_BYTES;
  readonly counters: ModelCounters = zeroCounters();
  readonly answersMayBeKept: boolean;
  readonly #file: RegisterFile;
  readonly #lookup: VtdLookup;
  readonly #translator: VtdTranslator;
  readonly #faults: FaultRecorder;
  readonly #interrupts: VtdInterruptRemapping | undefined;
  readonly #invalidator: VtdInvalidator;
  readonly #queue: InvalidationQueue;
  readonly #commands: GlobalCommand;
  readonly #registerInvalidation: RegisterInvalidation;
  readonly #deviceTlbRequests: DeviceTlbRequests;
  readonly #pageRequests: VtdPageRequests;
  readonly #virtualCommand: VtdVirtualCommand | undefined;
  readonly dumper: DumpView;
  readonly survey: SurveyView;
  readonly spaces: SpacesView;
  readonly devices: DeviceView;
  readonly pasids: PasidView | undefined;
  readonly interrupts: InterruptView | undefined;
  readonly nested: NestedView;
  readonly peerWalk: PeerWalkView;
  readonly peerQueue: PeerQueue;

  constructor(
    config: VtdConfig,
    memory: GuestMemory,
    registers: Uint32Array,
    outputs: IommuOutputs,
    pasids?: PasidSpace,
  ) {
    this.#outputs = outputs;
    const { counters } = this;
    this.answersMayBeKept = config.cachePolicy !== 'none';
    const formats = new VtdFormats(config);
    this.#file = new RegisterFile(registers, declaredRegisters(config), 4);
    setCapabilities(this.#file, config);
    this.#lookup = new VtdLookup(config, formats, memory);
    const tables = new TableWalk(config, formats, memory, counters);
    this.#translator = new VtdTranslator(config, this.#lookup, tables, memory, counters);
    this.#faults = new FaultRecorder(this.#file, outputs, counters, config);
    if (config.interruptRemapping) {
      this.#interrupts = new VtdInterruptRemapping(
        config,
        this.#file,
        memory,
        this.#faults,
        outputs,
        counters,
      );
    }
    this.interrupts = this.#interrupts;
    this.#invalidator = new VtdInvalidator(this.#lookup, this.#translator, outputs, counters);
    this.#queue = new InvalidationQueue(
      config,
      this.#file,
      memory,
      this.#lookup,
      this.#invalidator,
      this.#faults,
      outputs,
      counters,
      this.#interrupts,
    );
    this.#commands = new GlobalCommand(
      config,
      this.#file,
      this.#lookup,
      this.#invalidator,
      this.#queue,
      this.#faults,
      this.#interrupts,
      outputs,
    );
    this.#registerInvalidation = new RegisterInvalidation(
      config,
      this.#file,
      this.#lookup,
      this.#invalidator,
      outputs,
    );
    this.#deviceTlbRequests = new DeviceTlbRequests(config, this.#lookup, tables, this.#faults);
    this.#pageRequests = new VtdPageRequests(
      config,
      this.#file,
      memory,
      this.#lookup,
      this.#invalidator,
      this.#faults,
      outputs,
      counters,
      tables.domain,
    );
    if (config.virtualCommands) {
      const space = pasids ?? new PrivatePasids(config.pasidBits);
      this.#virtualCommand = new VtdVirtualCommand(this.#file, config.pasidBits, space, outputs, counters);
    }
    const commands = this.#commands;
    const lookup = this.#lookup;
    const translator = this.#translator;
    const queue = this.#queue;
    const pageRequests = this.#pageRequests;
    this.dumper = new VtdDumper(formats, this.#file, lookup, memory, this.#interrupts?.table);
    this.#faults.statusCleared = () => queue.kick();
    this.survey = new VtdSurvey(formats, lookup, commands, memory);
    this.spaces = new VtdAddressSpaces(formats, lookup, commands);
    this.devices = {
      pageRequest: (request) => pageRequests.take(request, commands.translating),
      invalidated: (tag, result) => queue.deviceTlbEnded(tag, result),
    };
    this.pasids = this.#virtualCommand;
    this.peerWalk = {
      describe: (rid, pasid, _hi, out) => commands.translating && translator.describeWalk(rid, pasid, out),
    };
    this.nested = new VtdNestedView(formats, this.#lookup, this.#commands, this.#faults);
    this.peerQueue = new VtdPeerQueue(config, this.#file, this.#lookup, this.#queue);
    this.reset();
  }

  /** See {@link Iommu.reset}. Announces nothing: the session tells the caches outside. */
  reset(): void {
    this.#lookup.reset();
    this.#translator.reset();
    this.#faults.reset();
    this.#interrupts?.reset();
    this.#queue.reset();
    this.#commands.reset();
    this.#registerInvalidation.reset();
    this.#virtualCommand?.reset();
    this.#file.reset();
  }

  /** See {@link Iommu.writeRegister}. §11.2: aligned doublewords and quadwords. */
  writeRegister(offset: number, size: number, lo: number, hi: number): void {
    if (this.#file.write(offset, size, lo, hi)) return;
    const detail = `${size} bytes at 0x${offset.toString(16)}`;
    this.#outputs.event({ kind: 'invalidation', name: 'register write ignored', detail });
  }

  /** See {@link Iommu.translate}. A look without access never records a fault. */
  translate(request: TranslateRequest, result: TranslateResult): void {
    this.counters.translations++;
    if (request.kind !== REQUEST.UNTRANSLATED) {
      this.#deviceTlbRequests.answer(request, this.#commands.translating, result);
      return;
    }
    const remapped = this.#interrupts?.on === true;
    if (remapped && request.pasid === NO_PASID && inInterruptRange(request.lo >>> 0, request.hi >>> 0)) {
      this.#translator.refuseInterrupt(result);
      if (request.access !== 0) this.#faults.record(FAULT.IR_29, request, false);
      return;
    }
    if (!this.#commands.translating) {
      this.#translator.identity(request, remapped, result);
      return;
    }
    const reason = this.#translator.translate(request, result);
    if (reason !== OK && request.access !== 0) {
      this.#faults.record(reason, request, this.#translator.suppressed);
    }
  }

  /** See {@link Iommu.acknowledged}. */
  acknowledged(): void {
    this.#commands.publish();
    this.#registerInvalidation.publish();
    this.#queue.kick();
  }
}

function declaredRegisters(config: VtdConfig): readonly AnyRegister[] {
  const registers: AnyRegister[] = [...BASE_REGISTERS];
  if (config.pageRequests) registers.push(...PAGE_REQUEST_REGISTERS);
  if (config.interruptRemapping) registers.push(...INTERRUPT_REGISTERS);
  if (config.virtualCommands) registers.push(...VIRTUAL_COMMAND_REGISTERS);
  for (let index = 0; index < config.faultRecords; index++) registers.push(faultRecordingRegister(index));
  return registers;
}

function setCapabilities(file: RegisterFile, config: VtdConfig): void {
  const cap = capabilityWords(config);
  const ecap = extendedCapabilityWords(config);
  file.setInitial(VER_REG.offset, versionWords()[0]);
  file.setInitial(CAP_REG.offset, cap[0]);
  file.setInitial(CAP_REG.offset + 4, cap[1]);
  file.setInitial(ECAP_REG.offset, ecap[0]);
  file.setInitial(ECAP_REG.offset + 4, ecap[1]);
  if (!config.extendedInterrupts) file.absent(IRTA_REG.offset, maskIn(IRTA_REG.fields.EIME));
  if (config.virtualCommands) file.setInitial(VCCAP_REG.offset, VIRTUAL_COMMANDS);
}
