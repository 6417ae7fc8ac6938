import { describe, expect, it } from 'vitest';
import { handle, InterruptMachine } from '../../../test/support/vtd-interrupts.js';
import { descriptor } from '../../../test/support/vtd-unit.js';
import { DESCRIPTOR, IEC_INV_DSC, INV_WAIT_DSC } from '../../spec/vtd/descriptors.js';
import { IQERCD_REG, IQH_REG } from '../../spec/vtd/registers.js';

/** Entries `from` to `to` are used with one vector, and then have another one in memory. */
function changed(vm: InterruptMachine, from: number, to: number): InterruptMachine {
  for (let index = from; index <= to; index++) {
    vm.irte(index, { V: 0x31 });
    vm.raise(index);
    vm.irte(index, { V: 0x41 });
  }
  vm.interruptInvalidations.length = 0;
  return vm;
}

/** Those that still go by what was cached. */
function stale(vm: InterruptMachine, from: number, to: number): number[] {
  const found: number[] = [];
  for (let index = from; index <= to; index++) if (vm.raise(index).data === 0x4031) found.push(index);
  return found;
}

describe('an entry', () => {
  it('stays until software invalidates it', () => {
    const vm = changed(new InterruptMachine().started(), 5, 5);
    expect(vm.raise(5)).toMatchObject({ data: 0x4031 });
    vm.irte(5, { P: 0 });
    expect(vm.raise(5)).toMatchObject({ ok: true, data: 0x4031 });
    vm.iec(5);
    expect(vm.raise(5).ok).toBe(false);
    expect(vm.faults()).toMatchObject([{ reason: 0x22 }]);
  });

  it('is kept, not what became of a request', () => {
    const vm = new InterruptMachine().started();
    vm.irte(5, { V: 0x31, SVT: 1, SID: 0x18 });
    expect(vm.raise(5, 0x18).ok).toBe(true);
    expect(vm.raise(5, 0x20).ok).toBe(false);
    expect(vm.raise(5, 0x18).ok).toBe(true);
    expect(vm.faults()).toMatchObject([{ reason: 0x26, sid: 0x20 }]);
  });

  it('that faults is kept with caching mode only', () => {
    for (const mode of ['off', 'on']) {
      const vm = new InterruptMachine({ 'caching-mode': mode }).started();
      vm.irte(5, { P: 0, FPD: 1 });
      vm.irte(6, { IM: 1, FPD: 1 });
      expect([vm.raise(5).ok, vm.raise(6).ok]).toEqual([false, false]);
      vm.irte(5, { V: 0x31 });
      vm.irte(6, { V: 0x31 });
      expect([vm.raise(5).ok, vm.raise(6).ok], mode).toEqual([mode === 'off', mode === 'off']);
      vm.iec();
      expect([vm.raise(5).ok, vm.raise(6).ok]).toEqual([true, true]);
    }
  });

  it('is not kept by policy none, and dropped now and then by hostile', () => {
    const none = changed(new InterruptMachine({ 'cache-policy': 'none' }).started(), 5, 5);
    expect(none.model.answersMayBeKept).toBe(false);
    expect(none.raise(5)).toMatchObject({ data: 0x4041 });
    const hostile = changed(new InterruptMachine({ 'cache-policy': 'hostile' }).started(), 5, 5);
    const seen = Array.from({ length: 10 }, () => hostile.raise(5).data);
    expect(seen[0]).toBe(0x4031);
    expect(seen.at(-1)).toBe(0x4041);
  });

  it('is one of 256 at most', () => {
    const vm = new InterruptMachine();
    vm.enableQueue(false);
    vm.setTable(10);
    vm.remapInterrupts();
    changed(vm, 0, 2047);
    expect(stale(vm, 1792, 2047)).toHaveLength(256);
    expect(stale(vm, 0, 1791)).toEqual([]);
  });

  it('goes when the table is set, as ESIRTPS says; not when remapping is switched', () => {
    const vm = changed(new InterruptMachine().started(), 5, 5);
    vm.remapInterrupts(false);
    vm.remapInterrupts();
    expect(vm.raise(5).data).toBe(0x4031);
    vm.setTable();
    expect(vm.raise(5).data).toBe(0x4041);
  });
});

describe('invalidations', () => {
  it.each([
    [0, 0, [0, 0]],
    [5, 0, [5, 5]],
    [5, 1, [4, 5]],
    [6, 2, [4, 7]],
    [9, 3, [8, 15]],
    [3, 4, [0, 15]],
    [0, 15, [0, 15]],
  ])('of index %d with mask %d drop the aligned block', (index, mask, [first, last]) => {
    const vm = changed(new InterruptMachine().started(), 0, 15);
    vm.iec(index, mask);
    expect(vm.interruptInvalidations).toEqual([[first, mask]]);
    const kept = Array.from({ length: 16 }, (_, at) => at).filter((at) => at < first || at > last);
    expect(stale(vm, 0, 15)).toEqual(kept);
  });

  it('of all drop all, whatever the fields of the others say', () => {
    const vm = changed(new InterruptMachine().started(), 0, 15);
    vm.submit(descriptor(IEC_INV_DSC, { TypeLow: DESCRIPTOR.INTERRUPT_ENTRY_CACHE, IIDX: 77, IM: 31 }));
    expect(vm.interruptInvalidations).toEqual([[0, 16]]);
    expect(stale(vm, 0, 15)).toEqual([]);
  });

  it.each([
    ['a mask above MHMV', { G: 1, IM: 16 }, [0, 0, 0, 0]],
    ['bit 5', { G: 1 }, [0x20, 0, 0, 0]],
    ['bit 26', {}, [0x0400_0000, 0, 0, 0]],
    ['bit 48', {}, [0, 0x1_0000, 0, 0]],
    ['bit 64', {}, [0, 0, 1, 0]],
  ])('with %s stop the queue and do nothing', (_, fields, bits) => {
    const vm = changed(new InterruptMachine().started(), 5, 5);
    const words = descriptor(IEC_INV_DSC, { TypeLow: DESCRIPTOR.INTERRUPT_ENTRY_CACHE, ...fields });
    vm.submit(words.map((word, at) => word | (bits[at] ?? 0)));
    expect(vm.read(IQERCD_REG.offset)).toBe(4);
    expect(vm.read(IQH_REG.offset)).toBe(0);
    expect(vm.interruptInvalidations).toEqual([]);
    expect(vm.raise(5).data).toBe(0x4031);
  });

  it('are complete for a wait when what is kept outside is dropped', () => {
    const vm = changed(new InterruptMachine().started(), 5, 5);
    const status = vm.page();
    vm.acks = 1;
    vm.iec(5);
    const wait = descriptor(INV_WAIT_DSC, {
      TypeLow: DESCRIPTOR.WAIT,
      SW: 1,
      StatusData: 7,
      StatusAddress: status,
    });
    vm.submit(wait);
    expect(vm.memory.peek(status)).toBe(0n);
    vm.acks = 0;
    vm.model.acknowledged();
    expect(vm.memory.peek(status)).toBe(7n);
  });

  it('exist in queues of 256-bit descriptors too, with an upper half that is reserved', () => {
    const vm = new InterruptMachine();
    vm.enableQueue(true);
    vm.setTable();
    vm.remapInterrupts();
    changed(vm, 5, 5).iec(5);
    expect(vm.raise(5).data).toBe(0x4041);
    const words = descriptor(IEC_INV_DSC, { TypeLow: DESCRIPTOR.INTERRUPT_ENTRY_CACHE });
    words[7] = 1;
    vm.submit(words);
    expect(vm.read(IQERCD_REG.offset)).toBe(4);
  });
});

describe('entries that are stale', () => {
  const told = (vm: InterruptMachine) => vm.events.filter(({ kind }) => kind === 'staleInterrupt');

  it('are told of once, with what differs, while that is asked for', () => {
    const vm = changed(new InterruptMachine().started(), 5, 6);
    vm.raise(5);
    expect(told(vm)).toEqual([]);
    vm.model.interrupts?.check?.(true);
    vm.raise(5);
    vm.raise(5);
    expect(vm.message(8, handle(6), 0, true).ok).toBe(true);
    expect(told(vm)).toEqual([
      {
        ...{ kind: 'staleInterrupt', index: 5, differs: 'V 49, now 65' },
        cached: '0x0000000000000000 0x0000000000310001',
        memory: '0x0000000000000000 0x0000000000410001',
      },
      expect.objectContaining({ index: 6 }),
    ]);
    vm.iec(5);
    vm.raise(5);
    vm.irte(5, { P: 0, V: 0x41, SVT: 1 });
    vm.raise(5);
    expect(told(vm).at(-1)).toMatchObject({
      index: 5,
      differs: 'P 1, now 0; SVT 0 (none), now 1 (source-id)',
    });
    expect(told(vm)).toHaveLength(3);
    vm.model.interrupts?.check?.(false);
    vm.raise(6);
    expect(told(vm)).toHaveLength(3);
  });

  it('in bits that no field has are told of as such', () => {
    const vm = new InterruptMachine({ 'caching-mode': 'on' }).started();
    vm.irte(5, { V: 1 });
    vm.model.interrupts?.check?.(true);
    vm.raise(5);
    vm.store(0x2_0000 + 5 * 16 + 12, [1]);
    vm.raise(5);
    expect(told(vm)).toMatchObject([{ index: 5, differs: 'reserved bits' }]);
  });
});

describe('a dump', () => {
  const options = { registers: false, tables: true, maxLeaves: 8 };

  it('has the present entries, those of one requester if asked', () => {
    const vm = new InterruptMachine().started();
    vm.irte(5, { V: 0x31, DST: 0x0300, SVT: 1, SID: 0x18, DLM: 1 });
    vm.irte(9, { V: 0x41, SVT: 1, SID: 0x20, TM: 1 });
    const all = vm.model.dumper.dump(options).at(-1);
    expect(all).toMatchObject({
      label: 'interrupt remapping table at 0x20000, 256 entries, xAPIC',
      children: [
        {
          label: 'IRTE 5',
          raw: '0x0000000000040018 0x0000030000310021',
          fields: { P: 1, V: 0x31, DST: 0x300, SVT: '1 (source-id)', SID: 0x18, DLM: '1 (lowest priority)' },
        },
        { label: 'IRTE 9', fields: { TM: '1 (level)' } },
      ],
    });
    const one = vm.model.dumper.dump({ ...options, rid: 0x20 }).at(-1);
    expect(one?.children?.map(({ label }) => label)).toEqual(['IRTE 9']);
  });

  it('says where it stops', () => {
    const vm = new InterruptMachine({ eim: 'on' });
    vm.setTable(8, true);
    for (let index = 0; index < 300; index++) vm.irte(index, { V: 1 });
    const node = vm.model.dumper.dump(options).at(-1);
    expect(node).toMatchObject({ note: '44 more entries', label: expect.stringContaining('x2APIC') });
    expect(node?.children).toHaveLength(256);
    vm.setTable(3, false, 0x1000_0000);
    expect(vm.model.dumper.dump(options).at(-1)).toMatchObject({
      children: [],
      note: 'entry 0 is not in memory',
    });
  });

  it('has no table before one is set', () => {
    const labels = new InterruptMachine().model.dumper.dump(options).map(({ label }) => label);
    expect(labels).toEqual(['root table at 0x0']);
  });
});
