import { pack, type Register } from '../spec/define.js';
import type { Machine } from './machine.js';

/** The unit did not acknowledge what the driver waited for. */
class DriverTimeout extends Error {
  constructor(what: string) {
    super(`simulated guest: gave up waiting for ${what}`);
    this.name = 'DriverTimeout';
  }
}

/** Registers by their declared tables, as a CPU of the guest reads and writes them. */
export class DeviceRegisters {
  constructor(readonly machine: Machine) {}

  /** The register's words now. */
  read(shape: Register<string>): Uint32Array {
    const words = new Uint32Array(shape.wordCount);
    for (let at = 0; at < words.length; at += 2) {
      const wide = shape.width >= 64;
      const value = this.machine.readRegister(shape.offset + at * 4, wide ? 8 : 4);
      words[at] = Number(value & 0xffff_ffffn);
      if (wide) words[at + 1] = Number(value >> 32n);
    }
    return words;
  }

  /** One field of a register now. */
  field<K extends string>(shape: Register<K>, name: K): number {
    return shape.get[name](this.read(shape));
  }

  /** Writes the whole register: fields that are not named are zero. */
  write<K extends string>(shape: Register<K>, values: { readonly [P in K]?: number }): void {
    this.writeWords(shape, pack(shape, values));
  }

  writeWords(shape: Register<string>, words: ArrayLike<number>): void {
    if (shape.width === 32) this.machine.writeRegister(shape.offset, 4, BigInt(words[0] >>> 0));
    else
      this.machine.writeRegister(shape.offset, 8, (BigInt(words[1] >>> 0) << 32n) | BigInt(words[0] >>> 0));
  }

  /**
   * Polls until `done` holds, and lets the rest of the machine run. Throws {@link DriverTimeout}.
   */
  waitUntil(done: () => boolean, what: string): void {
    for (let spin = 0; spin < 200; spin++) {
      if (done()) return;
      this.machine.idle(0);
    }
    for (let wait = 0; wait < 20_000; wait++) {
      if (done()) return;
      this.machine.idle(1);
    }
    throw new DriverTimeout(what);
  }
}
