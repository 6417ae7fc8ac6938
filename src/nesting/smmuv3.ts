/**
 * SMMUv3: the guest's CD table is handed over as it stands, as the stage-1 part of its STE; PASIDs
 * are the guest's own matter. Invalidations are commands again. ARCHITECTURE.md, Nesting
 */

import { ANY } from '../base/ids.js';
import { PAGE_BYTES, PAGE_LOG2, PAGE_OFFSET } from '../base/page.js';
import type { InvalidateScope } from '../device/iommu.js';
import { type NestedView, newStreamEntryView, STREAM, type StreamEntryView } from '../device/nested-view.js';
import { WHOLE_SPACE } from '../device/spans.js';
import type { HostInvalidations } from '../host/port.js';
import { pack } from '../spec/define.js';
import { CMD, CMD_CFGI_CD_ALL, CMD_TLBI } from '../spec/smmuv3/commands.js';
import { STE, STE_CONFIG_BIT } from '../spec/smmuv3/structures.js';
import type { Bindings } from './binding.js';
import type { ForwardQueue } from './forward-queue.js';
import type { NestingEvent } from './host-operations.js';
import type { NestedDevice } from './nested-device.js';

/**
 * What of the guest's STE hardware gets; the rest is the host's, or means nothing to a device that
 * is assigned.
 */
const HANDED_OVER = [
  'V',
  'Config',
  'S1Fmt',
  'S1ContextPtr',
  'S1CDMax',
  'S1DSS',
  'S1CIR',
  'S1COR',
  'S1CSH',
  'S1STALLD',
] as const;
const MASK = handedOver();
/** Pages that one scope is turned into commands for. */
const MOST_PAGES_LOG2 = 6;
/** ASID in the second word of a command. */
const ASID_SHIFT = CMD_TLBI.fields.ASID.lsb - 32;

export class SmmuNesting {
  readonly #bindings: Bindings;
  readonly #devices: () => Iterable<NestedDevice>;
  /** Nothing may be bound until the host holds nothing of this guest: {@link emptied} says so. */
  readonly #empty: () => void;
  readonly #event: (event: NestingEvent) => void;
  readonly #entry = newStreamEntryView();
  readonly #other = newStreamEntryView();
  /**
   * VMID of the guest's whose translations the host may hold, under the one VMID that it has for
   * this guest; −1: none.
   */
  #vmid = -1;

  constructor(
    bindings: Bindings,
    devices: () => Iterable<NestedDevice>,
    empty: () => void,
    event: (event: NestingEvent) => void,
  ) {
    this.#bindings = bindings;
    this.#devices = devices;
    this.#empty = empty;
    this.#event = event;
  }

  resync(device: NestedDevice, view: NestedView): void {
    const before = device.vmid;
    device.vmid = -1;
    device.waits = false;
    this.#bind(device, view);
    if (before >= 0 && device.vmid !== before) this.left();
  }

  #bind(device: NestedDevice, view: NestedView): void {
    const entry = this.#entry;
    const bindings = this.#bindings;
    const state = view.stream(device.rid);
    if (device.unknown || device.unclean || state === STREAM.BLOCKED) {
      bindings.toNothing(device.own);
      return;
    }
    if (state === STREAM.IDENTITY) {
      bindings.toParent(device.own);
      return;
    }
    if (!view.ste(device.rid, entry)) {
      bindings.toNothing(device.own);
      return;
    }
    const config = STE.get.Config(entry.words);
    if ((config & STE_CONFIG_BIT.PASS) !== 0 && (config & STE_CONFIG_BIT.S2) !== 0) {
      this.#tell(device, 'a stage 2 of the guest');
      bindings.toNothing(device.own);
      return;
    }
    if (hasStage1(entry) && !this.#share(device, entry.vmid, view)) {
      bindings.toNothing(device.own);
      return;
    }
    bindings.toTables(device.own, {
      format: 'smmuv3',
      ste: entry.words.map((word, index) => word & MASK[index]),
    });
  }

  /**
   * §3.17: an ASID is one of its VMID. The host tags all that this guest's stage 1 gives with one
   * VMID of its own, so two VMIDs of the guest can't be nested at a time. True: this one can.
   */
  #share(device: NestedDevice, vmid: number, view: NestedView): boolean {
    for (const other of this.#devices()) {
      if (other === device || other.vmid < 0 || other.vmid === vmid || !this.#keeps(other, view)) continue;
      device.waits = true;
      this.#tell(device, `stage 1 under VMID ${vmid} beside one under VMID ${other.vmid}`);
      return false;
    }
    if (this.#vmid >= 0 && this.#vmid !== vmid) {
      this.#empty();
      return false;
    }
    this.#vmid = vmid;
    device.vmid = vmid;
    return true;
  }

  /** A device goes on with the VMID that it has, also when its STE is looked at again. */
  #keeps(device: NestedDevice, view: NestedView): boolean {
    if (!device.stale) return true;
    const other = this.#other;
    return (
      view.stream(device.rid) === STREAM.TABLES &&
      view.ste(device.rid, other) &&
      hasStage1(other) &&
      other.vmid === device.vmid
    );
  }

  /** A VMID is used by one device less: others may have been refused because of it. */
  left(): void {
    for (const device of this.#devices()) if (device.waits) device.stale = true;
  }

  /** The host holds nothing of this guest. */
  emptied(): void {
    this.#vmid = -1;
  }

  /** The CD table is the guest's: there is nothing to look for. */
  scan(_device: NestedDevice, _view: NestedView, budget: number): number {
    return budget;
  }

  changed(device: NestedDevice, scope: InvalidateScope): void {
    if (scope.rid === ANY || scope.rid === device.rid) device.stale = true;
  }

  /** A stream's context descriptors are cached by its StreamID, whatever its STE says by now. */
  forward(device: NestedDevice, scope: InvalidateScope): void {
    if (scope.structures !== true) return;
    if (scope.rid === ANY || scope.rid === device.rid) device.contextsStale = true;
  }

  /** The command that drops the context descriptors of one stream. */
  contexts(device: NestedDevice, out: HostInvalidations): HostInvalidations {
    const [word0, word1] = pack(CMD_CFGI_CD_ALL, { Opcode: CMD.CFGI_CD_ALL, StreamID: device.rid });
    return out.clear().command(word0, word1, 0, 0);
  }

  /**
   * The command that drops everything that this guest has in the TLB. It names no StreamID, so it
   * can't be refused for one.
   */
  translations(out: HostInvalidations): HostInvalidations {
    return out.clear().command(CMD.TLBI_NSNH_ALL, 0, 0, 0);
  }

  /**
   * Commands for a scope of translations, whatever is bound: what hardware has found stays in its
   * TLB, under this guest's VMID and the ASID, when the STE that it came from is gone. VMIDs of the
   * guest are not looked at (see {@link share}).
   */
  forwardTranslations(scope: InvalidateScope, queue: ForwardQueue): void {
    if (scope.rid !== ANY) return;
    const pages = scope.log2Size - PAGE_LOG2;
    const byAddress = scope.log2Size < WHOLE_SPACE;
    if (scope.space !== ANY && scope.sub !== ANY && !byAddress) {
      push(queue, pack(CMD_TLBI, { Opcode: CMD.TLBI_NH_ASID, ASID: scope.sub }));
    } else if (scope.space === ANY || pages > MOST_PAGES_LOG2) {
      // By address and ASID, global entries of the range go too (§4.4.1), which CMD_TLBI_NH_ASID
      // would leave.
      push(queue, pack(CMD_TLBI, { Opcode: CMD.TLBI_NSNH_ALL }));
    } else {
      // Below 64 aligned pages nothing is carried into the high half.
      const word0 = scope.sub === ANY ? CMD.TLBI_NH_VAA : CMD.TLBI_NH_VA;
      const word1 = scope.sub === ANY ? 0 : scope.sub << ASID_SHIFT;
      for (let page = 0; page < 2 ** pages; page++) {
        queue.command(word0, word1, (scope.lo & ~PAGE_OFFSET) + page * PAGE_BYTES, scope.hi);
      }
    }
  }

  #tell(device: NestedDevice, reason: string): void {
    if (device.reported) return;
    device.reported = true;
    this.#event({ kind: 'notNestable', device: device.device, rid: device.rid, pasid: -1, reason });
  }
}

function push(queue: ForwardQueue, words: ArrayLike<number>): void {
  queue.command(words[0], words[1], words[2], words[3]);
}

function hasStage1({ words }: StreamEntryView): boolean {
  const config = STE.get.Config(words);
  return (config & STE_CONFIG_BIT.PASS) !== 0 && (config & STE_CONFIG_BIT.S1) !== 0;
}

function handedOver(): Uint32Array {
  const mask = new Uint32Array(newStreamEntryView().words.length);
  for (const name of HANDED_OVER) {
    const { lsb, msb } = STE.fields[name];
    for (let bit = lsb; bit <= msb; bit++) mask[bit >> 5] |= 1 << (bit & 31);
  }
  return mask;
}
