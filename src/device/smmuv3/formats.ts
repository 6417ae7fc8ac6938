/**
 * Translation table formats that stream table entries and context descriptors ask for. IHI 0070
 * §3.4, §5.2, §5.4.
 */

import { maskIn, masksIn, shiftOf, type Words } from '../../spec/define.js';
import type { PageTableFormat } from '../../spec/pagetable/format.js';
import {
  ACCESS_FLAG,
  type AccessFlagMode,
  type Granule,
  stage2Concatenation,
  stage2StartLevel,
  vmsaStage1,
  vmsaStage2,
} from '../../spec/pagetable/vmsa.js';
import { ADDRESS_BITS } from '../../spec/smmuv3/registers.js';
import { CD, STE, TG0_GRANULE, TG1_GRANULE } from '../../spec/smmuv3/structures.js';
import type { SmmuConfig } from './config.js';

/** Largest TxSZ and S2T0SZ without small translation tables (IDR3.STT). §5.4 */
const MAX_TSZ = 39;
/** Smallest TxSZ and S2T0SZ; with 52-bit addresses and the 64 KiB granule {@link MIN_TSZ_LARGE}. */
const MIN_TSZ = 16;
const MIN_TSZ_LARGE = 12;

/** Fields of a CD that its formats depend on, in its second word; HAD in the third and fifth. */
const CD_WORD1 = masksIn(CD, 1, ['IPS', 'AFFD', 'WXN', 'TBI0', 'TBI1', 'PAN', 'HD', 'HA']);
const HAD = maskIn(CD.fields.HAD0);
/** T0SZ and TG0; T1SZ and TG1 stand so in the upper half. */
const HALF_BITS = masksIn(CD, 0, ['T0SZ', 'TG0']);
const HALF_SHIFT = shiftOf(CD.fields.T1SZ);
/** Fields of an STE that its stage 2 depends on, in its sixth word. */
const STE_WORD5 = masksIn(STE, 5, ['S2T0SZ', 'S2SL0', 'S2TG', 'S2PS', 'S2AFFD', 'S2PTW', 'S2HD', 'S2HA']);
/** A guest that tries every combination must not fill memory. */
const MOST_KEPT = 1024;

export class SmmuFormats {
  readonly #config: SmmuConfig;
  readonly #firsts = new Map<number, PageTableFormat | undefined>();
  readonly #seconds = new Map<number, PageTableFormat | undefined>();
  /** Stands where no table is described yet. */
  readonly none: PageTableFormat;

  constructor(config: SmmuConfig) {
    this.#config = config;
    this.none = vmsaStage1({
      granule: config.granules[0] as Granule,
      inputBits: 48,
      outputBits: config.outputBits,
      largePhysical: false,
      accessFlag: ACCESS_FLAG.IGNORE,
      dirtyState: false,
      upper: false,
      topByteIgnored: false,
      hierarchical: false,
      writeExecuteNever: false,
      privilegedAccessNever: false,
      singlePrivilege: false,
    });
  }

  /** Effective output size of CD.IPS or STE.S2PS: at most OAS. */
  outputBits(size: number): number {
    return Math.min(ADDRESS_BITS[size], this.#config.outputBits);
  }

  /**
   * The format of TTB0 (`upper` false) or TTB1 of a context descriptor; undefined when the
   * descriptor is ILLEGAL.
   */
  stage1(cd: Words, upper: boolean): PageTableFormat | undefined {
    const half = (upper ? cd[0] >>> HALF_SHIFT : cd[0]) & HALF_BITS;
    const had = ((upper ? cd[4] : cd[2]) & HAD) !== 0 ? 1 : 0;
    const key = (((cd[1] & CD_WORD1) << 8) | half) * 4 + had * 2 + (upper ? 1 : 0);
    const known = this.#firsts.get(key);
    if (known !== undefined || this.#firsts.has(key)) return known;
    const format = this.#makeStage1(cd, upper);
    if (this.#firsts.size >= MOST_KEPT) this.#firsts.clear();
    this.#firsts.set(key, format);
    return format;
  }

  #makeStage1(cd: Words, upper: boolean): PageTableFormat | undefined {
    const granule = upper ? TG1_GRANULE[CD.get.TG1(cd)] : TG0_GRANULE[CD.get.TG0(cd)];
    const size = upper ? CD.get.T1SZ(cd) : CD.get.T0SZ(cd);
    if (!this.#granuleExists(granule) || !this.#sizeExists(size, granule)) return undefined;
    const ha = CD.get.HA(cd) === 1;
    const outputBits = this.outputBits(CD.get.IPS(cd));
    return vmsaStage1({
      granule,
      inputBits: 64 - size,
      outputBits,
      largePhysical: this.#config.outputBits === 52,
      accessFlag: accessFlag(ha, CD.get.AFFD(cd) === 1),
      dirtyState: ha && CD.get.HD(cd) === 1,
      upper,
      topByteIgnored: (upper ? CD.get.TBI1(cd) : CD.get.TBI0(cd)) === 1,
      hierarchical: (upper ? CD.get.HAD1(cd) : CD.get.HAD0(cd)) === 0,
      writeExecuteNever: CD.get.WXN(cd) === 1,
      privilegedAccessNever: CD.get.PAN(cd) === 1,
      singlePrivilege: false,
    });
  }

  /** The format of a stream table entry's stage 2; undefined when the entry is ILLEGAL. */
  stage2(ste: Words): PageTableFormat | undefined {
    const key = ste[5] & STE_WORD5;
    const known = this.#seconds.get(key);
    if (known !== undefined || this.#seconds.has(key)) return known;
    const format = this.#makeStage2(ste);
    if (this.#seconds.size >= MOST_KEPT) this.#seconds.clear();
    this.#seconds.set(key, format);
    return format;
  }

  #makeStage2(ste: Words): PageTableFormat | undefined {
    const granule = TG0_GRANULE[STE.get.S2TG(ste)];
    const size = STE.get.S2T0SZ(ste);
    if (!this.#granuleExists(granule) || !this.#sizeExists(size, granule)) return undefined;
    const inputBits = 64 - size;
    // IAS is OAS, as there are no AArch32 formats (§3.4).
    if (inputBits > this.#config.outputBits) return undefined;
    const startLevel = stage2StartLevel(granule, STE.get.S2SL0(ste));
    if (startLevel === undefined || stage2Concatenation(granule, inputBits, startLevel) === undefined) {
      return undefined;
    }
    const ha = STE.get.S2HA(ste) === 1;
    return vmsaStage2({
      granule,
      inputBits,
      outputBits: this.outputBits(STE.get.S2PS(ste)),
      largePhysical: this.#config.outputBits === 52,
      accessFlag: accessFlag(ha, STE.get.S2AFFD(ste) === 1),
      dirtyState: ha && STE.get.S2HD(ste) === 1,
      startLevel,
      executeNeverByPrivilege: true,
      protectedTableWalk: STE.get.S2PTW(ste) === 1,
    });
  }

  #granuleExists(granule: number): granule is Granule {
    return this.#config.granules.includes(granule);
  }

  #sizeExists(size: number, granule: number): boolean {
    const large = granule === 16 && this.#config.outputBits === 52;
    return size >= (large ? MIN_TSZ_LARGE : MIN_TSZ) && size <= MAX_TSZ;
  }
}

function accessFlag(hardware: boolean, faultDisabled: boolean): AccessFlagMode {
  if (hardware) return ACCESS_FLAG.UPDATE;
  return faultDisabled ? ACCESS_FLAG.IGNORE : ACCESS_FLAG.FAULT;
}
