/**
 * Commands and structures of an SMMUv3 guest. IHI 0070 chapters 4 and 5. ASIDs are not told apart,
 * so what is asked of one ASID has no verdict. (Where stores to tables are trapped, none is
 * needed.)
 */
import { ANY } from '../../base/ids.js';
import { pageOf } from '../../base/page.js';
import type { GuestMemory } from '../../memory/guest-memory.js';
import { ANY_COMMAND, CMD, CMD_TLBI, COMMAND_BYTES, TLBI_TG_GRANULE } from '../../spec/smmuv3/commands.js';
import {
  CMDQ_BASE,
  CMDQ_CONS,
  CMDQ_PROD,
  CR0,
  CR0ACK,
  GERROR,
  GERRORN,
  IDR0,
  IDR1,
  STRTAB_BASE,
  STRTAB_BASE_CFG,
  STRTAB_FMT,
} from '../../spec/smmuv3/registers.js';
import { L1STD, STE, STE_CONFIG } from '../../spec/smmuv3/structures.js';
import { type Asked, asked, type GuestCommands, Ring, type TagPair } from './guest-commands.js';

const NOTHING: readonly Asked[] = [];

export class SmmuCommands implements GuestCommands {
  readonly #registers: Uint32Array;
  readonly #memory: GuestMemory;
  readonly #ring = new Ring();
  readonly #words = new Uint32Array(16);

  constructor(registers: Uint32Array, memory: GuestMemory) {
    this.#registers = registers;
    this.#memory = memory;
    this.#ring.restart(this.#index(CMDQ_PROD.offset));
  }

  get restarts(): number {
    return this.#ring.restarts;
  }

  get done(): number {
    return this.#ring.done(this.#index(CMDQ_CONS.offset), this.#wrap());
  }

  written(offset: number, size: number, lo: number, _hi: number): readonly Asked[] {
    if (size < 4) return NOTHING;
    const queueing = CR0ACK.get.CMDQEN(this.#registers, CR0ACK.offset >> 2) === 1;
    if (offset === CMDQ_PROD.offset && queueing) return [...this.#queued(lo)];
    if (offset === CMDQ_PROD.offset) this.#ring.restart((lo & 0xfffff) % this.#wrap());
    if (offset === GERRORN.offset && this.#stopped) return this.#again();
    if (offset !== CR0.offset) return NOTHING;
    if (!queueing) this.#ring.restart(this.#index(CMDQ_CONS.offset));
    const enabled = CR0ACK.get.SMMUEN(this.#registers, CR0ACK.offset >> 2);
    return CR0.get.SMMUEN(Uint32Array.of(lo)) === enabled ? NOTHING : [asked(0, { afresh: true })];
  }

  tags(rid: number, _pasid: number): TagPair | undefined {
    if (CR0ACK.get.SMMUEN(this.#registers, CR0ACK.offset >> 2) === 0) return undefined;
    const entry = this.#streamEntry(rid);
    if (entry === undefined || !this.#memory.loadWords(entry, this.#words, 16)) return undefined;
    const config = STE.get.Config(this.#words);
    if (STE.get.V(this.#words) === 0 || config <= STE_CONFIG.BYPASS) return undefined;
    const second = IDR0.get.S2P(this.#registers, IDR0.offset >> 2) === 1;
    return { space: second ? STE.get.S2VMID(this.#words) : 0, sub: ANY };
  }

  /** The queue waits for an error to be acknowledged. */
  get #stopped(): boolean {
    const error = GERROR.get.CMDQ_ERR(this.#registers, GERROR.offset >> 2);
    return error !== GERRORN.get.CMDQ_ERR(this.#registers, GERRORN.offset >> 2);
  }

  /** It goes on where it stopped, and software may have written other commands there (§7.1). */
  #again(): readonly Asked[] {
    this.#ring.restart(this.#index(CMDQ_CONS.offset));
    return [...this.#queued(this.#registers[CMDQ_PROD.offset >> 2])];
  }

  /** A size beyond IDR1.CMDQS is that size. §6.3.25 */
  get #log2Size(): number {
    const most = IDR1.get.CMDQS(this.#registers, IDR1.offset >> 2);
    return Math.min(CMDQ_BASE.get.LOG2SIZE(this.#registers, CMDQ_BASE.offset >> 2), most);
  }

  /** Index and wrap bit count to this. */
  #wrap(): number {
    return 2 ** (this.#log2Size + 1);
  }

  #index(register: number): number {
    return (this.#registers[register >> 2] & 0xfffff) % this.#wrap();
  }

  *#queued(tail: number): Iterable<Asked> {
    const wrap = this.#wrap();
    const address = CMDQ_BASE.get.ADDR(this.#registers, CMDQ_BASE.offset >> 2);
    // §3.5.1: the base is aligned to the size of the queue, at least to 32 bytes.
    const base = address - (address % Math.max(32, (wrap / 2) * COMMAND_BYTES));
    for (const { slot, order } of this.#ring.submit((tail & 0xfffff) % wrap, wrap)) {
      const words = this.#words;
      if (!this.#memory.loadWords(base + (slot % (wrap / 2)) * COMMAND_BYTES, words, 4)) continue;
      const found = commandAsks(order, words);
      if (found !== undefined) yield found;
    }
  }

  /** §3.3.1, §3.3.2 */
  #streamEntry(sid: number): number | undefined {
    const registers = this.#registers;
    const at = STRTAB_BASE_CFG.offset >> 2;
    const log2Size = STRTAB_BASE_CFG.get.LOG2SIZE(registers, at);
    const base = STRTAB_BASE.get.ADDR(registers, STRTAB_BASE.offset >> 2);
    if (sid >= 2 ** log2Size) return undefined;
    if (STRTAB_BASE_CFG.get.FMT(registers, at) !== STRTAB_FMT.TWO_LEVEL) {
      return base - (base % (2 ** log2Size * STE.bytes)) + sid * STE.bytes;
    }
    const split = Math.max(6, STRTAB_BASE_CFG.get.SPLIT(registers, at));
    const bytes = Math.max(64, 2 ** Math.max(0, log2Size - split) * L1STD.bytes);
    const words = this.#words;
    if (!this.#memory.loadWords(base - (base % bytes) + (sid >>> split) * L1STD.bytes, words, 2))
      return undefined;
    const span = L1STD.get.Span(words);
    const index = sid % 2 ** split;
    if (span === 0 || index >= 2 ** (span - 1)) return undefined;
    return L1STD.get.L2Ptr(words) + index * STE.bytes;
  }
}

function commandAsks(order: number, words: Uint32Array): Asked | undefined {
  const opcode = ANY_COMMAND.get.Opcode(words);
  const space = CMD_TLBI.get.VMID(words);
  switch (opcode) {
    case CMD.CFGI_STE:
    case CMD.CFGI_CD:
    case CMD.CFGI_CD_ALL:
      return asked(order, { rid: words[1] });
    case CMD.CFGI_STE_RANGE: {
      const bits = words[2] & 0x1f;
      return bits === 31 ? asked(order) : asked(order, { rid: words[1], ridMask: 2 ** (bits + 1) - 1 });
    }
    case CMD.TLBI_NSNH_ALL:
      return asked(order);
    case CMD.TLBI_NH_ALL:
    case CMD.TLBI_S12_VMALL:
      return asked(order, { space });
    case CMD.TLBI_NH_VAA:
    case CMD.TLBI_S2_IPA: {
      const first = pageOf(words[2], words[3]);
      return asked(order, { space, first, last: first + pagesOf(words) - 1 });
    }
    default:
      return undefined;
  }
}

/**
 * Pages of 4 KiB that a TLBI by address covers: (NUM + 1) × 2^SCALE granules, or one granule of any
 * size. §4.4.1
 */
function pagesOf(words: Uint32Array): number {
  const { get } = CMD_TLBI;
  const granule = TLBI_TG_GRANULE[get.TG(words)];
  return granule === 0 ? 1 : (get.NUM(words) + 1) * 2 ** get.SCALE(words) * 2 ** (granule - 12);
}
