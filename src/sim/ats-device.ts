import { ACCESS, ATS, DEVICE_TLB, PAGE_RESPONSE, REQUEST, TRANSLATE_STATUS } from '../device/iommu.js';
import type { BusPageResponse, DeviceDrop, Machine, Translation } from './machine.js';
import { throughSpan } from './sim-iotlb.js';

/** One translation that the device keeps. */
interface Kept {
  readonly pasid: number;
  readonly span: readonly number[];
  readonly input: bigint;
  readonly log2Size: number;
  readonly permissions: number;
}

/** How an access of the device ended. */
type AtsOutcome =
  | 'done'
  /** The translation request was refused: Unsupported Request or Completer Abort. */
  | 'unsupported'
  | 'aborted'
  /** Nothing that allows the access is mapped. */
  | 'denied'
  /** The translated access was refused. */
  | 'forbidden'
  /** The address is to be used untranslated, and that was refused. */
  | 'blocked'
  /** A page was asked for, and the answer was not Success. */
  | 'not paged in';

interface AtsDeviceOptions {
  /** Ask for pages that are missing. Default false. */
  readonly pri?: boolean;
}

/**
 * A device that translates ahead (PCI Express ATS). It keeps translations until an invalidation
 * request drops them, and moves data with translated requests. With PRI it asks for missing pages.
 * It does one access at a time.
 */
export class AtsDevice {
  /** How the device answers invalidation requests. */
  result: number = DEVICE_TLB.DONE;
  /** Invalidation requests received. */
  drops = 0;
  /** Translation requests sent. */
  asked = 0;
  /** Accesses that were made untranslated, because the answer said so. */
  untranslated = 0;
  readonly #kept: Kept[] = [];
  /** Page requests without an answer: group → PASID. */
  readonly #groups = new Map<number, number>();
  #nextGroup = 0;

  constructor(
    readonly machine: Machine,
    readonly rid: number,
    readonly options: AtsDeviceOptions = {},
  ) {
    machine.deviceTlbs.set(rid, (drop) => this.#drop(drop));
  }

  /** Translations that the device keeps. */
  get size(): number {
    return this.#kept.length;
  }

  /** Groups of page requests without an answer. */
  get unanswered(): number {
    return this.#groups.size;
  }

  /**
   * Reads or writes one 32-bit word through the device's own translation. `value` undefined: a
   * read. A write to an address without RAM is lost.
   */
  access(pasid: number, address: bigint, value?: number): { outcome: AtsOutcome; value: number } {
    const access = value === undefined ? ACCESS.READ : ACCESS.WRITE;
    const found = this.translation(pasid, address, access);
    if (typeof found === 'string') return { outcome: found, value: 0 };
    const gpa =
      (found.permissions & ATS.UNTRANSLATED_ONLY) !== 0
        ? this.#untranslated(pasid, address, access)
        : this.#translated(found.gpa, access);
    if (typeof gpa === 'string') return { outcome: gpa, value: 0 };
    if (value === undefined) return { outcome: 'done', value: this.machine.ram.load32(gpa) >>> 0 };
    if (this.machine.ram.contains(gpa, 4)) this.machine.ram.store32(gpa, value);
    return { outcome: 'done', value };
  }

  /**
   * The translation of an address for this access, kept or asked for. With PRI a missing page is
   * requested first.
   */
  translation(pasid: number, address: bigint, access: number): Translation | AtsOutcome {
    const first = this.#lookup(pasid, address, access) ?? this.#ask(pasid, address, access);
    if (first !== 'denied' || !(this.options.pri ?? false)) return first;
    const code = this.awaitResponse(this.requestPages(pasid, [{ address, access }]));
    if (code !== PAGE_RESPONSE.SUCCESS) return 'not paged in';
    return this.#ask(pasid, address, access);
  }

  /** Sends one group of page requests and returns its index. */
  requestPages(
    pasid: number,
    pages: readonly { readonly address: bigint; readonly access: number }[],
  ): number {
    const group = this.#nextGroup;
    this.#nextGroup = (group + 1) & 0x1ff;
    this.#groups.set(group, pasid);
    pages.forEach(({ address, access }, index) => {
      const last = index === pages.length - 1;
      const page = address & ~0xfffn;
      this.machine.requestPage({ rid: this.rid, pasid, access, address: page, group, last });
    });
    return group;
  }

  /** Says that the device has stopped using a PASID. */
  stopMarker(pasid: number): void {
    this.machine.requestPage({ rid: this.rid, pasid, access: 0, address: 0n, group: 0, last: true });
  }

  /** Takes the answer to a group, if it has come; the group is then free. */
  takeResponse(group: number): number | undefined {
    const mine = (response: BusPageResponse): boolean =>
      response.rid === this.rid && response.group === group;
    const at = this.machine.pageResponses.findIndex(mine);
    if (at < 0) return undefined;
    this.#groups.delete(group);
    return this.machine.pageResponses.splice(at, 1)[0].code;
  }

  /** Called with an invalidation request before it is obeyed. */
  onDrop: (drop: DeviceDrop) => void = () => {};

  /** Called while the device waits; runs the guest's side. */
  onWait: () => void = () => {};

  /** Waits for the answer to a group. */
  awaitResponse(group: number): number {
    for (let wait = 0; wait < 20_000; wait++) {
      const code = this.takeResponse(group);
      if (code !== undefined) return code;
      this.onWait();
      this.machine.idle(wait < 200 ? 0 : 1);
    }
    throw new Error(`simulated device: page request group ${group} was never answered`);
  }

  /** A translated request names no PASID: its address belongs to no address space any more. */
  #translated(address: number, access: number): number | AtsOutcome {
    const answer = this.machine.request(this.rid, -1, access, BigInt(address), REQUEST.TRANSLATED, false);
    if (answer.status !== TRANSLATE_STATUS.OK) return 'forbidden';
    return throughSpan(answer.span, 0, BigInt(address)).gpa;
  }

  #untranslated(pasid: number, address: bigint, access: number): number | AtsOutcome {
    this.untranslated++;
    return this.machine.translate(this.rid, pasid, access, address)?.gpa ?? 'blocked';
  }

  #lookup(pasid: number, address: bigint, access: number): Translation | undefined {
    const kept = this.#kept.find(
      (entry) =>
        entry.pasid === pasid &&
        (entry.permissions & access) === access &&
        entry.input >> BigInt(entry.log2Size) === address >> BigInt(entry.log2Size),
    );
    return kept === undefined ? undefined : throughSpan(kept.span, 0, address);
  }

  #ask(pasid: number, address: bigint, access: number): Translation | AtsOutcome {
    const before = this.drops;
    this.asked++;
    const answer = this.machine.request(this.rid, pasid, access, address, REQUEST.TRANSLATION, false);
    if (answer.status === TRANSLATE_STATUS.COMPLETER_ABORT) return 'aborted';
    if (answer.status !== TRANSLATE_STATUS.OK) return 'unsupported';
    const { span } = answer;
    const [lo, hi, , , log2Size, permissions] = span;
    if ((permissions & access) !== access) return 'denied';
    const input = (BigInt(hi) << 32n) | BigInt(lo);
    // An invalidation that came while the answer was in flight may cover it.
    const overtaken = this.drops !== before;
    if (!answer.once && !overtaken) this.#kept.push({ pasid, span, input, log2Size, permissions });
    return throughSpan(span, 0, address);
  }

  #drop(drop: DeviceDrop): number {
    const { pasid, address, log2Size, global } = drop;
    this.drops++;
    this.onDrop(drop);
    if (this.result !== DEVICE_TLB.DONE) return this.result;
    for (let at = this.#kept.length - 1; at >= 0; at--) {
      const kept = this.#kept[at];
      if (!global && kept.pasid !== pasid) continue;
      const shift = BigInt(Math.max(log2Size, kept.log2Size));
      if (log2Size >= 64 || kept.input >> shift === address >> shift) this.#kept.splice(at, 1);
    }
    return DEVICE_TLB.DONE;
  }
}
