/**
 * What the session takes for dropped after a run of the peer: never more than the peer was asked to
 * drop.
 */
import { describe, expect, it } from 'vitest';
import { wordsOf } from '../../test/support/plain-entries.js';
import { COMMAND_QUEUE, NG, S1_LEAF, SID, TestSmmu } from '../../test/support/smmu-unit.js';
import { createModel, modelRegisterBytes } from '../device/models.js';
import { bodyCodec, CODEC } from '../wire/codec.js';
import { ALL_FEATURES, CONTROL, FEATURE, MESSAGE, SHARED } from '../wire/frame.js';
import { Bench } from './testing/bench.js';

const IOVA = 0x4000_0000n;
const GLOBAL = 0x8000_0000n;
const ASID = 5;
const SLOTS = SHARED.RING_BYTES / 16;
const PROD = 0x98;

const va = (address: bigint): Uint32Array => wordsOf(0x12n | (BigInt(ASID) << 48n) | (address << 64n), 16);
const SYNC = wordsOf(0x46n, 16);

/** An SMMU with one stream, behind a session. */
function smmu() {
  const vm = new TestSmmu();
  const { root } = vm.stage1(SID, { ASID });
  vm.map(root, IOVA, 0x40_0000n, S1_LEAF);
  vm.map(root, GLOBAL, 0x50_0000n, S1_LEAF & ~NG);
  const { memory } = vm;
  const bench = new Bench({
    registerBytes: modelRegisterBytes('smmuv3'),
    models: {
      modelRegisterBytes,
      createModel: ((name, options, ports) =>
        createModel(name, options, { ...ports, memory })) as typeof createModel,
    },
  }).hello({ model: 'smmuv3', features: ALL_FEATURES & ~FEATURE.PEER_WALKS });
  const write = (offset: number, size: number, lo: number): void =>
    bench.input(MESSAGE.REG_WRITE, CODEC.RegWrite, { offset, size, lo, hi: 0 });
  write(0x80, 8, 0x8000);
  write(0x88, 4, 8);
  write(0x90, 8, COMMAND_QUEUE + 4);
  write(0x20, 4, 9);
  const translate = (address: bigint) => {
    const request = {
      rid: SID,
      pasid: 0,
      access: 1,
      lo: Number(address),
      hi: 0,
      kind: 0,
      mayStall: false,
      size: 0,
    };
    bench.input(MESSAGE.TRANSLATE, bodyCodec(MESSAGE.TRANSLATE), request);
  };
  return { bench, vm, write, translate };
}

describe('after a run of the peer', () => {
  it('its kept translations are invalidated if a request in flight was answered with one of every ASID', () => {
    const { bench, vm, write, translate } = smmu();
    const number = bench.page[CONTROL.QUEUE] as number;
    expect(number).not.toBe(0);
    translate(IOVA);
    // Handled, and the peer has not seen its answer.
    translate(GLOBAL);
    expect(bench.page[CONTROL.QUEUE]).toBe(0);
    // So it carries out what names one page, and keeps the others of this VMID.
    const words = [2, number, 2, 0, ...va(0x7000n), ...SYNC];
    bench.page.set(words, bench.page.length - SLOTS * 4);
    bench.page[CONTROL.RING_FILLED] = 3;
    for (const register of [PROD, PROD + 4]) bench.page[(SHARED.REGISTERS + register) / 4] = 2;
    bench.session.takeRun();
    expect(bench.session.peerCommands.taken).toBe(2);
    expect(bench.invalidations).toEqual([]);
    // The guest changes that translation, and asks the daemon.
    vm.store(COMMAND_QUEUE + 32, [...va(IOVA), ...SYNC]);
    write(PROD, 4, 4);
    expect(bench.invalidations).toHaveLength(1);
    expect(bench.register(PROD + 4), 'CMD_SYNC waits').toBe(3);
  });
});

describe('a page file that an earlier connection has used', () => {
  it('is counted on from where its ring ended', () => {
    const bench = new Bench();
    bench.page[CONTROL.RING_FILLED] = 0xffff_fff0;
    bench.page[CONTROL.RING_TAKEN] = 0xffff_fff0;
    bench.hello();
    expect(bench.translate(0x1000).status).toBe(0);
    expect(bench.page[CONTROL.RING_TAKEN]).toBe(0xffff_fff0);
  });
});

describe('while completions are watched', () => {
  it('those of each doorbell are checked', () => {
    const { bench, vm, write } = smmu();
    bench.session.watchCompletions(true);
    vm.store(COMMAND_QUEUE, [...va(IOVA), ...SYNC, ...va(IOVA), ...SYNC]);
    write(PROD, 4, 2);
    expect(bench.session.shadowing.checked(0)).toEqual({ completions: 1, differences: [], more: false });
    write(PROD, 4, 4);
    expect(bench.session.shadowing.checked(0).completions).toBe(2);
    bench.session.watchCompletions(false);
    expect(bench.session.shadowing.checked(0).completions).toBe(0);
  });

  it('the peer carries out none', () => {
    const { bench } = smmu();
    const number = bench.page[CONTROL.QUEUE] as number;
    bench.session.watchCompletions(true);
    expect(bench.page[CONTROL.QUEUE]).toBe(0);
    bench.session.watchCompletions(false);
    expect(bench.page[CONTROL.QUEUE]).toBe(number);
  });
});
