/**
 * SMMUv3: the guest's CD table is handed over as it stands, as the stage-1 part of its STE; PASIDs are the guest's own
 * matter. Invalidations are commands again. DESIGN §7
 */
import { ANY, type InvalidateScope } from '../device/iommu.js';
import { type NestedView, STREAM } from '../device/nested-view.js';
import { pack } from '../spec/define.js';
import { CMD, CMD_CFGI_CD_ALL, CMD_TLBI } from '../spec/smmuv3/commands.js';
import { STE, STE_CONFIG_BIT } from '../spec/smmuv3/structures.js';
import { type Bindings, takes } from './binding.js';
import type { ForwardQueue } from './forward-queue.js';
import type { NestedDevice } from './nested-device.js';
import type { NestingEvent } from './operations.js';

/** What of the guest's STE hardware gets; the rest is the host's, or means nothing to a device that is assigned. */
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
const STE_WORDS = 4;
const MASK = handedOver();
/** Pages that one scope is turned into commands for; a larger one is its whole ASID. */
const MOST_PAGES_LOG2 = 6;
const PAGE_MASK = -4096;
/** ASID in the second word of a command. */
const ASID_SHIFT = CMD_TLBI.fields.ASID.lsb - 32;

export class SmmuNesting {
  private readonly ste = new Uint32Array(STE_WORDS);

  constructor(
    private readonly bindings: Bindings,
    private readonly event: (event: NestingEvent) => void,
  ) {}

  resync(device: NestedDevice, view: NestedView): void {
    const { ste } = this;
    const state = view.stream(device.rid);
    if (state === STREAM.IDENTITY) this.bindings.toParent(device.own);
    else if (state === STREAM.BLOCKED || !view.ste(device.rid, ste)) this.bindings.toNothing(device.own);
    else if (
      (STE.get.Config(ste) & STE_CONFIG_BIT.S2) !== 0 &&
      (STE.get.Config(ste) & STE_CONFIG_BIT.PASS) !== 0
    ) {
      this.tell(device, 'a stage 2 of the guest');
      this.bindings.toNothing(device.own);
    } else {
      this.bindings.toTables(device.own, {
        format: 'smmuv3',
        ste: ste.map((word, index) => word & MASK[index]),
      });
    }
  }

  /** The CD table is the guest's: there is nothing to look for. */
  scan(_device: NestedDevice, _view: NestedView, budget: number): number {
    return budget;
  }

  changed(device: NestedDevice, scope: InvalidateScope): void {
    if (scope.rid === ANY || scope.rid === device.rid) device.stale = true;
  }

  /** A stream's configuration is its own; translations are of the VMID that all of this guest's streams share. */
  forward(device: NestedDevice, scope: InvalidateScope, queue: ForwardQueue): void {
    const concerned = scope.rid === ANY || scope.rid === device.rid;
    if (!concerned || !takes(device.own) || scope.rid === ANY) return;
    push(queue, pack(CMD_CFGI_CD_ALL, { Opcode: CMD.CFGI_CD_ALL, StreamID: device.rid }));
  }

  /** Everything of one stream, and what is translated for any. */
  forwardAll(rid: number, queue: ForwardQueue): void {
    push(queue, pack(CMD_CFGI_CD_ALL, { Opcode: CMD.CFGI_CD_ALL, StreamID: rid }));
    push(queue, pack(CMD_TLBI, { Opcode: CMD.TLBI_NSNH_ALL }));
  }

  /** Commands for a scope of translations. */
  forwardTranslations(scope: InvalidateScope, queue: ForwardQueue): void {
    if (scope.rid !== ANY) return;
    const pages = scope.log2Size - 12;
    if (scope.space === ANY || (scope.sub === ANY && pages > MOST_PAGES_LOG2)) {
      push(queue, pack(CMD_TLBI, { Opcode: CMD.TLBI_NSNH_ALL }));
    } else if (pages > MOST_PAGES_LOG2) {
      push(queue, pack(CMD_TLBI, { Opcode: CMD.TLBI_NH_ASID, ASID: scope.sub }));
    } else {
      // Below 64 aligned pages nothing is carried into the high half.
      const word0 = scope.sub === ANY ? CMD.TLBI_NH_VAA : CMD.TLBI_NH_VA;
      const word1 = scope.sub === ANY ? 0 : scope.sub << ASID_SHIFT;
      for (let page = 0; page < 2 ** pages; page++) {
        queue.command(word0, word1, (scope.lo & PAGE_MASK) + page * 4096, scope.hi);
      }
    }
  }

  private tell(device: NestedDevice, reason: string): void {
    if (device.told) return;
    device.told = true;
    this.event({ kind: 'notNestable', device: device.device, rid: device.rid, pasid: -1, reason });
  }
}

function push(queue: ForwardQueue, words: ArrayLike<number>): void {
  queue.command(words[0], words[1], words[2], words[3]);
}

function handedOver(): Uint32Array {
  const mask = new Uint32Array(STE_WORDS);
  for (const name of HANDED_OVER) {
    const { lsb, msb } = STE.fields[name];
    for (let bit = lsb; bit <= msb; bit++) mask[bit >> 5] |= 1 << (bit & 31);
  }
  return mask;
}
