import { describe, expect, it } from 'vitest';
import {
  AF,
  cfgiSte,
  command,
  ENABLES,
  EXECUTE,
  PAGE,
  PRIVILEGED,
  QUEUE_LOG2,
  READ,
  resume,
  S1_LEAF,
  S2_LEAF,
  SID,
  sync,
  TestSmmu,
  tlbi,
  WRITE,
} from '../../../test/support/smmu-unit.js';
import { ANY } from '../../base/ids.js';
import { CMD, CMD_STALL_TERM } from '../../spec/smmuv3/commands.js';
import { CR0, EVENTQ_BASE, EVENTQ_PROD } from '../../spec/smmuv3/registers.js';
import { STE_CONFIG } from '../../spec/smmuv3/structures.js';
import { RESUME, TRANSLATE_STATUS } from '../iommu.js';

const IOVA = 0x12_3456_7000n;
const OUT = 0x40_0000n;
const { STALLED, FAULT, OK } = TRANSLATE_STATUS;
const ENTRIES = 2 ** QUEUE_LOG2;
const EVENTQ_ABT_ERR = 4;

const page = (n: number): bigint => IOVA + BigInt(n) * 0x1000n;
const stallTerm = (StreamID = SID): Uint32Array =>
  command(CMD_STALL_TERM, { Opcode: CMD.STALL_TERM, StreamID });

/** A stream whose stage 1 stalls and maps nothing yet. */
function stalling(cd: Record<string, number> = {}, ste: Record<string, number> = {}) {
  const vm = new TestSmmu().start();
  const tables = vm.stage1(SID, { S: 1, R: 0, ...cd }, ste);
  return { vm, ...tables };
}

/** Fills the Event queue with what another stream does wrong. */
function fill(vm: TestSmmu): void {
  for (let n = 0; n < ENTRIES; n++) vm.translate(SID + 9, 0n, READ);
}

/** Takes one event off the queue. */
function takeOne(vm: TestSmmu): void {
  const cons = vm.read(0x100ac);
  vm.write32(0x100ac, (cons & ~0x1f) | ((cons + 1) & 0x1f));
}

describe('a transaction that stalls', () => {
  it('is recorded with its STAG, whatever R says, and held until it is resumed', () => {
    const { vm, root } = stalling();
    const { status, stall } = vm.stallable(SID, IOVA + 0x10n, READ);
    expect(status).toBe(STALLED);
    const [event] = vm.recorded();
    expect(event).toEqual({
      name: 'F_TRANSLATION',
      StreamID: SID,
      STAG: event['STAG'],
      Stall: 1,
      RnW: 1,
      CLASS: 2,
      InputAddr: IOVA + 0x10n,
    });
    vm.map(root, IOVA, OUT, S1_LEAF);
    expect(vm.devices.resumed).toEqual([]);
    vm.submit(resume(event['STAG'] as number, 1));
    expect(vm.devices.resumed).toEqual([{ stall, action: RESUME.RETRY }]);
    expect(vm.stallable(SID, IOVA + 0x10n, READ)).toMatchObject({ status: OK, output: OUT });
  });

  it('faults and stalls again when it is tried again in vain, with another STAG', () => {
    const { vm } = stalling();
    const first = vm.stallable(SID, IOVA, READ).stall;
    const [before] = vm.recorded();
    vm.submit(resume(before['STAG'] as number, 1));
    const second = vm.stallable(SID, IOVA, READ);
    expect(second.status).toBe(STALLED);
    expect(second.stall).not.toBe(first);
    const [after] = vm.recorded();
    expect(after['STAG']).not.toBe(before['STAG']);
  });

  it('ends with an abort, as TERM_MODEL says, whatever Ab says', () => {
    const { vm } = stalling();
    for (const Ab of [0, 1]) {
      const { stall } = vm.stallable(SID, page(Ab), WRITE);
      const words = resume(vm.recorded()[0]['STAG'] as number, 0);
      words[0] &= ~(1 << 13);
      words[0] |= Ab << 13;
      vm.submit(words);
      expect(vm.devices.resumed.at(-1)).toEqual({ stall, action: RESUME.ABORT });
    }
  });

  it('is terminated with Stall = 0 where the device cannot wait', () => {
    const { vm } = stalling();
    expect(vm.translate(SID, IOVA, READ).ok).toBe(false);
    const [event] = vm.recorded();
    expect(event).toMatchObject({ name: 'F_TRANSLATION', InputAddr: IOVA });
    expect([event['Stall'], event['STAG']]).toEqual([undefined, undefined]);
    vm.submit(resume(0, 1), stallTerm());
    expect(vm.devices.resumed).toEqual([]);
    expect(vm.activeErrors).toBe(0);
  });

  it('never is a look without access', () => {
    const { vm } = stalling();
    expect(vm.stallable(SID, IOVA, 0).status).toBe(FAULT);
    expect(vm.recorded()).toEqual([]);
  });
});

describe('which faults stall', () => {
  it.each([
    ['F_TRANSLATION', {}, 0n, READ],
    ['F_ACCESS', {}, OUT | PAGE | (1n << 6n), READ],
    ['F_PERMISSION', {}, OUT | PAGE | AF, READ],
    ['F_ADDR_SIZE', { IPS: 2 }, 0x100_0000_0000n | S1_LEAF, READ],
  ] as [string, Record<string, number>, bigint, number][])('%s of stage 1', (name, cd, leaf, access) => {
    const { vm, root } = stalling(cd);
    vm.memory.poke(vm.map(root, IOVA, OUT, S1_LEAF), leaf);
    expect(vm.stallable(SID, IOVA, access).status).toBe(STALLED);
    expect(vm.recorded()).toMatchObject([{ name, Stall: 1 }]);
  });

  it('a permission that the TLB knows to be missing', () => {
    const { vm, root } = stalling();
    vm.map(root, IOVA, OUT, S1_LEAF | (1n << 7n));
    expect(vm.translate(SID, IOVA, READ).ok).toBe(true);
    expect(vm.stallable(SID, IOVA, WRITE).status).toBe(STALLED);
    expect(vm.model.counters.walks).toBe(1);
  });

  it('an address outside of both tables', () => {
    const { vm } = stalling();
    expect(vm.stallable(SID, 1n << 60n, READ).status).toBe(STALLED);
    expect(vm.stallable(SID, 0xffff_0000_0000_0000n, READ).status).toBe(STALLED);
  });

  it('no configuration error and no external abort', () => {
    const { vm, root } = stalling();
    vm.memory.poke(root, 0x7fff_f000n | PAGE);
    expect(vm.stallable(SID, IOVA & 0xfffffn, READ).status).toBe(FAULT);
    expect(vm.stallable(SID + 1, IOVA, READ).status).toBe(FAULT);
    expect(vm.stallable(SID, IOVA, READ, 5).status).toBe(FAULT);
    expect(vm.recorded().map(({ name }) => name)).toEqual(['F_WALK_EABT', 'C_BAD_STE', 'C_BAD_SUBSTREAMID']);
  });

  it('each stage by its own configuration, on fetches of tables and descriptors too', () => {
    const vm = new TestSmmu().start();
    const root2 = vm.page(2);
    const cd = vm.page();
    const root = vm.page();
    const nested = { Config: STE_CONFIG.NESTED, S1ContextPtr: cd, ...vm.stage2Fields(root2) };
    vm.cd(cd, { TTB0: root, S: 0 });
    vm.ste(SID, { ...nested, S2S: 1, S2R: 0 });
    expect(vm.stallable(SID, IOVA, READ).status).toBe(STALLED);
    vm.map(root2, BigInt(cd), BigInt(cd), S2_LEAF, 1);
    expect(vm.stallable(SID, page(1), READ).status).toBe(STALLED);
    vm.map(root2, BigInt(root), BigInt(root), S2_LEAF, 1);
    expect(vm.stallable(SID, page(2), READ).status).toBe(FAULT);
    expect(vm.recorded()).toMatchObject([
      { S2: 1, Stall: 1, IPA: cd },
      { S2: 1, Stall: 1, CLASS: 1, IPA: root },
      { CLASS: 2, InputAddr: page(2) },
    ]);
    // The other way round: stage 1 stalls, stage 2 terminates.
    vm.cd(cd, { TTB0: root, S: 1 });
    vm.ste(SID, nested);
    vm.submit(cfgiSte());
    expect(vm.stallable(SID, page(2), READ).status).toBe(STALLED);
    vm.memory.poke(root, 0x7000_0000n | PAGE);
    expect(vm.stallable(SID, page(3), READ).status).toBe(FAULT);
  });
});

describe('CMD_RESUME and CMD_STALL_TERM', () => {
  it('have no effect on what they do not name', () => {
    const { vm } = stalling();
    vm.stage1(SID + 1, { S: 1 });
    vm.stallable(SID, IOVA, READ);
    const stag = vm.recorded()[0]['STAG'] as number;
    vm.submit(resume(stag ^ 1, 1), resume(stag ^ 0x100, 1), resume(stag, 1, SID + 1), stallTerm(SID + 1));
    expect(vm.devices.resumed).toEqual([]);
    vm.submit(resume(stag, 1), resume(stag, 1), resume(stag, 0));
    expect(vm.devices.resumed).toHaveLength(1);
    expect([vm.consumed, vm.activeErrors]).toEqual([7, 0]);
  });

  it('CMD_STALL_TERM ends all of a stream, and nothing of another', () => {
    const { vm } = stalling();
    vm.stage1(SID + 1, { S: 1 });
    const mine = [0, 1, 2].map((n) => vm.stallable(SID, page(n), READ).stall);
    vm.stallable(SID + 1, IOVA, READ);
    vm.submit(stallTerm());
    expect(vm.devices.resumed).toEqual(mine.map((stall) => ({ stall, action: RESUME.ABORT })));
    const tags = vm.recorded().map((event) => event['STAG'] as number);
    expect(new Set(tags).size).toBe(4);
    vm.submit(...tags.map((stag) => resume(stag, 1)));
    expect(vm.devices.resumed).toHaveLength(3);
    vm.submit(resume(tags[3], 1, SID + 1));
    expect(vm.devices.resumed).toHaveLength(4);
  });
});

describe('transactions like one that is stalled', () => {
  it('have no record, and are tried again when the other was acknowledged', () => {
    const { vm } = stalling({}, { S1CDMax: 1, S1DSS: 2 });
    const leader = vm.stallable(SID, IOVA, READ).stall;
    const followers = [1, 2].map((n) => vm.stallable(SID, IOVA + BigInt(n) * 64n, READ).stall);
    const [event, ...others] = vm.recorded();
    expect(others).toEqual([]);
    vm.submit(resume(event['STAG'] as number, 0));
    expect(vm.devices.resumed).toEqual([
      { stall: leader, action: RESUME.ABORT },
      ...followers.map((stall) => ({ stall, action: RESUME.RETRY })),
    ]);
  });

  it('are others where anything else differs', () => {
    const { vm } = stalling();
    vm.stallable(SID, IOVA, READ);
    for (const access of [WRITE, READ | PRIVILEGED, EXECUTE]) vm.stallable(SID, IOVA, access);
    vm.stallable(SID, page(1), READ);
    vm.stallable(SID, IOVA | (1n << 40n), READ);
    expect(vm.recorded()).toHaveLength(6);
  });

  it('end with the stream', () => {
    const { vm } = stalling();
    for (let n = 0; n < 3; n++) vm.stallable(SID, IOVA, READ);
    vm.submit(stallTerm());
    expect(vm.devices.resumed.map(({ action }) => action)).toEqual(new Array(3).fill(RESUME.ABORT));
  });
});

describe('an Event queue that takes nothing', () => {
  it('loses no stall: each is recorded, in order, when there is room, and is no overflow', () => {
    const { vm } = stalling();
    fill(vm);
    for (let n = 0; n < 3; n++) expect(vm.stallable(SID, page(n), READ).status).toBe(STALLED);
    expect(vm.read(EVENTQ_PROD.offset) >>> 31).toBe(0);
    takeOne(vm);
    takeOne(vm);
    const found = [...vm.recorded(), ...vm.recorded()].slice(ENTRIES - 2);
    expect(found.map((event) => event['InputAddr'])).toEqual([page(0), page(1), page(2)]);
    expect(found.every((event) => event['Stall'] === 1)).toBe(true);
    vm.submit(...found.map((event) => resume(event['STAG'] as number, 1)));
    expect(vm.devices.resumed).toHaveLength(3);
  });

  it('is tried again rather than recorded when an invalidation has been completed since', () => {
    const { vm, root } = stalling();
    fill(vm);
    const { stall } = vm.stallable(SID, IOVA, READ);
    vm.map(root, IOVA, OUT, S1_LEAF);
    vm.submit(sync());
    vm.submit(tlbi(CMD.TLBI_NH_ASID, { ASID: 5 }), sync());
    expect(vm.devices.resumed).toEqual([]);
    expect(vm.recorded()).toHaveLength(ENTRIES);
    expect(vm.devices.resumed).toEqual([{ stall, action: RESUME.RETRY }]);
    expect(vm.recorded()).toEqual([]);
  });

  it.each([
    ['an invalidation', tlbi(CMD.TLBI_NH_ASID, { ASID: 5 }), 1],
    ['a CMD_SYNC alone', sync(), 0],
  ])('is tried again also where the peer has carried out %s', (_name, first, retried) => {
    const { vm } = stalling();
    fill(vm);
    vm.stallable(SID, IOVA, READ);
    const words = Uint32Array.from([...first, ...sync()]);
    expect(vm.model.peerQueue?.ran(words, 0, 2, 2)).toBe(true);
    vm.recorded();
    expect(vm.devices.resumed).toHaveLength(retried);
    expect(vm.recorded()).toHaveLength(1 - retried);
  });

  it('records them when it is enabled', () => {
    const { vm } = stalling();
    vm.write32(CR0.offset, ENABLES.SMMUEN);
    vm.stallable(SID, IOVA, READ);
    expect(vm.read(EVENTQ_PROD.offset)).toBe(0);
    vm.write32(CR0.offset, ENABLES.ALL);
    expect(vm.recorded()).toMatchObject([{ Stall: 1 }]);
  });

  it('records them when an abort was acknowledged and mended', () => {
    const { vm } = stalling();
    vm.write32(CR0.offset, 0);
    vm.write64(EVENTQ_BASE.offset, 0x20_0000_0004);
    vm.write32(CR0.offset, ENABLES.ALL);
    vm.stallable(SID, IOVA, READ);
    expect(vm.activeErrors).toBe(EVENTQ_ABT_ERR);
    vm.acknowledgeErrors();
    expect(vm.activeErrors).toBe(EVENTQ_ABT_ERR);
    vm.write32(CR0.offset, ENABLES.SMMUEN | ENABLES.CMDQEN);
    vm.write64(EVENTQ_BASE.offset, 0x2_0004);
    vm.acknowledgeErrors();
    vm.write32(CR0.offset, ENABLES.ALL);
    expect(vm.recorded()).toMatchObject([{ Stall: 1, InputAddr: IOVA }]);
  });

  it('drops the record of one that CMD_STALL_TERM ended', () => {
    const { vm } = stalling();
    fill(vm);
    vm.stallable(SID, IOVA, READ);
    vm.submit(stallTerm());
    expect(vm.devices.resumed).toHaveLength(1);
    expect(vm.recorded()).toHaveLength(ENTRIES);
    expect(vm.recorded()).toEqual([]);
  });
});

describe('stalls are never left behind', () => {
  it('end with an abort when the SMMU is disabled', () => {
    const { vm } = stalling();
    const stalls = [0, 1].map((n) => vm.stallable(SID, page(n), READ).stall);
    vm.write32(CR0.offset, ENABLES.EVENTQEN | ENABLES.CMDQEN);
    expect(vm.devices.resumed).toEqual(stalls.map((stall) => ({ stall, action: RESUME.ABORT })));
    const tags = vm.recorded().map((event) => event['STAG'] as number);
    vm.submit(...tags.map((stag) => resume(stag, 1)));
    expect(vm.devices.resumed).toHaveLength(2);
    expect(vm.stallable(SID, IOVA, READ).status).toBe(OK);
  });

  it('are forgotten by a reset, which ends them outside', () => {
    const { vm } = stalling();
    vm.stallable(SID, IOVA, READ);
    const stag = vm.recorded()[0]['STAG'] as number;
    vm.model.reset();
    vm.start();
    vm.submit(resume(stag, 1));
    expect(vm.devices.resumed).toEqual([]);
  });

  it('have a bound, beyond which faults terminate, and which resuming makes room below', () => {
    const { vm } = stalling();
    const tags: number[] = [];
    for (let n = 0; n < 256; n++) {
      expect(vm.stallable(SID, page(n), READ).status).toBe(STALLED);
      tags.push(...vm.recorded().map((event) => event['STAG'] as number));
    }
    expect(new Set(tags).size).toBe(256);
    expect(vm.stallable(SID, page(256), READ).status).toBe(FAULT);
    const [event] = vm.recorded();
    expect([event['InputAddr'], event['Stall']]).toEqual([page(256), undefined]);
    vm.submit(resume(tags[77], 1));
    expect(vm.stallable(SID, page(256), READ).status).toBe(STALLED);
  });

  it('are shown to people', () => {
    const { vm } = stalling();
    vm.stallable(SID, IOVA, READ);
    vm.stallable(SID, IOVA, READ);
    const [node] = vm.model.dumper.dump({ registers: false, tables: false, maxLeaves: 1 });
    expect(node.label).toBe('stalled transactions');
    expect(node.children?.map(({ note }) => note)).toEqual(['recorded', 'follows another one']);
    expect(ANY).toBeGreaterThan(0);
  });
});
