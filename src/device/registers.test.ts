import { describe, expect, it } from 'vitest';
import { addr, register, ro, rw, rw1cs, wo } from '../spec/define.js';
import { RegisterFile } from './registers.js';

const CONTROL = register('CONTROL', 0x00, 32, {
  EN: rw(0),
  MODE: rw(3, 1, 5),
  STATE: ro(8, 8, 1),
  GO: wo(31),
});
const STATUS = register('STATUS', 0x04, 32, { A: rw1cs(0), B: rw1cs(1), C: ro(2) });
const BASE = register('BASE', 0x08, 64, { SIZE: rw(4, 0), ADDR: addr(51, 12) });

interface Written {
  offset: number;
  written: number;
  before: number;
}

function make(minimumSize: 1 | 2 | 4 = 4) {
  const shared = new Uint32Array(8);
  const file = new RegisterFile(shared, [CONTROL, STATUS, BASE], minimumSize);
  file.reset();
  const log: Written[] = [];
  for (let offset = 0; offset < file.bytes; offset += 4)
    file.onWrite(offset, (written, before) => void log.push({ offset, written, before }));
  const write = (offset: number, size: number, lo: number, hi = 0): boolean =>
    file.write(offset, size, lo, hi);
  return { shared, file, log, write };
}

describe('register file', () => {
  it('resets to declared and overridden values', () => {
    const { shared, file } = make();
    expect(Array.from(shared)).toEqual([0x10a, 0, 0, 0, 0, 0, 0, 0]);
    file.setInitial(0x10, 0xdead_beef);
    file.set(0x04, 7);
    file.reset();
    expect(Array.from(shared)).toEqual([0x10a, 0, 0, 0, 0xdead_beef, 0, 0, 0]);
  });

  it('stores RW bits only, hides WO bits from the reader but not from the model', () => {
    const { shared, file, log, write } = make();
    write(0x00, 4, 0xffff_ffff);
    expect(shared[0]).toBe(0x10f);
    expect(file.get(0)).toBe(0x8000_010f);
    expect(log).toEqual([{ offset: 0, written: 0xffff_ffff, before: 0x10a }]);
  });

  it('clears RW1C bits that are written as 1', () => {
    const { shared, file, write } = make();
    file.set(0x04, 7);
    write(0x04, 4, 0b110);
    expect(shared[1]).toBe(0b101);
    write(0x04, 4, 0);
    expect(shared[1]).toBe(0b101);
  });

  it('takes 8 bytes as low then high word, also across two registers', () => {
    const { shared, file, log, write } = make();
    write(0x08, 8, 0xffff_ffff, 0xffff_ffff);
    expect([shared[2], shared[3]]).toEqual([0xffff_f01f, 0x000f_ffff]);
    expect(BASE.get.ADDR(file.words, 2)).toBe(0xf_ffff_ffff_f000);
    file.set(0x04, 3);
    write(0x00, 8, 1, 1);
    expect([shared[0], shared[1]]).toEqual([0x101, 2]);
    expect(log.map((entry) => entry.offset)).toEqual([0x08, 0x0c, 0x00, 0x04]);
  });

  it('refuses sizes, alignments and places that are not allowed, and changes nothing', () => {
    const { shared, log, write } = make();
    const before = Array.from(shared);
    for (const [offset, size] of [
      [0, 1],
      [0, 2],
      [0, 3],
      [2, 4],
      [4, 8],
      [-4, 4],
      [32, 4],
      [28, 8],
      [1.5, 4],
      [Number.NaN, 4],
    ]) {
      expect(write(offset, size, 0xffff_ffff, 0xffff_ffff)).toBe(false);
    }
    expect(Array.from(shared)).toEqual(before);
    expect(log).toEqual([]);
  });

  it('byte and halfword stores touch their lanes only, where the specification has them', () => {
    const { shared, file, log, write } = make(1);
    file.set(0x04, 3);
    expect(write(0x09, 1, 0xff)).toBe(true);
    expect(shared[2]).toBe(0xf000);
    expect(write(0x0a, 2, 0xabcd)).toBe(true);
    expect(shared[2]).toBe(0xabcd_f000);
    expect(write(0x05, 1, 0xff)).toBe(true);
    expect(shared[1]).toBe(3);
    expect(write(0x04, 1, 1)).toBe(true);
    expect(shared[1]).toBe(2);
    expect(log[0]).toEqual({ offset: 0x08, written: 0xff00, before: 0 });
  });

  it('refuses two registers that have a bit in common', () => {
    const over = register('OVER', 0x08, 32, { LOW: rw(0) });
    expect(() => new RegisterFile(new Uint32Array(8), [BASE, over])).toThrow('OVER: bit 0 is declared twice');
    const beside = register('BESIDE', 0x08, 32, { HIGH: rw(5) });
    expect(() => new RegisterFile(new Uint32Array(8), [BASE, beside])).not.toThrow();
  });

  it('takes one handler for a word', () => {
    const { file } = make();
    expect(() => file.onWrite(0x0c, () => {})).toThrow('0xc has a write handler');
  });

  it('takes one guard for a word, and one handler of whole stores', () => {
    const { file } = make();
    file.guard(0x08, () => 0);
    file.onWholeWrite(0x08, () => {});
    expect(() => file.guard(0x08, () => 0)).toThrow('0x8 has one already');
    expect(() => file.onWholeWrite(0x08, () => {})).toThrow('0x8 has one already');
  });

  it('makes bits absent: they are not stored, not cleared, and zero at reset', () => {
    const { file, write } = make();
    file.absent(0x00, 0b1010);
    file.absent(0x04, 0b01);
    file.reset();
    expect(file.get(0)).toBe(0x100);
    write(0x00, 4, 0xf);
    expect(file.get(0)).toBe(0x105);
    file.set(0x04, 0b11);
    write(0x04, 4, 0b11);
    expect(file.get(4)).toBe(0b01);
  });

  it('takes stores up to its end', () => {
    const { write } = make(1);
    expect([write(28, 4, 0), write(24, 8, 0), write(31, 1, 0), write(32, 1, 0)]).toEqual([
      true,
      true,
      true,
      false,
    ]);
  });

  it('ignores stores to words that no register declares', () => {
    const { shared, write } = make();
    expect(write(0x14, 4, 0xffff_ffff)).toBe(true);
    expect(shared[5]).toBe(0);
  });
});
