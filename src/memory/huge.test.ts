import { readFileSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { closeFd, FileMapping, memoryFile, pageBytesOf } from '../base/native.js';
import { HUGE_PAGE, HugePages, hugePagesOrWhy } from '../base/testing/huge-pages.js';
import { MappedMemory } from './mapped.js';

/** Guest memory in files of huge pages, which are mapped and given back in whole ones. */

const PAGES = 8;
let reserved: HugePages | string;
let free = 0;
let fd = -1;
let memory: MappedMemory;

const mappings = (): number => readFileSync('/proc/self/maps', 'utf8').match(/memfd:huge/g)?.length ?? 0;

beforeAll(() => {
  reserved = hugePagesOrWhy(PAGES);
  free = HugePages.free;
});
afterAll(() => {
  if (typeof reserved !== 'string') reserved.release();
});
beforeEach((context) => {
  if (typeof reserved === 'string') context.skip(reserved);
  fd = memoryFile('huge', 4 * HUGE_PAGE, true, HUGE_PAGE);
  memory = new MappedMemory();
});
afterEach(() => {
  memory.clear();
  expect(mappings()).toBe(0);
  closeFd(fd);
  expect(HugePages.free).toBe(free);
});

const region = (number: number, gpa: number, size: number, offset: number) => ({
  ...{ region: number, gpa, size, offset, readonly: false, fd, fileBytes: 4 * HUGE_PAGE },
});

describe('a file of huge pages', () => {
  it('says how large its pages are', () => {
    expect(pageBytesOf(fd)).toBe(HUGE_PAGE);
    const ordinary = memoryFile('ordinary', 4096);
    expect(pageBytesOf(ordinary)).toBeLessThan(HUGE_PAGE);
    closeFd(ordinary);
  });

  it.each([
    ['a whole page', 0, HUGE_PAGE],
    ['less than a page', 0, 0xa0000],
    ['a piece in the middle of a page', 0xc0000, 0x20000],
    ['eight bytes at the end of a page', HUGE_PAGE - 8, 8],
    ['the end of one page and the beginning of the next', HUGE_PAGE - 4096, 8192],
    ['all but the first page, from an odd place', 0x100008, 4 * HUGE_PAGE - 0x100008],
    ['all of it', 0, 4 * HUGE_PAGE],
  ])('is mapped where a region is %s, and given back', (_, offset, size) => {
    const whole = new FileMapping(fd, 0, 4 * HUGE_PAGE, true);
    const words = new Uint32Array(whole.view(0, 4 * HUGE_PAGE));
    words[offset / 4] = 0x12345678;
    words[(offset + size) / 4 - 1] = 0x9abcdef0;
    expect(memory.add(region(1, 0x4000_0000, size, offset))).toBe(true);
    expect(memory.load32(0x4000_0000) && memory.lo >>> 0).toBe(size > 4 ? 0x12345678 : 0);
    expect(memory.load32(0x4000_0000 + size - 4) && memory.lo >>> 0).toBe(0x9abcdef0);
    expect(memory.store32(0x4000_0000 + size - 4, 7)).toBe(true);
    expect(words[(offset + size) / 4 - 1]).toBe(7);
    expect(memory.load32(0x4000_0000 + size)).toBe(false);
    expect(mappings()).toBe(2);
    expect(memory.remove(1)).toBe(true);
    expect(mappings()).toBe(1);
    whole.unmap();
  });

  it('is mapped in as many pieces as a machine has of it', () => {
    const pieces = [
      [0, 0xa0000],
      [0xc0000, 0x8000],
      [0xc8000, 0x38000],
      [0x100000, HUGE_PAGE],
      [0x100000 + HUGE_PAGE, 4 * HUGE_PAGE - 0x100000 - HUGE_PAGE],
    ] as const;
    pieces.forEach(([offset, size], number) => {
      memory.add(region(number, offset, size, offset));
    });
    for (const [offset] of pieces) expect(memory.store32(offset, offset)).toBe(true);
    for (const [offset] of pieces) expect(memory.load32(offset) && memory.lo).toBe(offset);
    expect(mappings()).toBe(pieces.length);
  });

  it('that promises more pages than the kernel has cannot be mapped', () => {
    const large = memoryFile('huge', (PAGES + 1) * HUGE_PAGE, true, HUGE_PAGE);
    const size = (PAGES + 1) * HUGE_PAGE;
    expect(() => memory.add({ ...region(1, 0, size, 0), fd: large, fileBytes: size })).toThrow(
      expect.objectContaining({ reason: 'MAP_FAILED' }),
    );
    closeFd(large);
  });
});

describe('a mapping', () => {
  it('has no views once it is gone, and goes once', () => {
    const mapping = new FileMapping(fd, 0x1000, 16, true);
    mapping.unmap();
    mapping.unmap();
    expect(() => mapping.view(0, 8)).toThrow('not mapped');
  });
});
