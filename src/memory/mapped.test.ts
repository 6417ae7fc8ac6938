import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import { afterEach, describe, expect, it } from 'vitest';
import { closeFd, FileMapping, memoryFile, seals } from '../base/native.js';
import { MappedMemory } from './mapped.js';
import { GuestRam, type RemoteAccess } from './remote.js';

const GIB = 2 ** 30;
const fds: number[] = [];
const memories: MappedMemory[] = [];

function file(bytes: number, sealed = true): number {
  const fd = memoryFile('guest', bytes, sealed);
  fds.push(fd);
  return fd;
}

function memory(requireSeal = false): MappedMemory {
  const made = new MappedMemory(requireSeal);
  memories.push(made);
  return made;
}

function region(
  fd: number,
  gpa: number,
  size: number,
  changes: object = {},
): Parameters<MappedMemory['add']>[0] {
  return { region: 1, gpa, size, offset: 0, readonly: false, fd, fileBytes: size, ...changes };
}

const mappings = (): number => readFileSync('/proc/self/maps', 'utf8').match(/memfd:guest/g)?.length ?? 0;

afterEach(() => {
  for (const made of memories.splice(0)) made.clear();
  for (const fd of fds.splice(0)) closeFd(fd);
  expect(mappings()).toBe(0);
});

describe('mapped memory', () => {
  it('reads and writes the file in place, little-endian', () => {
    const ram = memory();
    const fd = file(8192);
    ram.add(region(fd, 0x10_0000, 8192));
    const mapping = new FileMapping(fd, 0, 8192, true);
    const bytes = new Uint8Array(mapping.view(0, 8192));
    bytes.set([1, 2, 3, 4, 5, 6, 7, 0x88], 0x10);
    expect(ram.load32(0x10_0010)).toBe(true);
    expect(ram.lo >>> 0).toBe(0x04030201);
    expect(ram.load64(0x10_0010)).toBe(true);
    expect([ram.lo >>> 0, ram.hi >>> 0]).toEqual([0x04030201, 0x88070605]);
    const words = new Uint32Array(3);
    expect(ram.loadWords(0x10_0010, words, 3)).toBe(true);
    expect([...words]).toEqual([0x04030201, 0x88070605, 0]);
    expect(ram.store32(0x10_1ffc, 0xaabbccdd)).toBe(true);
    expect(ram.store64(0x10_0020, 0x11223344, 0x99887766)).toBe(true);
    expect([...bytes.subarray(8188)]).toEqual([0xdd, 0xcc, 0xbb, 0xaa]);
    expect([...bytes.subarray(0x20, 0x28)]).toEqual([0x44, 0x33, 0x22, 0x11, 0x66, 0x77, 0x88, 0x99]);
    expect(ram.cas32(0x10_0020, 5, 6)).toBe(false);
    expect(ram.lo).toBe(0x11223344);
    expect(ram.cas32(0x10_0024, 0x99887766, 0x80000001)).toBe(true);
    expect(bytes[0x24]).toBe(1);
    mapping.unmap();
  });

  it('keeps every bit of entries that look like a double without a number', () => {
    const ram = memory();
    ram.add(region(file(4096), 0, 4096));
    const entries = [
      [0, 0x7ff00000],
      [1, 0x7ff00000],
      [0x12345, 0xfff00000],
      [0xffffffff, 0xffffffff],
      [3, 0x7ff80000],
      [0, 0x80000000],
      [1, 0],
    ] as const;
    // Often enough for the engine to compile the load.
    for (let turn = 0; turn < 20_000; turn++) {
      const [lo, hi] = entries[turn % entries.length] as readonly [number, number];
      ram.store64(8, lo, hi);
      ram.load64(8);
      if (ram.lo >>> 0 !== lo || ram.hi >>> 0 !== hi) expect([ram.lo >>> 0, ram.hi >>> 0]).toEqual([lo, hi]);
    }
    expect(ram.load64(4)).toBe(true);
    expect(ram.hi >>> 0).toBe(ram.load32(8) ? ram.lo >>> 0 : -1);
  });

  it('gives every bit pattern back as it is, also those that would be no number as a double', () => {
    const ram = memory();
    ram.add(region(file(4096), 0, 4096));
    const words = new Uint32Array(2);
    const highs = [
      0, 0x7ff00000, 0xfff00000, 0x7ff80000, 0xfff80001, 0x7fffffff, 0xffffffff, 0x80000000, 1, 0x3ff00000,
    ];
    for (const hi of highs) {
      for (const lo of [0, 1, 0x80000000, 0xffffffff, 0x12345678]) {
        for (const gpa of [0, 8, 4088]) {
          ram.store64(gpa, lo, hi);
          expect(ram.load64(gpa)).toBe(true);
          expect([ram.lo >>> 0, ram.hi >>> 0]).toEqual([lo, hi]);
          ram.loadWords(gpa, words, 2);
          expect([...words]).toEqual([lo, hi]);
        }
      }
    }
  });

  it('never gives half of one value and half of another, while another thread writes', async () => {
    const ram = memory();
    const fd = file(4096);
    ram.add(region(fd, 0, 4096));
    // A 64-bit store at a time, both halves alike; every other round is a NaN as a double.
    const writer = new Worker(
      `const { workerData, parentPort } = require('node:worker_threads');
       const koffi = require('koffi');
       const libc = koffi.load('libc.so.6');
       const mmap = libc.func('void *mmap(void *a, size_t n, int p, int f, int fd, int64_t o)');
       const address = mmap(null, 4096, 3, 1, workerData, 0);
       const cells = new BigUint64Array(koffi.view(address, 4096));
       parentPort.postMessage('ready');
       const end = Date.now() + 400;
       while (Date.now() < end) {
         for (let i = 0n; i < 20000n; i++) {
           const half = (i & 1n) === 0n ? i : 0xfff00000n | i;
           cells[3] = (half << 32n) | half;
         }
       }
       libc.func('int munmap(void *a, size_t n)')(address, 4096);`,
      { eval: true, workerData: fd },
    );
    await once(writer, 'message');
    let done = false;
    writer.once('exit', () => {
      done = true;
    });
    let torn = 0;
    const seen = new Set<number>();
    while (!done) {
      for (let i = 0; i < 50_000; i++) {
        ram.load64(24);
        if (ram.lo !== ram.hi) torn++;
        seen.add(ram.lo);
      }
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(torn).toBe(0);
    expect(seen.size).toBeGreaterThan(3);
  });

  it('has an end on both sides of every region, and between two', () => {
    const ram = memory();
    ram.add(region(file(4096), 0x1000, 4096));
    ram.add(region(file(4096), 0x2000, 4096, { region: 2 }));
    ram.add(region(file(4096), 0x4000, 4096, { region: 3 }));
    const there = (gpa: number): boolean[] => [
      ram.load32(gpa),
      ram.load64(gpa),
      ram.loadWords(gpa, new Uint32Array(16), 16),
      ram.contains(gpa, 64),
    ];
    for (const gpa of [0x1000, 0x1fc0, 0x2000, 0x4fc0]) expect(there(gpa)).toEqual([true, true, true, true]);
    for (const gpa of [0, 0xff8, 0x3000, 0x3ff8, 0x5000, 2 ** 52 - 8]) {
      expect(there(gpa)).toEqual([false, false, false, false]);
    }
    // Inside for a word, across the boundary of two regions for more: not wholly inside one.
    expect(there(0x1fe0)).toEqual([true, true, false, false]);
    expect(there(0x1ffc)).toEqual([true, false, false, false]);
    expect(ram.store64(0x5000, 1, 1)).toBe(false);
    expect(ram.cas32(0x3000, 0, 1)).toBe(false);
  });

  it('sees regions larger than a window whole, up to 6 GiB', () => {
    const ram = memory();
    const size = 6 * GIB + 4096;
    ram.add(region(file(size), 4 * GIB, size));
    for (const at of [0, GIB - 8, GIB, 3 * GIB + 16, 5 * GIB - 4096, 6 * GIB, 6 * GIB + 4088]) {
      expect(ram.store64(4 * GIB + at, at % 1000, at / 4096)).toBe(true);
      expect(ram.load64(4 * GIB + at)).toBe(true);
      expect(ram.lo).toBe(at % 1000);
    }
    const words = new Uint32Array(16);
    ram.store32(5 * GIB - 4, 7);
    ram.store32(5 * GIB, 8);
    expect(ram.loadWords(5 * GIB - 32, words, 16)).toBe(true);
    expect([words[7], words[8]]).toEqual([7, 8]);
    expect(ram.load64(4 * GIB + size)).toBe(false);
  });

  it('a removed region is gone at once, also the window in use, and its number is free', () => {
    const ram = memory();
    const fd = file(4096);
    ram.add(region(fd, 0, 4096));
    ram.store32(0, 42);
    expect(ram.remove(1)).toBe(true);
    expect(ram.load32(0)).toBe(false);
    expect(ram.remove(1)).toBe(false);
    ram.add(region(fd, 0x8000, 4096));
    expect(ram.load32(0x8000)).toBe(true);
    expect(ram.lo).toBe(42);
  });

  it('maps an offset that is no page boundary', () => {
    const ram = memory();
    const fd = file(16384);
    ram.add(region(fd, 0, 16384));
    ram.store32(0x1238, 99);
    const other = memory();
    other.add(region(fd, 0, 4096, { offset: 0x1230, fileBytes: 16384 }));
    expect(other.load32(8) && other.lo).toBe(99);
  });

  it('read-only regions are never written', () => {
    const ram = memory();
    ram.add(region(file(4096), 0, 4096, { readonly: true }));
    expect(ram.load64(8)).toBe(true);
    expect(ram.store32(8, 1)).toBe(false);
    expect(ram.store64(8, 1, 1)).toBe(false);
    expect(ram.cas32(8, 0, 1)).toBe(false);
    expect(ram.load32(8) && ram.lo).toBe(0);
  });

  it.each([
    ['a file that ends before it does', { size: 8192 }, 'FILE_TOO_SHORT'],
    ['an offset past the end', { offset: 8 }, 'FILE_TOO_SHORT'],
    ['an odd offset', { offset: 3 }, 'MAP_FAILED'],
    ['an offset that no file has', { offset: 2 ** 60 }, 'MAP_FAILED'],
    ['an odd size', { size: 12 }, 'BAD_REGION'],
    ['the same number', { region: 1 }, 'REGION_EXISTS'],
    ['an overlap', { gpa: 8 }, 'REGION_OVERLAPS'],
  ])('refuses a region with %s', (_, changes, reason) => {
    const ram = memory();
    const fd = file(4096);
    ram.add(region(fd, 0, 4096));
    const bad = { ...region(fd, 0x10000, 4096, { region: 2 }), ...changes };
    expect(() => ram.add(bad)).toThrow(expect.objectContaining({ reason }));
    expect(ram.count).toBe(1);
  });

  it('refuses what cannot be mapped, with the system’s words', () => {
    expect(() => memory().add(region(0x7fff_0000, 0, 4096))).toThrow(
      expect.objectContaining({ reason: 'MAP_FAILED' }),
    );
  });

  it('seals files against shrinking where their maker allows it, says when not, refuses when told to', () => {
    const open = file(4096);
    expect(memory().add(region(open, 0, 4096))).toBe(true);
    expect(seals(open) & 2).toBe(2);
    const loose = file(4096, false);
    expect(memory().add(region(loose, 0, 4096))).toBe(false);
    expect(() => memory(true).add(region(loose, 0, 4096))).toThrow(
      expect.objectContaining({ reason: 'FILE_NOT_SEALED' }),
    );
  });
});

describe('mapped and remote memory together', () => {
  const far = new DataView(new ArrayBuffer(4096));
  const access: RemoteAccess = {
    found: 0,
    read(lo, _hi, bytes, into) {
      into.set(new Uint8Array(far.buffer, lo - 0x8000, bytes));
      return true;
    },
    write(lo, _hi, data) {
      new Uint8Array(far.buffer).set(data, lo - 0x8000);
      return true;
    },
    cas(lo, _hi, expected, value) {
      const mutable = this as { found: number };
      mutable.found = far.getInt32(lo - 0x8000, true);
      if (mutable.found === (expected | 0)) far.setInt32(lo - 0x8000, value, true);
      return true;
    },
  };

  it('one port leads to both', () => {
    const ram = new GuestRam(access);
    memories.push(ram.mapped);
    ram.addMapped(region(file(4096), 0, 4096));
    ram.addRemote({ region: 2, gpa: 0x8000, size: 4096, readonly: false });
    for (const base of [0, 0x8000]) {
      expect(ram.contains(base, 4096)).toBe(true);
      expect(ram.store64(base + 16, 0x01020304, 0x05060708)).toBe(true);
      expect(ram.store32(base + 24, base + 1)).toBe(true);
      expect(ram.load64(base + 16)).toBe(true);
      expect([ram.lo, ram.hi]).toEqual([0x01020304, 0x05060708]);
      expect(ram.load32(base + 24) && ram.lo).toBe(base + 1);
      expect(ram.cas32(base + 24, 0, 9)).toBe(false);
      expect(ram.lo).toBe(base + 1);
      expect(ram.cas32(base + 24, base + 1, 0xffff_ffff)).toBe(true);
      const words = new Uint32Array(4);
      expect(ram.loadWords(base + 16, words, 3)).toBe(true);
      expect([...words]).toEqual([0x01020304, 0x05060708, 0xffff_ffff, 0]);
    }
    expect(ram.load32(0x4000)).toBe(false);
    expect(ram.loadWords(0x8ff8, new Uint32Array(4), 4)).toBe(false);
  });

  it('neither may overlap the other or take its number', () => {
    const ram = new GuestRam(access);
    memories.push(ram.mapped);
    ram.addMapped(region(file(4096), 0x1000, 4096));
    const remote = { region: 1, gpa: 0x8000, size: 4096, readonly: false };
    expect(() => ram.addRemote(remote)).toThrow(expect.objectContaining({ reason: 'REGION_EXISTS' }));
    expect(() => ram.addRemote({ ...remote, region: 2, gpa: 0x1800 })).toThrow(
      expect.objectContaining({ reason: 'REGION_OVERLAPS' }),
    );
    ram.addRemote({ ...remote, region: 2 });
    expect(() => ram.addMapped(region(file(4096), 0x8ff8, 8, { region: 3 }))).toThrow(
      expect.objectContaining({ reason: 'REGION_OVERLAPS' }),
    );
    ram.remove(2);
    ram.remove(1);
    expect(() => ram.remove(1)).toThrow(expect.objectContaining({ reason: 'REGION_UNKNOWN' }));
  });
});
