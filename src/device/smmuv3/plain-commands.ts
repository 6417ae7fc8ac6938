/**
 * Which encodings of commands the peer may carry out itself: they concern cached translations and
 * nothing else. IHI 0070 §4.4, §4.7.3.
 */
import { PAGE_LOG2 } from '../../base/page.js';
import { CMD, CMD_SYNC, CMD_TLBI, CS, TLBI_TG_GRANULE } from '../../spec/smmuv3/commands.js';
import { PLAIN, PLAIN_KIND, Plain } from '../peer-queue.js';
import type { SmmuConfig } from './config.js';

/** Address bits 51:32, of CMD_TLBI_S2_IPA and CMD_SYNC. */
export const PHYSICAL_HI = 0xfffff;
/** Bit 1 of TTL: of 16 KiB granules level 1 has no leaves, and is as 0 (§4.4.1.1). */
const TTL_OF_16K = 2;

type Tlbi = Plain<keyof typeof CMD_TLBI.fields>;

/** §4.4: without stage 2 there is one VMID, 0. */
function tlbi(opcode: number, config: SmmuConfig): Tlbi {
  const command = new Plain(CMD_TLBI, PLAIN_KIND.DROP).is('Opcode', opcode).is('SSec', 0);
  return config.stage2 ? command.field(PLAIN.SPACE, 'VMID') : command;
}

/** Everything of a VMID. */
export function plainVmid(config: SmmuConfig, opcode: number): readonly Plain<string>[] {
  return [tlbi(opcode, config).rare()];
}

/** Everything of an ASID. */
export function plainAsid(config: SmmuConfig, opcode: number): readonly Plain<string>[] {
  return [tlbi(opcode, config).field(PLAIN.SUB, 'ASID').rare()];
}

/** One page, or with IDR3.RIL a range of pages of the granule that TG says. §4.4.1, §4.4.1.1 */
export function plainBlocks(config: SmmuConfig, opcode: number): readonly Plain<string>[] {
  const high = opcode === CMD.TLBI_S2_IPA ? PHYSICAL_HI : 0xffff_ffff;
  const at = (command: Tlbi, log2: number): Tlbi => command.blocks(log2).address((-1 << log2) >>> 0, high);
  const make = (): Tlbi => {
    const command = tlbi(opcode, config);
    return opcode === CMD.TLBI_NH_VA ? command.field(PLAIN.SUB, 'ASID') : command.rare();
  };
  if (!config.rangeInvalidation) return [at(make(), PAGE_LOG2)];
  return TLBI_TG_GRANULE.map((granule, tg) => {
    if (granule === 0) return at(make().is('TG', tg), PAGE_LOG2);
    const range = make().field(PLAIN.NUMBER, 'NUM').field(PLAIN.SCALE, 'SCALE');
    range
      .is('TG', tg)
      .some('NUM')
      .some('SCALE')
      .some('TTL', granule === 14 ? TTL_OF_16K : -1);
    return at(range, granule);
  });
}

/** An address of 0 is the wire (§3.18): an interrupt, which the peer can't raise. */
export function plainSync(): readonly Plain<string>[] {
  const sync = (kind: number, cs: number): Plain<keyof typeof CMD_SYNC.fields> =>
    new Plain(CMD_SYNC, kind).is('Opcode', CMD.SYNC).is('SSec', 0).is('CS', cs);
  const stores = sync(PLAIN_KIND.STORE, CS.SIG_IRQ)
    .some('MSIAddress')
    .address(0xffff_fffc, PHYSICAL_HI)
    .field(PLAIN.DATA, 'MSIData');
  return [stores, sync(PLAIN_KIND.NOTHING, CS.SIG_NONE), sync(PLAIN_KIND.NOTHING, CS.SIG_SEV)];
}
