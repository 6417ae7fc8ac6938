/** Commands that an SMMU must refuse, and what software does about it. IHI 0070 §4.1.1, §7.1 */
import { CMD } from '../../src/spec/smmuv3/commands.js';
import type { Rng } from '../fuzz/rng.js';
import type { Command, CommandQueue } from './smmu-commands.js';
import type { SmmuKind } from './smmu-machine.js';

const SSEC = 1n << 10n;
const GOOD: Command = [BigInt(CMD.SYNC), 0n];

/** A command that is wrong, the error, and its repair. @returns what it was */
export function breakCommands(rng: Rng, commands: CommandQueue, kind: SmmuKind): string {
  const opcode = (name: keyof typeof CMD): bigint => BigInt(CMD[name]);
  const wrongs: readonly (readonly [string, Command])[] = [
    ['opcode 0', [0n, 0n]],
    ['unknown opcode', [BigInt(rng.pick([0x0f, 0x14, 0x31, 0x50, 0x70, 0xff])), 0n]],
    ['CFGI_STE, SSec', [opcode('CFGI_STE') | SSEC, 0n]],
    ['CFGI_STE_RANGE, SSec', [opcode('CFGI_STE_RANGE') | SSEC, 31n]],
    ['CFGI_CD, SSec', [opcode('CFGI_CD') | SSEC, 0n]],
    ['TLBI_NSNH_ALL, SSec', [opcode('TLBI_NSNH_ALL') | SSEC, 0n]],
    ['TLBI_EL2_ALL', [opcode('TLBI_EL2_ALL'), 0n]],
    ['TLBI_EL3_ALL', [opcode('TLBI_EL3_ALL'), 0n]],
    ['ATC_INV', [opcode('ATC_INV'), 0n]],
    ['PRI_RESP', [opcode('PRI_RESP'), 0n]],
    ['RESUME', [opcode('RESUME'), 0n]],
    ['STALL_TERM', [opcode('STALL_TERM'), 0n]],
    ['PREFETCH_CONFIG', [opcode('PREFETCH_CONFIG'), 0n]],
    ['SYNC, CS 3', [opcode('SYNC') | (3n << 12n), 0n]],
    ['range of nothing', [opcode('TLBI_NH_VA'), 1n << 10n]],
    ...(kind.stages === '1' ? [['TLBI_S12_VMALL', [opcode('TLBI_S12_VMALL'), 0n]] as const] : []),
    ...(kind.stages === '2'
      ? [['TLBI_NH_ALL', [opcode('TLBI_NH_ALL'), 0n]] as const, ['CFGI_CD', [opcode('CFGI_CD'), 0n]] as const]
      : []),
  ];
  const [name, wrong] = rng.pick(wrongs);
  commands.submit(`wrong command: ${name}`, GOOD, wrong);
  commands.repair(GOOD);
  return name;
}
