/** The VT-d unit: puts its parts together and takes the session's calls. Intel VT-d Rev. 5.10. */
import type { GuestMemory } from '../../memory/guest-memory.js';
import {
  BASE_REGISTERS,
  CAP_REG,
  CCMD_REG,
  ECAP_REG,
  FECTL_REG,
  FRCD_BYTES,
  FRCD_OFFSET,
  FSTS_REG,
  faultRecordingRegister,
  GCMD_REG,
  ICS_REG,
  IECTL_REG,
  IOTLB_REG,
  IQT_REG,
  PAGE_REQUEST_REGISTERS,
  PECTL_REG,
  PRS_REG,
  VCCAP_REG,
  VCMD_REG,
  VER_REG,
  VIRTUAL_COMMAND_REGISTERS,
} from '../../spec/vtd/registers.js';
import {
  type AddressSpaceTables,
  type DumpNode,
  type DumpOptions,
  type InvalidateScope,
  type Iommu,
  type IommuOutputs,
  type ModelCounters,
  type PageRequest,
  REQUEST,
  type TranslateRequest,
  type TranslateResult,
  type WalkTables,
  zeroCounters,
} from '../iommu.js';
import type { NestedView } from '../nested-view.js';
import { type PasidSpace, PrivatePasids } from '../pasid-space.js';
import type { PeerQueue } from '../peer-queue.js';
import { type AnyRegister, RegisterFile, type RegisterListener } from '../registers.js';
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
import { VtdInvalidator } from './invalidation.js';
import { InvalidationQueue } from './invalidation-queue.js';
import { OK, VtdLookup } from './lookup.js';
import { VtdNestedView } from './nested-view.js';
import { VtdPageRequests } from './page-requests.js';
import { VtdPeerQueue } from './peer-queue.js';
import { RegisterInvalidation } from './register-invalidation.js';
import { VtdSurvey } from './survey.js';
import { TableWalk } from './table-walk.js';
import { VtdTranslator } from './translate.js';
import { VIRTUAL_COMMANDS, VtdVirtualCommand } from './virtual-command.js';

export class VtdModel implements Iommu, RegisterListener {
  readonly model = 'vtd';
  readonly registerBytes = VTD_REGISTER_BYTES;
  readonly counters: ModelCounters = zeroCounters();
  readonly answersMayBeKept: boolean;
  readonly pasidBits: number;
  private readonly file: RegisterFile;
  private readonly lookup: VtdLookup;
  private readonly translator: VtdTranslator;
  private readonly faults: FaultRecorder;
  private readonly invalidator: VtdInvalidator;
  private readonly queue: InvalidationQueue;
  private readonly commands: GlobalCommand;
  private readonly registerInvalidation: RegisterInvalidation;
  private readonly deviceTlbRequests: DeviceTlbRequests;
  private readonly pageRequests: VtdPageRequests;
  private readonly virtualCommand: VtdVirtualCommand | undefined;
  private readonly survey: VtdSurvey;
  private readonly spaces: VtdAddressSpaces;
  /** See {@link Iommu.nested}. */
  readonly nested: NestedView;
  /** See {@link Iommu.peerQueue}. */
  readonly peerQueue: PeerQueue;
  private readonly dumper: VtdDumper;

  constructor(
    private readonly config: VtdConfig,
    memory: GuestMemory,
    registers: Uint32Array,
    private readonly outputs: IommuOutputs,
    pasids?: PasidSpace,
  ) {
    const { counters } = this;
    this.answersMayBeKept = config.cachePolicy !== 'none';
    this.pasidBits = config.pasidBits;
    const formats = new VtdFormats(config);
    this.file = new RegisterFile(registers, declaredRegisters(config), 4);
    setCapabilities(this.file, config);
    this.lookup = new VtdLookup(config, formats, memory);
    const tables = new TableWalk(config, formats, memory, counters);
    this.translator = new VtdTranslator(config, this.lookup, tables, memory, counters);
    this.faults = new FaultRecorder(this.file, outputs, counters, config);
    this.invalidator = new VtdInvalidator(this.lookup, this.translator, outputs, counters);
    this.queue = new InvalidationQueue(
      config,
      this.file,
      memory,
      this.lookup,
      this.invalidator,
      this.faults,
      outputs,
      counters,
    );
    this.commands = new GlobalCommand(
      config,
      this.file,
      this.lookup,
      this.invalidator,
      this.queue,
      this.faults,
      outputs,
    );
    this.registerInvalidation = new RegisterInvalidation(
      config,
      this.file,
      this.lookup,
      this.invalidator,
      outputs,
    );
    this.deviceTlbRequests = new DeviceTlbRequests(config, this.lookup, tables, this.faults);
    this.pageRequests = new VtdPageRequests(
      config,
      this.file,
      memory,
      this.lookup,
      this.invalidator,
      this.faults,
      outputs,
      counters,
      tables.domain,
    );
    if (config.virtualCommands) {
      const space = pasids ?? new PrivatePasids(config.pasidBits);
      this.virtualCommand = new VtdVirtualCommand(this.file, config.pasidBits, space, outputs, counters);
    }
    this.survey = new VtdSurvey(formats, this.lookup, memory);
    this.spaces = new VtdAddressSpaces(formats, this.lookup);
    this.nested = new VtdNestedView(formats, this.lookup, this.commands, this.faults);
    this.peerQueue = new VtdPeerQueue(config, this.file, this.lookup, this.translator, this.queue);
    this.dumper = new VtdDumper(formats, this.file, this.lookup, memory);
    this.reset();
  }

  /** See {@link Iommu.reset}. Tells nobody outside: the session does. */
  reset(): void {
    this.lookup.reset();
    this.translator.reset();
    this.faults.reset();
    this.queue.reset();
    this.commands.reset();
    this.registerInvalidation.reset();
    this.virtualCommand?.reset();
    this.file.reset();
  }

  /** See {@link Iommu.writeRegister}. §11.2: aligned doublewords and quadwords. */
  writeRegister(offset: number, size: number, lo: number, hi: number): void {
    if (this.virtualCommand?.drops(offset)) return;
    if (this.file.write(offset, size, lo, hi, this)) {
      // After both halves of a quadword: the operand reaches into the high one.
      if (offset === VCMD_REG.offset) this.virtualCommand?.written();
      return;
    }
    const detail = `${size} bytes at 0x${offset.toString(16)}`;
    this.outputs.event({ kind: 'invalidation', name: 'register write ignored', detail });
  }

  /** The register file has stored a word for the guest. */
  registerWritten(offset: number, written: number): void {
    switch (offset) {
      case GCMD_REG.offset:
        this.commands.written(written);
        return;
      case CCMD_REG.offset + 4:
        this.registerInvalidation.contextWritten(written);
        return;
      case IOTLB_REG.offset + 4:
        this.registerInvalidation.iotlbWritten(written);
        return;
      case FSTS_REG.offset:
        this.faults.statusWritten();
        this.queue.kick();
        return;
      case FECTL_REG.offset:
        this.faults.controlWritten();
        return;
      case IQT_REG.offset:
        this.queue.kick();
        return;
      case ICS_REG.offset:
        this.queue.statusWritten();
        return;
      case IECTL_REG.offset:
        this.queue.controlWritten();
        return;
      case PRS_REG.offset:
        this.pageRequests.statusWritten();
        return;
      case PECTL_REG.offset:
        this.pageRequests.controlWritten();
        return;
      default:
        this.recordWritten(offset);
    }
  }

  private recordWritten(offset: number): void {
    const index = (offset - FRCD_OFFSET) / FRCD_BYTES;
    if (index >= 0 && index < this.config.faultRecords) this.faults.recordWritten();
  }

  /** See {@link Iommu.translate}. A look without access never records a fault. */
  translate(request: TranslateRequest, result: TranslateResult): void {
    this.counters.translations++;
    if (request.kind !== REQUEST.UNTRANSLATED) {
      this.deviceTlbRequests.answer(request, this.commands.translating, result);
      return;
    }
    if (!this.commands.translating) {
      this.translator.identity(result);
      return;
    }
    const reason = this.translator.translate(request, result);
    if (reason !== OK && request.access !== 0) {
      this.faults.record(reason, request, this.translator.suppressed);
    }
  }

  /** See {@link Iommu.pageRequest}. */
  pageRequest(request: PageRequest): void {
    this.pageRequests.take(request, this.commands.translating);
  }

  /** See {@link Iommu.deviceTlbInvalidated}. */
  deviceTlbInvalidated(tag: number, result: number): void {
    this.queue.deviceTlbEnded(tag, result);
  }

  /** See {@link Iommu.pasidAnswered}. */
  pasidAnswered(answer: number): void {
    this.virtualCommand?.answered(answer);
  }

  /** See {@link Iommu.pasidRevoked}. */
  pasidRevoked(pasid: number): void {
    this.virtualCommand?.revoked(pasid);
  }

  /** See {@link Iommu.acknowledged}. */
  acknowledged(): void {
    this.commands.publish();
    this.registerInvalidation.publish();
    this.queue.kick();
  }

  /** See {@link Iommu.enumerate}. */
  enumerate(rid: number, pasid: number, lo: number, hi: number, result: TranslateResult): boolean {
    return this.survey.enumerate(this.commands.translating, rid, pasid, lo, hi, result);
  }

  /** See {@link Iommu.affected}. */
  affected(scope: InvalidateScope, rids: readonly number[], out: number[]): number {
    return this.survey.affected(this.commands.translating, scope, rids, out);
  }

  /** See {@link Iommu.tables}. */
  tables(rid: number, pasid: number, out: AddressSpaceTables): void {
    this.spaces.fill(this.commands.translating, rid, pasid, out);
  }

  /** See {@link Iommu.walkable}. */
  walkable(rid: number, pasid: number, _hi: number, out: WalkTables): boolean {
    return this.commands.translating && this.translator.walkable(rid, pasid, out);
  }

  /** See {@link Iommu.dump}. */
  dump(options: DumpOptions): DumpNode[] {
    return this.dumper.dump(options);
  }
}

function declaredRegisters(config: VtdConfig): readonly AnyRegister[] {
  const registers: AnyRegister[] = [...BASE_REGISTERS];
  if (config.pageRequests) registers.push(...PAGE_REQUEST_REGISTERS);
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
  if (config.virtualCommands) file.setInitial(VCCAP_REG.offset, VIRTUAL_COMMANDS);
}
