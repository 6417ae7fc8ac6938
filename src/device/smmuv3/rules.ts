/**
 * Which stream table entries and context descriptors are ILLEGAL for one unit. IHI 0070 §5.2, §5.4,
 * §5.5.
 */
import type { Words } from '../../spec/define.js';
import { HTTU } from '../../spec/smmuv3/registers.js';
import { CD, EATS, S1FMT, STE, STE_CONFIG, STE_CONFIG_BIT } from '../../spec/smmuv3/structures.js';
import type { SmmuConfig } from './config.js';
import type { SmmuFormats } from './formats.js';

/**
 * True when a valid STE may be used. Fields of stages that Config leaves out are not looked at.
 * §5.2.2
 */
export function steLegal(ste: Words, config: SmmuConfig, formats: SmmuFormats): boolean {
  const stages = STE.get.Config(ste);
  // 0b0xx aborts, whatever the rest says.
  if ((stages & STE_CONFIG_BIT.PASS) === 0) return true;
  const first = (stages & STE_CONFIG_BIT.S1) !== 0;
  const second = (stages & STE_CONFIG_BIT.S2) !== 0;
  if (first && !(config.stage1 && firstLegal(ste, second, config))) return false;
  if (second && !(config.stage2 && secondLegal(ste, config, formats))) return false;
  return !config.ats || atsLegal(ste, stages, second);
}

/** What of ATS is ILLEGAL. Nothing is where no stage translates. */
function atsLegal(ste: Words, stages: number, second: boolean): boolean {
  if (stages === STE_CONFIG.BYPASS) return true;
  const stalls = STE.get.S2S(ste) === 1;
  const eats = STE.get.EATS(ste);
  if (eats === EATS.SPLIT) return stages === STE_CONFIG.NESTED && !stalls;
  return eats !== EATS.FULL || !(second && stalls);
}

/** STRW is not looked at: IDR0.HYP is clear, so there is no other stream world than NS-EL1. */
function firstLegal(ste: Words, second: boolean, config: SmmuConfig): boolean {
  if (STE.get.S1STALLD(ste) === 1 && !config.stall) return false;
  // §3.4.3: an intermediate address out of range is stage 2's matter.
  if (!second && STE.get.S1ContextPtr(ste) >= 2 ** config.outputBits) return false;
  if (config.ssidBits === 0) return true;
  const size = STE.get.S1CDMax(ste);
  if (size > config.ssidBits) return false;
  const format = STE.get.S1Fmt(ste);
  const twoLevel = format === S1FMT.TWO_LEVEL_4K || format === S1FMT.TWO_LEVEL_64K;
  return size === 0 || !twoLevel || config.twoLevel;
}

function secondLegal(ste: Words, config: SmmuConfig, formats: SmmuFormats): boolean {
  // TTF says AArch64 only, TTENDIAN little-endian only.
  if (STE.get.S2AA64(ste) === 0 || STE.get.S2ENDI(ste) === 1) return false;
  if (STE.get.S2S(ste) === 1 && !config.stall) return false;
  if (!updatesExist(STE.get.S2HA(ste), STE.get.S2HD(ste), config)) return false;
  if (formats.stage2(ste) === undefined) return false;
  return STE.get.S2TTB(ste) < 2 ** formats.outputBits(STE.get.S2PS(ste));
}

/** True when a valid context descriptor that was reached through `ste` may be used. §5.4.2 */
export function cdLegal(cd: Words, ste: Words, config: SmmuConfig, formats: SmmuFormats): boolean {
  // TTF says AArch64 only. TERM_MODEL is set: terminations are aborts.
  if (CD.get.AA64(cd) === 0 || CD.get.A(cd) === 0) return false;
  if (CD.get.S(cd) === 1 && (!config.stall || STE.get.S1STALLD(ste) === 1)) return false;
  if (!updatesExist(CD.get.HA(cd), CD.get.HD(cd), config)) return false;
  const low = CD.get.EPD0(cd) === 0;
  const high = CD.get.EPD1(cd) === 0;
  if ((low || high) && CD.get.ENDI(cd) === 1) return false;
  const reach = 2 ** formats.outputBits(CD.get.IPS(cd));
  if (low && (formats.stage1(cd, false) === undefined || CD.get.TTB0(cd) >= reach)) return false;
  return !high || (formats.stage1(cd, true) !== undefined && CD.get.TTB1(cd) < reach);
}

/** HA and HD only where IDR0.HTTU has them. */
function updatesExist(ha: number, hd: number, config: SmmuConfig): boolean {
  return (ha === 0 || config.httu >= HTTU.ACCESS_FLAG) && (hd === 0 || config.httu >= HTTU.ACCESS_AND_DIRTY);
}
