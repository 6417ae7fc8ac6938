/** Command and event queue of the host's SMMUv3, as its kernel drives them. IHI 0070 §3.5. */

import { pack } from '../../spec/define.js';
import { ANY_COMMAND, CMD, CMD_SYNC, COMMAND_BYTES, commandName } from '../../spec/smmuv3/commands.js';
import { EVENT_BYTES } from '../../spec/smmuv3/events.js';
import {
  CMDQ_BASE,
  CMDQ_CONS,
  CMDQ_PROD,
  EVENTQ_BASE,
  EVENTQ_CONS,
  EVENTQ_PROD,
} from '../../spec/smmuv3/registers.js';
import type { HostMemory } from './memory.js';
import type { HostUnit } from './unit.js';

const COMMANDS_LOG2 = 8;
const EVENTS_LOG2 = 7;

export class SmmuQueues {
  readonly #unit: HostUnit;
  readonly #memory: HostMemory;
  readonly #commands: number;
  readonly #events: number;
  #produced = 0;
  #consumed = 0;
  readonly #syncWords = pack(CMD_SYNC, { Opcode: CMD.SYNC });

  constructor(unit: HostUnit, memory: HostMemory) {
    this.#unit = unit;
    this.#memory = memory;
    this.#commands = memory.pool.take('fixed');
    this.#events = memory.pool.take('fixed');
    unit.write64(CMDQ_BASE.offset, this.#commands + COMMANDS_LOG2);
    unit.write64(EVENTQ_BASE.offset, this.#events + EVENTS_LOG2);
  }

  /** Puts a command on the queue; it takes effect at the next {@link sync} at the latest. */
  push(words: ArrayLike<number>, from = 0): void {
    const at = this.#commands + (this.#produced % 2 ** COMMANDS_LOG2) * COMMAND_BYTES;
    this.#memory.store64(at, (words[from] as number) | 0, (words[from + 1] as number) | 0);
    this.#memory.store64(at + 8, (words[from + 2] as number) | 0, (words[from + 3] as number) | 0);
    this.#produced = (this.#produced + 1) % 2 ** (COMMANDS_LOG2 + 1);
    if (this.#produced % 2 ** COMMANDS_LOG2 === 0) this.#kick();
  }

  /** CMD_SYNC: everything that was pushed is done. */
  sync(): void {
    this.push(this.#syncWords);
    this.#kick();
  }

  #kick(): void {
    this.#unit.write32(CMDQ_PROD.offset, this.#produced);
    const at = CMDQ_CONS.get.RD(this.#unit.registers, CMDQ_CONS.offset >> 2);
    if (at === this.#produced) return;
    const words = new Uint32Array(4);
    this.#memory.loadWords(this.#commands + (at % 2 ** COMMANDS_LOG2) * COMMAND_BYTES, words, 4);
    const error = CMDQ_CONS.get.ERR(this.#unit.registers, CMDQ_CONS.offset >> 2);
    throw new Error(
      `the host's SMMU stopped at ${commandName(ANY_COMMAND.get.Opcode(words))}: error ${error}`,
    );
  }

  /** The next event record, or undefined. */
  takeEvent(): Uint32Array | undefined {
    const produced = EVENTQ_PROD.get.WR(this.#unit.registers, EVENTQ_PROD.offset >> 2);
    if (produced === this.#consumed) return undefined;
    const words = new Uint32Array(EVENT_BYTES / 4);
    this.#memory.loadWords(
      this.#events + (this.#consumed % 2 ** EVENTS_LOG2) * EVENT_BYTES,
      words,
      words.length,
    );
    this.#consumed = (this.#consumed + 1) % 2 ** (EVENTS_LOG2 + 1);
    const overflow = EVENTQ_PROD.get.OVFLG(this.#unit.registers, EVENTQ_PROD.offset >> 2);
    this.#unit.write32(EVENTQ_CONS.offset, this.#consumed + overflow * 2 ** 31);
    return words;
  }
}
