/** Commands of the SMMUv3 cases. IHI 0070, chapter 4 */
import type { Layout } from '../../src/spec/define.js';
import { pack } from '../../src/spec/define.js';
import {
  CMD,
  CMD_CFGI_CD,
  CMD_CFGI_CD_ALL,
  CMD_CFGI_STE,
  CMD_CFGI_STE_RANGE,
  CMD_SYNC,
  CMD_TLBI,
  RANGE_ALL,
} from '../../src/spec/smmuv3/commands.js';
import { load, store } from './operations.js';
import { hex, type Script } from './script.js';
import { REG, reg } from './smmu-machine.js';

/** log2 of the entries of the command queue. */
export const CMDQ_LOG2 = 6;
const ENTRY_BYTES = 16;

/** Two 64-bit words. */
export type Command = readonly [bigint, bigint];

export function command<K extends string>(
  shape: Layout<K>,
  opcode: number,
  fields: Readonly<Partial<Record<K, number>>>,
): Command {
  const words = pack(shape, { Opcode: opcode, ...fields } as { readonly [P in K]?: number });
  const half = (low: number, high: number): bigint => (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0);
  return [half(words[0], words[1]), half(words[2], words[3])];
}

/** A TLBI by address: fields and the address, which may have all 64 bits. */
export function tlbi(
  opcode: number,
  fields: Parameters<typeof command<keyof typeof CMD_TLBI.fields>>[2],
  address = 0n,
): Command {
  const [low, high] = command(CMD_TLBI, opcode, fields);
  return [low, high | BigInt.asUintN(64, address & ~0xfffn)];
}

export class CommandQueue {
  readonly #script: Script;
  readonly base: number;
  #produced = 0;

  constructor(script: Script) {
    this.#script = script;
    this.base = script.allocate(ENTRY_BYTES << CMDQ_LOG2);
  }

  cfgiSte(sid: number): void {
    this.submit(`CFGI_STE ${hex(sid)}`, command(CMD_CFGI_STE, CMD.CFGI_STE, { StreamID: sid, Leaf: 1 }));
  }

  cfgiRange(sid: number, range: number): void {
    const fields = { StreamID: sid, Range: range };
    this.submit(
      `CFGI_STE_RANGE ${hex(sid)} ${range}`,
      command(CMD_CFGI_STE_RANGE, CMD.CFGI_STE_RANGE, fields),
    );
  }

  cfgiAll(): void {
    this.cfgiRange(0, RANGE_ALL);
  }

  cfgiCd(sid: number, ssid: number): void {
    const fields = { StreamID: sid, SubstreamID: ssid, Leaf: 1 };
    this.submit(`CFGI_CD ${hex(sid)} SubstreamID ${ssid}`, command(CMD_CFGI_CD, CMD.CFGI_CD, fields));
  }

  cfgiCdAll(sid: number): void {
    this.submit(`CFGI_CD_ALL ${hex(sid)}`, command(CMD_CFGI_CD_ALL, CMD.CFGI_CD_ALL, { StreamID: sid }));
  }

  everything(): void {
    this.submit('TLBI_NSNH_ALL', tlbi(CMD.TLBI_NSNH_ALL, {}));
  }

  sync(): void {
    this.submit('SYNC', command(CMD_SYNC, CMD.SYNC, {}));
  }

  /** Puts commands on the queue, moves the producer, and looks at what became of them. */
  submit(name: string, ...commands: readonly Command[]): void {
    for (const [low, high] of commands) {
      const entry = this.base + (this.#produced % (1 << CMDQ_LOG2)) * ENTRY_BYTES;
      this.#script.store(entry, low, 'command');
      this.#script.store(entry + 8, high, 'command');
      this.#produced = (this.#produced + 1) % (2 << CMDQ_LOG2);
    }
    this.#look(name, [store(reg(REG.CMDQ_PROD), 4, BigInt(this.#produced))]);
  }

  /** The last command becomes this one, and GERRORN acknowledges the error. */
  repair([low, high]: Command): void {
    const entry = this.base + ((this.#produced + (1 << CMDQ_LOG2) - 1) % (1 << CMDQ_LOG2)) * ENTRY_BYTES;
    this.#script.store(entry, low, 'command');
    this.#script.store(entry + 8, high, 'command');
    this.#look('GERRORN.CMDQ_ERR', [store(reg(REG.GERRORN), 4, 1n)]);
  }

  #look(name: string, operations: readonly ReturnType<typeof load>[]): void {
    const registers = [load(reg(REG.CMDQ_CONS), 4), load(reg(REG.GERROR), 4)];
    this.#script.look(name, [...operations, ...registers], (answers) => {
      const [cons, errors] = [answers.load(), answers.load()];
      return { 'CMDQ_CONS.RD': cons & 0xf_ffffn, 'CMDQ_CONS.ERR': (cons >> 24n) & 0x7fn, GERROR: errors };
    });
  }
}
