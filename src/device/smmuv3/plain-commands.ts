/**
 * Commands that the peer may carry out itself: they concern cached translations and nothing else. IHI 0070
 * §4.4, §4.7.3. CMD_TLBI_NSNH_ALL is rare, and left out.
 */
import { CMD, CMD_SYNC, CMD_TLBI, CS, TLBI_TG_GRANULE } from '../../spec/smmuv3/commands.js';
import { PLAIN, PLAIN_KIND, Plain, plainCommands } from '../peer-queue.js';
import type { SmmuConfig } from './config.js';

/** Address bits 51:32 of CMD_TLBI_S2_IPA and CMD_SYNC. */
const PHYSICAL_HI = 0xfffff;
/** Bit 1 of TTL: of 16 KiB granules level 1 has no leaves, and is as 0 (§4.4.1.1). */
const TTL_OF_16K = 2;

type Tlbi = Plain<keyof typeof CMD_TLBI.fields>;

/** What a unit with this configuration has of them. */
export function plainCommandsOf(config: SmmuConfig): Uint32Array {
  const found: Plain<string>[] = [];
  // §4.4: without stage 2 there is one VMID, 0.
  const tlbi = (opcode: number): Tlbi => {
    const command = new Plain(CMD_TLBI, PLAIN_KIND.DROP).is('Opcode', opcode).is('SSec', 0);
    return config.stage2 ? command.field(PLAIN.SPACE, 'VMID') : command;
  };
  const sync = (kind: number, cs: number): Plain<keyof typeof CMD_SYNC.fields> =>
    new Plain(CMD_SYNC, kind).is('Opcode', CMD.SYNC).is('SSec', 0).is('CS', cs);
  if (config.stage1) {
    for (const va of byAddress(config, () => tlbi(CMD.TLBI_NH_VA), 0xffff_ffff))
      found.push(va.field(PLAIN.SUB, 'ASID'));
  }
  // An address of 0 is the wire (§3.18): an interrupt, which the peer can't raise.
  const stores = sync(PLAIN_KIND.STORE, CS.SIG_IRQ)
    .some('MSIAddress')
    .address(0xffff_fffc, PHYSICAL_HI)
    .field(PLAIN.DATA, 'MSIData');
  found.push(stores, sync(PLAIN_KIND.NOTHING, CS.SIG_NONE), sync(PLAIN_KIND.NOTHING, CS.SIG_SEV));
  if (config.stage1) {
    found.push(tlbi(CMD.TLBI_NH_ASID).field(PLAIN.SUB, 'ASID'), tlbi(CMD.TLBI_NH_ALL));
    found.push(...byAddress(config, () => tlbi(CMD.TLBI_NH_VAA), 0xffff_ffff));
  }
  if (config.stage2) {
    found.push(...byAddress(config, () => tlbi(CMD.TLBI_S2_IPA), PHYSICAL_HI), tlbi(CMD.TLBI_S12_VMALL));
  }
  return plainCommands(found);
}

/** One page, or with IDR3.RIL a range of pages of the granule that TG says. §4.4.1, §4.4.1.1 */
function byAddress(config: SmmuConfig, make: () => Tlbi, high: number): Tlbi[] {
  const at = (command: Tlbi, log2: number): Tlbi => command.blocks(log2).address((-1 << log2) >>> 0, high);
  if (!config.rangeInvalidation) return [at(make(), 12)];
  return TLBI_TG_GRANULE.map((granule, tg) => {
    if (granule === 0) return at(make().is('TG', tg), 12);
    const range = make().field(PLAIN.NUMBER, 'NUM').field(PLAIN.SCALE, 'SCALE');
    range
      .is('TG', tg)
      .some('NUM')
      .some('SCALE')
      .some('TTL', granule === 14 ? TTL_OF_16K : -1);
    return at(range, granule);
  });
}
