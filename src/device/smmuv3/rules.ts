/** Which stream table entries and context descriptors are ILLEGAL for one unit. IHI 0070 §5.2, §5.4, §5.5. */
import type { Words } from '../../spec/define.js';
import { HTTU } from '../../spec/smmuv3/registers.js';
import { CD, S1FMT, STE, STE_CONFIG_BIT, STRW } from '../../spec/smmuv3/structures.js';
import type { SmmuConfig } from './config.js';
import type { Formats } from './formats.js';

/** True when a valid STE may be used. Fields of stages that Config leaves out are not looked at. */
export function steLegal(ste: Words, config: SmmuConfig, formats: Formats): boolean {
  const stages = STE.get.Config(ste);
  // 0b0xx aborts, whatever the rest says.
  if ((stages & STE_CONFIG_BIT.PASS) === 0) return true;
  const first = (stages & STE_CONFIG_BIT.S1) !== 0;
  const second = (stages & STE_CONFIG_BIT.S2) !== 0;
  if (first && !(config.stage1 && firstLegal(ste, config))) return false;
  return !second || (config.stage2 && secondLegal(ste, config, formats));
}

function firstLegal(ste: Words, config: SmmuConfig): boolean {
  // IDR0.HYP is clear: no other stream world than NS-EL1.
  if (STE.get.STRW(ste) !== STRW.NS_EL1) return false;
  if (config.ssidBits === 0) return true;
  const size = STE.get.S1CDMax(ste);
  if (size > config.ssidBits) return false;
  const format = STE.get.S1Fmt(ste);
  const twoLevel = format === S1FMT.TWO_LEVEL_4K || format === S1FMT.TWO_LEVEL_64K;
  return size === 0 || !twoLevel || config.twoLevel;
}

function secondLegal(ste: Words, config: SmmuConfig, formats: Formats): boolean {
  // TTF says AArch64 only, TTENDIAN little-endian only, STALL_MODEL no stalls (§5.5).
  if (STE.get.S2AA64(ste) === 0 || STE.get.S2ENDI(ste) === 1 || STE.get.S2S(ste) === 1) return false;
  if (!updatesExist(STE.get.S2HA(ste), STE.get.S2HD(ste), config)) return false;
  if (formats.stage2(ste) === undefined) return false;
  return STE.get.S2TTB(ste) < 2 ** formats.outputBits(STE.get.S2PS(ste));
}

/** True when a valid context descriptor may be used. */
export function cdLegal(cd: Words, config: SmmuConfig, formats: Formats): boolean {
  if (CD.get.AA64(cd) === 0 || CD.get.ENDI(cd) === 1) return false;
  // TERM_MODEL is set: terminations are aborts. STALL_MODEL: no stalls (§5.5).
  if (CD.get.A(cd) === 0 || CD.get.S(cd) === 1) return false;
  if (!updatesExist(CD.get.HA(cd), CD.get.HD(cd), config)) return false;
  const reach = 2 ** formats.outputBits(CD.get.IPS(cd));
  if (CD.get.EPD0(cd) === 0 && (formats.stage1(cd, false) === undefined || CD.get.TTB0(cd) >= reach)) {
    return false;
  }
  return CD.get.EPD1(cd) === 1 || (formats.stage1(cd, true) !== undefined && CD.get.TTB1(cd) < reach);
}

/** HA and HD only where IDR0.HTTU has them. */
function updatesExist(ha: number, hd: number, config: SmmuConfig): boolean {
  return (ha === 0 || config.httu >= HTTU.ACCESS_FLAG) && (hd === 0 || config.httu >= HTTU.ACCESS_AND_DIRTY);
}
