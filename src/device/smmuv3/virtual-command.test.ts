import { describe, expect, it } from 'vitest';
import { ScriptedSpace } from '../../../test/support/scripted-pasids.js';
import { READ, S1_LEAF, SID, TestSmmu } from '../../../test/support/smmu-unit.js';
import { NO_PASID } from '../../base/ids.js';
import { decode } from '../../spec/define.js';
import { CR0 } from '../../spec/smmuv3/registers.js';
import { CD, EATS, S1DSS, STE_CONFIG } from '../../spec/smmuv3/structures.js';
import {
  VCCAP,
  VCID0,
  VCID1,
  VCMD,
  VCRSP,
  VIRTUAL_COMMAND_REGISTERS,
} from '../../spec/smmuv3/virtual-commands.js';
import { REQUEST, TRANSLATE_STATUS } from '../iommu.js';
import { PASID_ANSWER } from '../pasid-space.js';
import { noTables, noWalkTables, THROUGH } from '../tables.js';

const ON = { 'virtual-commands': 'on' };
const NULL = 0;
const ALLOCATE = 1;
const FREE = 2;
const IOVA = 0x12_3456_7000n;
const OUT = 0x40_0000n;

/** One command as a driver gives it; what VCRSP says then. */
function command(vm: TestSmmu, code: number, ssid = 0) {
  vm.write32(VCMD.offset, ssid * 2 ** 12 + code);
  return response(vm);
}

function response(vm: TestSmmu) {
  return decode(VCRSP, vm.registers, VCRSP.offset >> 2);
}

const done = (SubstreamID = 0) => ({ BUSY: 0, SC: 0, SubstreamID });
const failed = (SC: number) => ({ BUSY: 0, SC, SubstreamID: 0 });
const busy = { BUSY: 1, SC: 0, SubstreamID: 0 };

/** A stream of 16 substreams that all reach {@link OUT} at {@link IOVA}, whatever is allocated. */
function withSubstreams(vm: TestSmmu, ste: Readonly<Record<string, number>> = {}): TestSmmu {
  const root = vm.page();
  vm.map(root, IOVA, OUT, S1_LEAF);
  const table = vm.page();
  for (let ssid = 0; ssid < 16; ssid++) vm.cd(table + ssid * CD.bytes, { TTB0: root, ASID: ssid + 1 });
  vm.ste(SID, {
    Config: STE_CONFIG.S1_TRANSLATE,
    S1ContextPtr: table,
    S1CDMax: 4,
    S1DSS: S1DSS.SSID0,
    ...ste,
  });
  return vm;
}

const bad = (SubstreamID: number) => ({ name: 'C_BAD_SUBSTREAMID', StreamID: SID, SubstreamID });

describe('virtual commands', () => {
  it('are there only when asked for', () => {
    const without = new TestSmmu();
    expect(command(without, ALLOCATE)).toEqual(done());
    for (let offset = 0xe00; offset < 0xf00; offset += 4) {
      without.write32(offset, 0xffff_ffff);
      expect(without.read(offset), offset.toString(16)).toBe(0);
    }
    const vm = new TestSmmu({ ...ON, 'ssid-bits': '9' });
    expect(Buffer.from(vm.registers.slice(VCID0.offset >> 2, (VCID1.offset >> 2) + 1).buffer)).toEqual(
      Buffer.from('viommuPV'),
    );
    expect(decode(VCCAP, vm.registers, VCCAP.offset >> 2)).toEqual({ VER: 1, PAS: 1, SSIDSIZE: 9 });
  });

  it.each([{ stages: '2' }, { 'ssid-bits': '0' }])('need SubstreamIDs: not with %o', (options) => {
    expect(() => new TestSmmu({ ...ON, ...options })).toThrow(/virtual-commands=on needs/);
  });

  it('allocate and free, before the unit is enabled too', () => {
    const vm = new TestSmmu(ON);
    expect(command(vm, NULL)).toEqual(done());
    expect([command(vm, ALLOCATE), command(vm, ALLOCATE)]).toEqual([done(1), done(2)]);
    expect(command(vm, FREE, 1)).toEqual(done());
    expect([command(vm, FREE, 1), command(vm, FREE, 0), command(vm, FREE, 0xfffff)]).toEqual(
      [1, 0, 0xfffff].map(() => failed(17)),
    );
    expect(command(vm, ALLOCATE)).toEqual(done(3));
    expect([command(vm, 3), command(vm, 255)]).toEqual([failed(1), failed(1)]);
  });

  it('are one word each: a doubleword gives one command, and no other register takes anything', () => {
    const space = new ScriptedSpace(PASID_ANSWER.REFUSED);
    const vm = new TestSmmu(ON, space);
    const before = vm.registers.slice();
    for (const { offset } of VIRTUAL_COMMAND_REGISTERS) {
      if (offset !== VCMD.offset) vm.write32(offset, 0xffff_ffff);
    }
    expect(vm.registers).toEqual(before);
    vm.model.writeRegister(VCMD.offset, 8, FREE | (5 << 12), 0xffff_ffff);
    vm.model.writeRegister(VCMD.offset, 2, ALLOCATE, 0);
    vm.model.writeRegister(VCMD.offset + 2, 4, ALLOCATE, 0);
    vm.model.writeRegister(VCMD.offset - 4, 8, 0, FREE | (6 << 12));
    // Halves of a word, words that are not aligned, and the registers beside it are no commands.
    expect(space.asked).toEqual(['release', 'free 0x5']);
  });

  it('are busy until the answer is there and no invalidation is in flight, and take no other until then', () => {
    const space = new ScriptedSpace(PASID_ANSWER.LATER);
    const vm = new TestSmmu(ON, space);
    expect(command(vm, ALLOCATE)).toEqual(busy);
    expect(command(vm, FREE, 7)).toEqual(busy);
    expect(VCMD.get.CMD(vm.registers, VCMD.offset >> 2)).toBe(ALLOCATE);
    vm.acks = 1;
    vm.model.pasids?.answered(0x1234);
    expect([response(vm), command(vm, ALLOCATE)]).toEqual([busy, busy]);
    expect(space.asked).toEqual(['release', 'allocate']);
    vm.acks = 0;
    vm.model.acknowledged();
    expect(response(vm)).toEqual(done(0x1234));
    expect(command(vm, FREE, 0x1234)).toEqual(busy);
    vm.model.pasids?.answered(PASID_ANSWER.REFUSED);
    expect(response(vm)).toEqual(failed(17));
    expect(command(vm, ALLOCATE)).toEqual(busy);
    vm.model.pasids?.answered(PASID_ANSWER.REFUSED);
    expect(response(vm)).toEqual(failed(16));
  });

  it('give back what is wider than the guest can name', () => {
    const space = new ScriptedSpace(0x100);
    const vm = new TestSmmu({ ...ON, 'ssid-bits': '8' }, space);
    expect(command(vm, ALLOCATE)).toEqual(failed(16));
    expect(space.asked).toEqual(['release', 'allocate', 'free 0x100']);
    space.answer = PASID_ANSWER.LATER;
    expect(command(vm, ALLOCATE)).toEqual(busy);
    vm.model.pasids?.answered(0xfffff);
    expect(response(vm)).toEqual(busy);
    vm.model.pasids?.answered(PASID_ANSWER.DONE);
    expect(response(vm)).toEqual(failed(16));
    space.answer = 0xff;
    expect(command(vm, ALLOCATE)).toEqual(done(0xff));
  });

  it('have as many as there are bits for', () => {
    const vm = new TestSmmu({ ...ON, 'ssid-bits': '3' });
    const got = Array.from({ length: 7 }, () => command(vm, ALLOCATE).SubstreamID);
    expect(got).toEqual([1, 2, 3, 4, 5, 6, 7]);
    expect(command(vm, ALLOCATE)).toEqual(failed(16));
    expect(vm.events.at(-1)).toMatchObject({ name: 'virtual command failed' });
    expect([command(vm, FREE, 4), command(vm, ALLOCATE)]).toEqual([done(), done(4)]);
  });

  it('give everything back at a reset, which voids what is in progress; SMMUEN changes nothing', () => {
    const space = new ScriptedSpace(PASID_ANSWER.LATER);
    const vm = new TestSmmu(ON, space);
    command(vm, ALLOCATE);
    vm.model.reset();
    expect(space.asked.at(-1)).toBe('release');
    vm.model.pasids?.answered(9);
    expect(response(vm)).toEqual(done());
    const own = withSubstreams(new TestSmmu(ON).start());
    command(own, ALLOCATE);
    own.write32(CR0.offset, 0);
    own.write32(CR0.offset, 13);
    expect(own.translate(SID, IOVA, READ, 1).ok).toBe(true);
    const { registers } = new TestSmmu(ON);
    own.model.reset();
    expect(own.registers).toEqual(registers);
    own.start();
    expect(own.fault(SID, IOVA, READ, 1)).toEqual(bad(1));
    expect(command(own, ALLOCATE)).toEqual(done(1));
  });
});

describe('a SubstreamID that is not the guest’s', () => {
  it('is C_BAD_SUBSTREAMID, whatever its descriptor says', () => {
    const vm = withSubstreams(new TestSmmu(ON).start());
    expect(vm.fault(SID, IOVA, READ, 1)).toEqual(bad(1));
    expect(command(vm, ALLOCATE)).toEqual(done(1));
    expect(vm.translate(SID, IOVA, READ, 1)).toMatchObject({ ok: true, out: OUT });
    expect(vm.fault(SID, IOVA, READ, 2)).toEqual(bad(2));
    // Requests without one, and what belongs to them, are none of its business.
    expect(vm.translate(SID, IOVA, READ)).toMatchObject({ ok: true, out: OUT });
    expect(vm.fault(SID, IOVA, READ, 0).name).toBe('F_STREAM_DISABLED');
    expect(withSubstreams(new TestSmmu().start()).translate(SID, IOVA, READ, 2).ok).toBe(true);
  });

  it('is out of reach from the moment that it is freed, before the guest has invalidated anything', () => {
    const vm = withSubstreams(new TestSmmu(ON).start());
    command(vm, ALLOCATE);
    command(vm, ALLOCATE);
    expect(vm.translate(SID, IOVA, READ, 1).ok).toBe(true);
    vm.invalidations.length = 0;
    expect(command(vm, FREE, 1)).toEqual(done());
    // Caches outside hold its translations.
    expect(vm.invalidations).toMatchObject([{ rid: 0xffff_ffff, structures: true, log2Size: 64 }]);
    expect(vm.fault(SID, IOVA, READ, 1)).toEqual(bad(1));
    expect(vm.translate(SID, IOVA, READ, 2).ok).toBe(true);
    vm.model.pasids?.revoked(2);
    vm.model.pasids?.revoked(2);
    expect(vm.invalidations).toHaveLength(2);
    expect(vm.fault(SID, IOVA, READ, 2)).toEqual(bad(2));
    expect(command(vm, FREE, 3)).toEqual(failed(17));
    expect(vm.invalidations).toHaveLength(2);
  });

  it('stays busy until those caches have acknowledged', () => {
    const vm = withSubstreams(new TestSmmu(ON).start());
    command(vm, ALLOCATE);
    vm.acks = 1;
    expect(command(vm, FREE, 1)).toEqual(busy);
    expect(vm.fault(SID, IOVA, READ, 1)).toEqual(bad(1));
    vm.acks = 0;
    vm.model.acknowledged();
    expect(response(vm)).toEqual(done());
  });

  it('has no substream 0, where that is one', () => {
    for (const behaviour of [S1DSS.TERMINATE, S1DSS.BYPASS]) {
      const vm = withSubstreams(new TestSmmu(ON).start(), { S1DSS: behaviour });
      expect(vm.fault(SID, IOVA, READ, 0)).toEqual({ name: 'C_BAD_SUBSTREAMID', StreamID: SID });
      expect(
        withSubstreams(new TestSmmu().start(), { S1DSS: behaviour }).translate(SID, IOVA, READ, 0).ok,
      ).toBe(true);
    }
  });

  it('is refused by ATS, and is nothing to those who keep translations or walk by themselves', () => {
    const vm = withSubstreams(new TestSmmu({ ...ON, ats: 'on' }).start(), { EATS: EATS.FULL });
    command(vm, ALLOCATE);
    expect(vm.ask(SID, IOVA, READ, 1, REQUEST.TRANSLATION).status).toBe(TRANSLATE_STATUS.OK);
    expect(vm.ask(SID, IOVA, READ, 2, REQUEST.TRANSLATION).status).toBe(TRANSLATE_STATUS.COMPLETER_ABORT);
    const through = (ssid: number): number => {
      const tables = noTables();
      vm.model.spaces.tables?.(SID, ssid, tables);
      return tables.through;
    };
    expect([1, 2, NO_PASID].map(through)).toEqual([THROUGH.TABLES, THROUGH.NOTHING, THROUGH.TABLES]);
    const walks = (ssid: number) => vm.model.peerWalk?.describe(SID, ssid, 0x12, noWalkTables());
    expect([1, 2, NO_PASID].map(walks)).toEqual([true, false, true]);
  });
});
