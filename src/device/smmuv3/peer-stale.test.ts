/**
 * What a cache outside may still hold when a command is complete: nothing that the command names,
 * by whichever way it was carried out.
 */
import { describe, expect, it } from 'vitest';
import { wordsOf } from '../../../test/support/plain-entries.js';
import { NG, READ, S1_LEAF, SID, TestSmmu } from '../../../test/support/smmu-unit.js';
import { ANY, NO_PASID } from '../../base/ids.js';
import { plainStep } from '../../sim/sim-peer-queue.js';
import { CODEC } from '../../wire/codec.js';
import { type InvalidateScope, MAX_SPANS, SPAN_WORDS } from '../iommu.js';
import type { PeerQueue } from '../peer-queue.js';

const IOVA = 0x12_3456_0000n;
const OUT = 0x40_0000n;
const ASID = 5;
const PROD = 0x98;
const CONS = 0x9c;
const CR0 = 0x20;
const CMDQ_BASE = 0x90;

const va = (address: bigint, asid: number): bigint => 0x12n | (BigInt(asid) << 48n) | (address << 64n);
const SYNC = 0x46n;

interface Held {
  readonly first: bigint;
  readonly log2: number;
  readonly space: number;
  readonly sub: number;
}

function peerOf(vm: TestSmmu): PeerQueue {
  const { peerQueue } = vm.model;
  if (peerQueue === undefined) throw new Error('no queue for the peer');
  return peerQueue;
}

/** What the peer keeps of an answer. */
function handedOut(vm: TestSmmu, address: bigint): Held[] {
  const spans = new Uint32Array(MAX_SPANS * SPAN_WORDS);
  const result = { status: -1, count: -1, spans, space: 0, sub: 0, stall: 0 };
  const lo = Number(address & 0xffff_ffffn);
  const hi = Number(address >> 32n);
  vm.model.translate({ rid: SID, pasid: NO_PASID, access: READ, lo, hi, kind: 0, mayStall: false }, result);
  return Array.from({ length: result.count }, (_, n) => {
    const [inLo, inHi, , , log2] = spans.subarray(n * SPAN_WORDS);
    const first = (BigInt(inHi) << 32n) | BigInt(inLo);
    return { first, log2, space: result.space, sub: result.sub >>> 0 };
  });
}

const covers = (held: Held, address: bigint): boolean => (held.first ^ address) >> BigInt(held.log2) === 0n;

function isDropped(held: Held, scopes: readonly InvalidateScope[]): boolean {
  return scopes.some(({ space, sub, lo, hi, log2Size }) => {
    if ((space !== ANY && space !== held.space) || (sub !== ANY && sub >>> 0 !== held.sub)) return false;
    const at = (BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0);
    return log2Size >= 64 || (held.first ^ at) >> BigInt(Math.max(log2Size, held.log2)) === 0n;
  });
}

/**
 * What of an address is left outside when the command is complete; by the peer itself, where it
 * may.
 */
function leftBy(vm: TestSmmu, held: readonly Held[], command: bigint, address: bigint): Held[] {
  const here = held.filter((one) => covers(one, address));
  const description = CODEC.Queue.create();
  const words = wordsOf(command, 16);
  if (peerOf(vm).ready) {
    peerOf(vm).describe(description);
    const drops = plainStep(Uint32Array.from(description.commands), words, () => true)?.drops;
    if (drops !== undefined) {
      return here.filter(
        ({ space, sub, first, log2 }) =>
          space !== drops.space ||
          (drops.sub !== ANY && drops.sub !== sub) ||
          first >= drops.end ||
          first + (1n << BigInt(log2)) <= drops.first,
      );
    }
  }
  vm.invalidations.length = 0;
  vm.submit(words, wordsOf(SYNC, 16));
  return here.filter((one) => !isDropped(one, vm.invalidations));
}

function unit(cd: Readonly<Record<string, number>> = {}) {
  const vm = new TestSmmu().start();
  const { root } = vm.stage1(SID, { ASID, ...cd });
  return { vm, root };
}

describe('outside of an SMMU, when CMD_TLBI_NH_VA is complete', () => {
  it('nothing global is left that came as a neighbour of what is not', () => {
    const { vm, root } = unit();
    const global = IOVA + 0x1000n;
    vm.map(root, IOVA, OUT, S1_LEAF);
    vm.map(root, global, OUT + 0x8000n, S1_LEAF & ~NG);
    vm.map(root, IOVA + 0x2000n, OUT + 0x4000n, S1_LEAF);
    const held = handedOut(vm, IOVA);
    expect(
      held.some((one) => covers(one, IOVA + 0x2000n)),
      'neighbours come along',
    ).toBe(true);
    // A global entry is of every ASID (IHI 0070 §4.4.1).
    expect(leftBy(vm, held, va(global, ASID + 1), global)).toEqual([]);
  });

  it('nothing is left where TBI is set and the command has another top byte', () => {
    const { vm, root } = unit({ TBI0: 1 });
    vm.map(root, IOVA, OUT, S1_LEAF);
    const held = handedOut(vm, IOVA);
    expect(held).not.toEqual([]);
    expect(leftBy(vm, held, va((0xabn << 56n) | IOVA, ASID), IOVA)).toEqual([]);
  });

  it('of other ASIDs all is left', () => {
    const { vm, root } = unit();
    vm.map(root, IOVA, OUT, S1_LEAF);
    expect(peerOf(vm).ready).toBe(true);
    expect(leftBy(vm, handedOut(vm, IOVA), va(IOVA, ASID + 1), IOVA)).toHaveLength(1);
  });
});

describe('the Command queue is not for the peer', () => {
  it('with one entry, which QUEUE cannot describe', () => {
    const vm = new TestSmmu();
    vm.write64(CMDQ_BASE, 0x1_0000);
    vm.write32(CR0, 8);
    expect(peerOf(vm).ready).toBe(false);
    vm.write32(CR0, 0);
    vm.write64(CMDQ_BASE, 0x1_0001);
    vm.write32(CR0, 8);
    expect(peerOf(vm).ready).toBe(true);
  });

  it.each([
    ['CMDQ_PROD', PROD],
    ['CMDQ_CONS', CONS],
  ])('while %s has bits above its index, which the next store clears', (_name, register) => {
    const vm = new TestSmmu().start(0);
    vm.write32(register, 0x8_0000);
    vm.write32(CR0, 8);
    expect(peerOf(vm).ready).toBe(false);
    vm.submit(wordsOf(SYNC, 16));
    expect([vm.read(PROD), vm.read(CONS)]).toEqual([1, 1]);
    expect(peerOf(vm).ready).toBe(true);
  });
});
