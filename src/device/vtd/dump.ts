/**
 * The unit as a tree for people: registers with named bits, then root → context → PASID →
 * translations, and the interrupt remapping table.
 */

import { NO_PASID } from '../../base/ids.js';
import { hex, hex64 } from '../../base/u64.js';
import type { GuestMemory } from '../../memory/guest-memory.js';
import { faultName } from '../../spec/vtd/faults.js';
import { FRCD_OFFSET, FRCD_REG, GCMD_REG, IVA_REG, TTM } from '../../spec/vtd/registers.js';
import {
  CONTEXT_ENTRY,
  PASID_DIRECTORY_ENTRY,
  PASID_TABLE_ENTRIES,
  PASID_TABLE_ENTRY,
  ROOT_ENTRY,
  SM_CONTEXT_ENTRY,
  SM_ROOT_ENTRY,
} from '../../spec/vtd/structures.js';
import type { DumpNode, DumpOptions } from '../iommu.js';
import { Leaves } from '../leaves.js';
import type { RegisterFile } from '../registers.js';
import { Domain, KIND, type VtdFormats } from './domain.js';
import { fieldText, kindText, leavesNode } from './dump-text.js';
import { interruptTable } from './interrupt-dump.js';
import type { InterruptTable } from './interrupt-table.js';
import { OK, type VtdLookup } from './lookup.js';

/** Tables can be made to look endless; a person has seen enough after so many. */
const MOST_CONTEXTS = 512;
const MOST_PASIDS = 64;
const FPD = 2;

export class VtdDumper {
  readonly #file: RegisterFile;
  readonly #lookup: VtdLookup;
  readonly #memory: GuestMemory;
  readonly #domain: Domain;
  readonly #leaves: Leaves;
  /** Absent: the unit remaps no interrupts. */
  readonly #interrupts: InterruptTable | undefined;
  #contexts = 0;

  constructor(
    formats: VtdFormats,
    file: RegisterFile,
    lookup: VtdLookup,
    memory: GuestMemory,
    interrupts: InterruptTable | undefined,
  ) {
    this.#interrupts = interrupts;
    this.#file = file;
    this.#lookup = lookup;
    this.#memory = memory;
    this.#domain = new Domain(formats);
    this.#leaves = new Leaves(memory);
  }

  /** See {@link SurveyView.dump}. Reads tables afresh, changes nothing. */
  dump(options: DumpOptions): DumpNode[] {
    const nodes: DumpNode[] = [];
    if (options.registers) nodes.push({ label: 'registers', children: this.#registers() });
    if (options.tables) nodes.push(this.#rootTable(options));
    if (options.tables && this.#interrupts !== undefined && this.#interrupts.entries > 0)
      nodes.push(interruptTable(this.#interrupts, this.#memory, options));
    return nodes;
  }

  /**
   * Every register that reads as something: not the write-only ones, and only those fault records
   * that are used.
   */
  #registers(): DumpNode[] {
    const words = this.#file.visible;
    const nodes: DumpNode[] = [];
    for (const register of this.#file.declared) {
      if (register === GCMD_REG || register === IVA_REG) continue;
      const base = register.offset >> 2;
      const recorded = register.offset >= FRCD_OFFSET && register.width === 128;
      if (recorded && FRCD_REG.get.F(words, base) === 0) continue;
      const fields = fieldText(register, words, base);
      if (recorded)
        fields['FR'] =
          `0x${FRCD_REG.get.FR(words, base).toString(16)} ${faultName(FRCD_REG.get.FR(words, base))}`;
      nodes.push({ label: register.name, raw: rawText(words, base, register.wordCount), fields });
    }
    return nodes;
  }

  #rootTable(options: DumpOptions): DumpNode {
    const { mode, rootTable } = this.#lookup;
    const scalable = mode === TTM.SCALABLE;
    const label = `${scalable ? 'scalable-mode ' : ''}root table at ${hex(rootTable)}`;
    if (mode !== TTM.LEGACY && !scalable) return { label, note: `TTM ${mode} uses no tables` };
    const children: DumpNode[] = [];
    const words = new Uint32Array(4);
    this.#contexts = 0;
    for (let bus = 0; bus < 256; bus++) {
      if (options.rid !== undefined && options.rid >> 8 !== bus) continue;
      if (!this.#memory.loadWords(rootTable + bus * ROOT_ENTRY.bytes, words, 4)) {
        return { label, children, note: `root[${byteText(bus)}] is not in memory` };
      }
      const node = scalable ? this.#scalableRoot(bus, words, options) : this.#legacyRoot(bus, words, options);
      if (node !== undefined) children.push(node);
    }
    if (this.#contexts <= MOST_CONTEXTS) return { label, children };
    return { label, children, note: `${this.#contexts - MOST_CONTEXTS} more contexts` };
  }

  #legacyRoot(bus: number, words: Uint32Array, options: DumpOptions): DumpNode | undefined {
    if (ROOT_ENTRY.get.P(words) === 0) return undefined;
    const head = {
      label: `root[${byteText(bus)}]`,
      raw: rawText(words, 0, 4),
      fields: fieldText(ROOT_ENTRY, words, 0),
    };
    const children = this.#contextTable(bus, 0, 256, ROOT_ENTRY.get.CTP(words), CONTEXT_ENTRY.bytes, options);
    return { ...head, children };
  }

  #scalableRoot(bus: number, words: Uint32Array, options: DumpOptions): DumpNode | undefined {
    const lower = SM_ROOT_ENTRY.get.LP(words) === 1;
    const upper = SM_ROOT_ENTRY.get.UP(words) === 1;
    if (!lower && !upper) return undefined;
    const head = {
      label: `root[${byteText(bus)}]`,
      raw: rawText(words, 0, 4),
      fields: fieldText(SM_ROOT_ENTRY, words, 0),
    };
    const lowerTable = SM_ROOT_ENTRY.get.LCTP(words);
    const upperTable = SM_ROOT_ENTRY.get.UCTP(words);
    const bytes = SM_CONTEXT_ENTRY.bytes;
    const children = [
      ...(lower ? this.#contextTable(bus, 0, 128, lowerTable, bytes, options) : []),
      ...(upper ? this.#contextTable(bus, 128, 128, upperTable, bytes, options) : []),
    ];
    return { ...head, children };
  }

  /** Present context-entries of a table (and those that only carry FPD). */
  #contextTable(
    bus: number,
    firstDevfn: number,
    count: number,
    table: number,
    bytes: number,
    options: DumpOptions,
  ): DumpNode[] {
    const nodes: DumpNode[] = [];
    const words = new Uint32Array(bytes / 4);
    for (let index = 0; index < count; index++) {
      const rid = bus * 256 + firstDevfn + index;
      if (options.rid !== undefined && options.rid !== rid) continue;
      if (!this.#memory.loadWords(table + index * bytes, words, bytes / 4)) break;
      if ((words[0] & (1 | FPD)) === 0) continue;
      if (++this.#contexts > MOST_CONTEXTS) continue;
      nodes.push(this.#context(rid, words, options));
    }
    return nodes;
  }

  #context(rid: number, words: Uint32Array, options: DumpOptions): DumpNode {
    const scalable = this.#lookup.mode === TTM.SCALABLE;
    const shape = scalable ? SM_CONTEXT_ENTRY : CONTEXT_ENTRY;
    const head = {
      label: `context ${ridText(rid)}`,
      raw: rawText(words, 0, shape.wordCount),
      fields: fieldText(shape, words, 0),
    };
    if ((words[0] & 1) === 0) return head;
    if (!scalable) return { ...head, children: [this.#translations(rid, NO_PASID, options)] };
    const found = this.#pasids(words);
    const ridPasid = SM_CONTEXT_ENTRY.get.RID_PASID(words);
    const children = found
      .slice(0, MOST_PASIDS)
      .map((pasid) => this.#pasid(rid, words, pasid, ridPasid, options));
    if (found.length <= MOST_PASIDS) return { ...head, children };
    return { ...head, children, note: `${found.length - MOST_PASIDS} or more further PASIDs` };
  }

  /** PASIDs that have a present entry, ascending, at most one more than are printed. */
  #pasids(context: Uint32Array): number[] {
    const found: number[] = [];
    const directory = SM_CONTEXT_ENTRY.get.PASIDDIRPTR(context);
    const tables = 2 ** (SM_CONTEXT_ENTRY.get.PDTS(context) + 7);
    const words = new Uint32Array(2);
    for (let index = 0; index < tables && found.length <= MOST_PASIDS; index++) {
      if (!this.#memory.loadWords(directory + index * PASID_DIRECTORY_ENTRY.bytes, words, 2)) break;
      if (PASID_DIRECTORY_ENTRY.get.P(words) === 0) continue;
      const table = PASID_DIRECTORY_ENTRY.get.SMPTBLPTR(words);
      for (let slot = 0; slot < PASID_TABLE_ENTRIES && found.length <= MOST_PASIDS; slot++) {
        if (!this.#memory.load64(table + slot * PASID_TABLE_ENTRY.bytes)) break;
        if ((this.#memory.lo & (1 | FPD)) !== 0) found.push(index * PASID_TABLE_ENTRIES + slot);
      }
    }
    return found;
  }

  #pasid(rid: number, context: Uint32Array, pasid: number, ridPasid: number, options: DumpOptions): DumpNode {
    const slot = new Uint32Array(2);
    const words = new Uint32Array(PASID_TABLE_ENTRY.wordCount);
    const directory = SM_CONTEXT_ENTRY.get.PASIDDIRPTR(context);
    const index = Math.floor(pasid / PASID_TABLE_ENTRIES);
    this.#memory.loadWords(directory + index * PASID_DIRECTORY_ENTRY.bytes, slot, 2);
    const table = PASID_DIRECTORY_ENTRY.get.SMPTBLPTR(slot);
    const address = table + (pasid % PASID_TABLE_ENTRIES) * PASID_TABLE_ENTRY.bytes;
    const label = `PASID ${hex(pasid)}${pasid === ridPasid ? ' (RID_PASID)' : ''}`;
    if (!this.#memory.loadWords(address, words, words.length)) return { label, note: 'not in memory' };
    const head = { label, raw: rawText(words, 0, 6), fields: fieldText(PASID_TABLE_ENTRY, words, 0) };
    if ((words[0] & 1) === 0) return head;
    const asked = pasid === ridPasid ? NO_PASID : pasid;
    return { ...head, children: [this.#translations(rid, asked, options)] };
  }

  /** The address space of a requester, leaf ranges joined; or why there is none. */
  #translations(rid: number, pasid: number, options: DumpOptions): DumpNode {
    const domain = this.#domain;
    const leaves = this.#leaves;
    const reason = this.#lookup.resolve(rid, pasid, 0, false, domain);
    if (reason !== OK) return { label: 'blocked', note: faultName(reason) };
    if (domain.kind === KIND.PASS_THROUGH) return { label: 'pass-through' };
    leaves.start(domain, 0, 0);
    return leavesNode(kindText(domain), leaves, options.maxLeaves);
  }
}

function byteText(value: number): string {
  return value.toString(16).padStart(2, '0');
}

/** bus:device.function. */
function ridText(rid: number): string {
  return `${byteText(rid >> 8)}:${byteText((rid >> 3) & 31)}.${rid & 7}`;
}

/** 64-bit words, the highest first. */
function rawText(words: Uint32Array, base: number, count: number): string {
  if (count === 1) return `0x${words[base].toString(16).padStart(8, '0')}`;
  const parts: string[] = [];
  for (let index = count - 2; index >= 0; index -= 2) {
    parts.push(hex64(words[base + index], words[base + index + 1]));
  }
  return parts.join(' ');
}
