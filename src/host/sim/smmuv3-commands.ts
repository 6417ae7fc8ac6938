/** What of a guest's commands a host forwards, and how it makes them its own. IHI 0070 §4. */
import { pack } from '../../spec/define.js';
import {
  ANY_COMMAND,
  CMD,
  CMD_ATC_INV,
  CMD_TLBI,
  COMMAND_BYTES,
  commandName,
} from '../../spec/smmuv3/commands.js';
import { HostError } from '../host-errors.js';
import type { VirtualIommu } from './driver.js';

/**
 * The command `words[from…]` of a guest, with the host's VMID or StreamID. Throws {@link HostError}
 * BAD_INVALIDATION.
 */
export function convertCommand(words: Uint32Array, from: number, guest: VirtualIommu): Uint32Array {
  const command = words.slice(from, from + COMMAND_BYTES / 4);
  const opcode = ANY_COMMAND.get.Opcode(command);
  if (ANY_COMMAND.get.SSec(command) !== 0) throw refused(opcode, 'SSec');
  switch (opcode) {
    case CMD.TLBI_NSNH_ALL:
    case CMD.TLBI_NH_ALL:
      return pack(CMD_TLBI, { Opcode: CMD.TLBI_NH_ALL, VMID: guest.parent.tag }) as Uint32Array;
    case CMD.TLBI_NH_ASID:
    case CMD.TLBI_NH_VA:
    case CMD.TLBI_NH_VAA:
      return pack(CMD_TLBI, { VMID: guest.parent.tag }, command) as Uint32Array;
    case CMD.CFGI_CD:
    case CMD.CFGI_CD_ALL:
    case CMD.ATC_INV: {
      const rid = guest.streams.get(CMD_ATC_INV.get.StreamID(command));
      if (rid === undefined) throw refused(opcode, `StreamID ${CMD_ATC_INV.get.StreamID(command)}`);
      return pack(CMD_ATC_INV, { StreamID: rid }, command) as Uint32Array;
    }
    default:
      throw refused(opcode, 'not forwarded');
  }
}

function refused(opcode: number, detail: string): HostError {
  return new HostError('BAD_INVALIDATION', `${commandName(opcode)}: ${detail}`);
}
