import type { PhysicalMemory } from './physical-memory.js';

/** Numbers of an AArch64 processor's registers in gdb's protocol: X0 to X30, SP, PC. */
const [X0, X1, PC] = [0, 1, 32];
/** `STR X1, [X0]`, then back to it. */
const PROGRAM = Uint32Array.of(0xf900_0001, 0x17ff_ffff);

/**
 * Stores as a guest's program does: a vCPU of a machine that stands still executes the instruction.
 * What a debugger writes goes to memory, past whatever traps stores.
 */
export class Vcpu {
  readonly #memory: PhysicalMemory;

  private constructor(memory: PhysicalMemory) {
    this.#memory = memory;
  }

  /**
   * The first vCPU, as it is after a reset. @param at address of two words of RAM for its program
   */
  static async start(memory: PhysicalMemory, at: number): Promise<Vcpu> {
    await memory.write(at, new Uint8Array(PROGRAM.buffer));
    await memory.setRegister(PC, BigInt(at));
    return new Vcpu(memory);
  }

  /** Returns when the store has ended: the next instruction has been executed. */
  async store(address: number, value: bigint): Promise<void> {
    await this.#memory.setRegister(X0, BigInt(address));
    await this.#memory.setRegister(X1, value);
    await this.#memory.step();
    await this.#memory.step();
  }
}
