/**
 * Invalidations by address where the top byte is ignored: the command's top byte may be any. IHI
 * 0070 §4.4.1.
 */
import { describe, expect, it } from 'vitest';
import { READ, S1_LEAF, SID, sync, TestSmmu, tlbi } from '../../../test/support/smmu-unit.js';
import { CMD } from '../../spec/smmuv3/commands.js';
import { STE_CONFIG } from '../../spec/smmuv3/structures.js';

const OUT = 0x40_0000n;
const OTHER = 0x50_0000n;
/** An address of each half, as the tables see it: bits 63:56 repeat bit 55. */
const LOW = 0x0000_0012_3456_7000n;
const HIGH = 0xffff_ff12_3456_7000n;
/** Bits 63:56. */
const tag = (address: bigint, byte: bigint): bigint => (address & ((1n << 56n) - 1n)) | (byte << 56n);
const GLOBAL_LEAF = S1_LEAF & ~(1n << 11n);

/** A page of VMID 7 and ASID 5 that was translated, and has changed in memory since. */
function stale(address: bigint, leaf: bigint) {
  const vm = new TestSmmu().start();
  const root = vm.page();
  const cd = vm.page();
  // Both halves share one tree: bits 47:0 of the address select the entry.
  vm.cd(cd, { TTB0: root, TTB1: root, TG1: 2, T1SZ: 16, EPD1: 0, TBI0: 1, TBI1: 1, ASID: 5 });
  vm.ste(SID, { Config: STE_CONFIG.S1_TRANSLATE, S1ContextPtr: cd, S2VMID: 7 });
  const entry = vm.map(root, address, OUT, leaf);
  expect(vm.translate(SID, tag(address, 0x5an), READ).out).toBe(OUT);
  vm.memory.poke(entry, OTHER | leaf);
  expect(vm.translate(SID, address, READ).out, 'from the TLB').toBe(OUT);
  return vm;
}

/** The fields of a command that names an address. */
const at = (address: bigint) => ({
  High: Number(address >> 32n) | 0,
  Address: Number(address & 0xffff_ffffn),
});

describe.each([
  ['the low half', LOW],
  ['the high half', HIGH],
])('a TLBI of an address of %s', (_half, address) => {
  describe.each([
    ['as the tables see it', address],
    ['with a tag', tag(address, 0xabn)],
    ['with the tag of the other half', tag(address, address === LOW ? 0xffn : 0n)],
  ])('%s', (_tag, named) => {
    it.each([
      ['NH_VA drops an entry of the ASID', S1_LEAF, CMD.TLBI_NH_VA, 5, true],
      ['NH_VA drops an entry of every ASID', GLOBAL_LEAF, CMD.TLBI_NH_VA, 99, true],
      ['NH_VA keeps an entry of another ASID', S1_LEAF, CMD.TLBI_NH_VA, 99, false],
      ['NH_VAA drops the entry', S1_LEAF, CMD.TLBI_NH_VAA, 0, true],
    ] as const)('%s', (_name, leaf, opcode, ASID, drops) => {
      const vm = stale(address, leaf);
      vm.submit(tlbi(opcode, { VMID: 7, ASID, ...at(named) }), sync());
      expect([vm.activeErrors, vm.consumed]).toEqual([0, 2]);
      expect(vm.translate(SID, address, READ).out).toBe(drops ? OTHER : OUT);
    });
  });

  it('does not drop the page beside it', () => {
    const vm = stale(address, S1_LEAF);
    vm.submit(tlbi(CMD.TLBI_NH_VA, { VMID: 7, ASID: 5, ...at(tag(address + 0x1000n, 0xabn)) }), sync());
    expect(vm.translate(SID, address, READ).out).toBe(OUT);
  });
});
