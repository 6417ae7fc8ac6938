/** Registers that software may write at leisure, and what they then read as. VT-d §11.4 */
import type { Rng } from '../fuzz/rng.js';
import { load, store } from './operations.js';
import { hex, type Script } from './script.js';
import { reg } from './vtd-machine.js';

const REGISTERS: Readonly<Record<string, number>> = {
  CAP: 0x08,
  ECAP: 0x10,
  GSTS: 0x1c,
  RTADDR: 0x20,
  'RTADDR high': 0x24,
  FECTL: 0x38,
  FEDATA: 0x3c,
  FEADDR: 0x40,
  FEUADDR: 0x44,
  PMEN: 0x64,
  IQH: 0x80,
  IECTL: 0xa0,
  IEDATA: 0xa4,
  IEADDR: 0xa8,
  IEUADDR: 0xac,
  IVA: 0xf0,
  FRCD: 0x220,
};

/** Capability registers say different things, and are read-only in both. */
const READ_ONLY = ['CAP', 'ECAP'];

/** Writes some registers, a doubleword each, and compares what they read as. */
export function scribble(script: Script, rng: Rng): void {
  for (let n = 4; n > 0; n--) {
    const name = rng.pick(Object.keys(REGISTERS));
    const at = reg(REGISTERS[name]);
    const value = rng.odd64() & 0xffff_ffffn;
    if (READ_ONLY.includes(name)) {
      script.look(`${name} = ${hex(value)}`, [load(at, 4), store(at, 4, value), load(at, 4)], (answers) => {
        const before = answers.load();
        return { changed: Number(answers.load() !== before) };
      });
      continue;
    }
    script.look(`${name} = ${hex(value)}`, [store(at, 4, value), load(at, 4)], (answers) => ({
      [name]: answers.load(),
    }));
  }
}
