/** What hardware that nests has to know of a VT-d guest, and what it reports. VT-d §9.6, §7.1.3. */
import { FAULT } from '../../spec/vtd/faults.js';
import { FRCD_REG } from '../../spec/vtd/registers.js';
import { ACCESS, emptyRequest } from '../iommu.js';
import { ENTRY, type ForwardedFault, type NestedView, type PasidEntryView, STREAM } from '../nested-view.js';
import { Domain, KIND, type VtdFormats } from './domain.js';
import type { FaultRecorder } from './fault-recorder.js';
import type { GlobalCommand } from './global-command.js';
import { OK, type VtdLookup } from './lookup.js';

/** Extended-Accessed, bit 10 of first-stage entries. §9.7 */
const EA = 1 << 10;

export class VtdNestedView implements NestedView {
  readonly #lookup: VtdLookup;
  readonly #commands: GlobalCommand;
  readonly #faults: FaultRecorder;
  readonly format = 'vtd';
  readonly #domain: Domain;
  readonly #request = emptyRequest();

  constructor(formats: VtdFormats, lookup: VtdLookup, commands: GlobalCommand, faults: FaultRecorder) {
    this.#lookup = lookup;
    this.#commands = commands;
    this.#faults = faults;
    this.#domain = new Domain(formats);
  }

  stream(_rid: number): number {
    return this.#commands.translating ? STREAM.TABLES : STREAM.IDENTITY;
  }

  ste(): boolean {
    return false;
  }

  entry(rid: number, pasid: number, out: PasidEntryView): void {
    const domain = this.#domain;
    out.kind = ENTRY.NONE;
    if (this.#lookup.resolve(rid, pasid, 0, false, domain) !== OK) return;
    out.did = domain.did;
    out.tag = domain.tag;
    if (domain.kind === KIND.PASS_THROUGH) out.kind = ENTRY.PASS_THROUGH;
    else if (domain.kind === KIND.FIRST) out.kind = ENTRY.FIRST_STAGE;
    else out.kind = ENTRY.SECOND_STAGE;
    out.root = domain.firstRoot;
    out.levels = domain.firstFormat.levels;
    out.extendedAccessed = (domain.firstFormat.accessed & EA) !== 0;
  }

  nextPasid(rid: number, from: number, budget: number): number {
    return this.#lookup.nextPasid(rid, from, budget);
  }

  fault({ rid, pasid, record }: ForwardedFault): void {
    const { get } = FRCD_REG;
    let access: number = get.T1(record) === 1 ? ACCESS.READ : ACCESS.WRITE;
    if (get.T1(record) === 1 && get.T2(record) === 1) access = ACCESS.READ | ACCESS.WRITE;
    if (get.EXE(record) === 1) access |= ACCESS.EXECUTE;
    if (get.PRIV(record) === 1) access |= ACCESS.PRIVILEGED;
    this.#record(get.FR(record), rid, pasid, access, record[0], record[1]);
  }

  noSuchPasid(rid: number, pasid: number, access: number, lo: number, hi: number): void {
    this.#record(FAULT.SPT_2, rid, pasid, access, lo, hi);
  }

  #record(reason: number, rid: number, pasid: number, access: number, lo: number, hi: number): void {
    // FPD of the guest's structures counts, whatever the host's say.
    this.#lookup.resolve(rid, pasid, 0, false, this.#domain);
    Object.assign(this.#request, { rid, pasid, access, lo, hi });
    this.#faults.record(reason, this.#request, this.#domain.suppressed);
  }
}
