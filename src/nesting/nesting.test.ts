import { describe, expect, it } from 'vitest';
import { newResult } from '../../test/support/local-machine.js';
import { ENTRY, type NestedView, STREAM } from '../device/nested-view.js';
import type { HostDone, HostEvents, HostIommu, MapChanges } from '../host/port.js';
import { ALL_PAGES } from '../host/port.js';
import type { NestingEvent } from './host-operations.js';
import { Nesting } from './nesting.js';

/** A host that answers when it is told to, and a guest with one PASID entry that a test changes. */
function scripted(readOnlyParents = true, modelled = true) {
  const asked: { readonly text: string; readonly done: HostDone }[] = [];
  const ask =
    (name: string) =>
    (...args: unknown[]): void => {
      const done = args.pop() as HostDone;
      asked.push({ text: name, done });
    };
  let events: HostEvents | undefined;
  const ranges: number[][] = [];
  const told: NestingEvent[] = [];
  const changes: { readonly maps: number[]; readonly unmaps: number[] }[] = [];
  const host = {
    limits: () => ({ mappings: Number.POSITIVE_INFINITY, ranges: [], readOnlyParents }),
    listen: (given: HostEvents) => {
      events = given;
    },
    createSpace: ask('create'),
    destroySpace: ask('destroy'),
    change: (_space: number, { maps, mapCount, unmaps, unmapCount }: MapChanges, done: HostDone) => {
      changes.push({
        maps: [...maps.subarray(0, mapCount * 4)],
        unmaps: [...unmaps.subarray(0, unmapCount * 2)],
      });
      asked.push({ text: 'change', done });
    },
    attach: ask('attach'),
    attachNested: (
      _device: number,
      pasid: number,
      _parent: number,
      table: { root: number },
      done: HostDone,
    ) => asked.push({ text: `nest ${pasid} at ${table.root}`, done }),
    detach: (_device: number, pasid: number, done: HostDone) => asked.push({ text: `detach ${pasid}`, done }),
    identify: ask('identify'),
    invalidate: (_parent: number, list: { count: number; words: Uint32Array }, done: HostDone) => {
      for (let at = 0; at < list.count * 5; at += 5) ranges.push([...list.words.subarray(at, at + 5)]);
      asked.push({ text: 'invalidate', done });
    },
  } as unknown as HostIommu;
  const guest = { stream: STREAM.TABLES as number, root: 0x1000, pasid: 7 };
  const view: NestedView = {
    format: 'vtd',
    stream: () => guest.stream,
    ste: () => false,
    entry: (_rid, pasid, out) => {
      out.kind = pasid === guest.pasid ? ENTRY.FIRST_STAGE : ENTRY.NONE;
      out.did = 3;
      out.tag = pasid;
      out.root = guest.root;
      out.levels = 4;
    },
    nextPasid: (_rid, from) => (from <= guest.pasid ? guest.pasid : -1),
    fault: () => {},
    noSuchPasid: () => {},
  };
  const nesting = new Nesting(
    host,
    () => (modelled ? { nested: view, translate: () => {} } : undefined),
    newResult(),
    (event) => told.push(event),
    () => {},
  );
  const answer = (code: 'OK' | 'FAILED' = 'OK', count = asked.length): string[] =>
    asked.splice(0, count).map(({ text, done }) => {
      done({ code, text: '', done: 0, value: 0 });
      return text;
    });
  return { host, nesting, guest, asked, answer, ranges, changes, told, events: () => events };
}

const scope = (sub: number, log2Size = 64, structures = false) => ({
  ...{ space: 3, sub, rid: 0xffffffff, pasid: 0xffffffff },
  ...{ lo: 0x5000, hi: 0, log2Size, structures },
});

describe('nesting, operation by operation', () => {
  it('is pending until the host has done all, and binds what it finds', () => {
    const { nesting, answer } = scripted();
    expect(nesting.pending).toBe(0);
    nesting.ramAdded(0, 0, 0x10000, false);
    nesting.attach(1, 0x18);
    nesting.work();
    expect(nesting.pending).toBe(4);
    expect(answer('OK', 3)).toEqual(['create', 'change', 'identify']);
    expect(nesting.pending).toBe(1);
    expect(answer()).toEqual(['nest 7 at 4096']);
    expect(nesting.pending).toBe(0);
  });

  it('says of an invalidation that fails that it is of no PASID', () => {
    const { nesting, answer, told } = scripted();
    nesting.attach(1, 0x18);
    nesting.work();
    answer();
    answer();
    nesting.invalidated(scope(7));
    nesting.work();
    expect(answer('FAILED')).toEqual(['invalidate']);
    expect(told).toMatchObject([{ kind: 'hostRefused', what: 'invalidation', pasid: -1 }]);
  });

  it('has nothing to drop before there is a model', () => {
    const { nesting, asked } = scripted(true, false);
    nesting.invalidated(scope(7));
    nesting.work();
    expect([asked, nesting.pending]).toEqual([[], 0]);
  });

  it('maps guest memory region by region, and no ROM where a nest parent takes none', () => {
    const [able, erratum] = [scripted(true), scripted(false)];
    for (const { nesting, answer } of [able, erratum]) {
      nesting.ramAdded(0, 0, 0x10000, false);
      nesting.ramAdded(1, 0xf0000, 0x10000, true);
      nesting.attach(1, 0x18);
      nesting.ramAdded(2, 0x10_0000, 0x10000, false);
      nesting.ramRemoved(1);
      answer();
    }
    const [low, rom, high] = [
      [0, 0, 16, 3],
      [0xf0, 0xf0, 16, 1],
      [0x100, 0x100, 16, 3],
    ];
    const maps = (of: number[]) => ({ maps: of, unmaps: [] });
    expect(able.changes).toEqual([maps(low), maps(rom), maps(high), { maps: [], unmaps: [0xf0, 16] }]);
    expect(erratum.changes).toEqual([maps(low), maps(high)]);
  });

  it('forwards what is invalidated, page by page or whole, once the tables are in force', () => {
    const { nesting, answer, ranges } = scripted();
    nesting.attach(1, 0x18);
    nesting.work();
    answer();
    nesting.invalidated(scope(7, 12));
    nesting.invalidated(scope(7, 14));
    nesting.invalidated(scope(8, 12));
    nesting.invalidated({ ...scope(7), space: 4 });
    nesting.invalidated(scope(0xffffffff, 12));
    expect(nesting.pending).toBe(1);
    nesting.work();
    expect(answer()).toEqual(['invalidate']);
    expect(ranges).toEqual([
      [1, 8, 0x5000, 0, 1],
      [1, 8, 0x5000, 0, 4],
      [1, 8, 0x5000, 0, ALL_PAGES],
    ]);
  });

  it('does not forget an invalidation that comes while the host still binds', () => {
    const { nesting, answer, ranges, asked } = scripted();
    nesting.attach(1, 0x18);
    nesting.work();
    nesting.invalidated(scope(7, 12));
    nesting.work();
    // Nothing that the host would refuse …
    expect(asked.map(({ text }) => text)).toEqual(['create', 'identify', 'nest 7 at 4096']);
    answer();
    // … but everything, as soon as hardware may have begun to use the tables.
    expect(nesting.pending).toBe(1);
    nesting.work();
    expect(answer()).toEqual(['invalidate']);
    expect(ranges).toEqual([[1, 8, 0, 0, ALL_PAGES]]);
    expect(nesting.pending).toBe(0);
  });

  it('leaves nothing bound that the host did not take, and the last word to the guest', () => {
    const { nesting, guest, answer } = scripted();
    nesting.attach(1, 0x18);
    nesting.work();
    answer();
    guest.root = 0x2000;
    nesting.invalidated(scope(7, 64, true));
    guest.root = 0x3000;
    nesting.invalidated(scope(7, 64, true));
    nesting.work();
    // The first of the two fails; the second is what counts.
    expect(answer('FAILED', 1)).toEqual(['nest 7 at 8192']);
    expect(answer('OK', 1)).toEqual(['nest 7 at 12288']);
    nesting.work();
    answer();
    guest.root = 0x4000;
    nesting.invalidated(scope(7, 64, true));
    expect(answer('FAILED', 1)).toEqual(['nest 7 at 16384']);
    expect(nesting.pending).toBe(1);
    expect(answer()).toEqual(['detach 7']);
    guest.pasid = 9;
    nesting.invalidated(scope(7, 64, true));
    nesting.invalidated(scope(9, 64, true));
    expect(answer()).toEqual(['nest 9 at 16384']);
    guest.stream = STREAM.BLOCKED;
    nesting.reset();
    nesting.work();
    expect(answer()).toEqual(['detach 9']);
  });

  it('takes a late refusal for what it is: of something that was asked for before', () => {
    const { nesting, guest, answer, asked } = scripted();
    const becomes = (stream: number): void => {
      guest.stream = stream;
      nesting.reset();
      nesting.work();
    };
    guest.stream = STREAM.IDENTITY;
    nesting.attach(1, 0x18);
    nesting.work();
    becomes(STREAM.BLOCKED);
    becomes(STREAM.IDENTITY);
    expect(answer('OK', 2)).toEqual(['create', 'identify']);
    expect(answer('FAILED', 1)).toEqual(['attach']);
    // The second one stays.
    expect(asked.map(({ text }) => text)).toEqual(['detach -1', 'attach']);
    answer();
    // The same for what was of a device, and of a nest parent, that have gone.
    becomes(STREAM.BLOCKED);
    answer();
    becomes(STREAM.IDENTITY);
    nesting.detach(1);
    nesting.attach(1, 0x18);
    nesting.work();
    expect(answer('FAILED', 1)).toEqual(['attach']);
    expect(answer()).toEqual(['detach -1', 'destroy', 'create', 'identify', 'attach']);
    expect(asked).toEqual([]);
  });

  it('goes on forwarding when an earlier nest parent was refused, and that is heard of late', () => {
    const { nesting, answer } = scripted();
    nesting.attach(1, 0x18);
    nesting.detach(1);
    nesting.attach(1, 0x18);
    nesting.work();
    expect(answer('FAILED', 1)).toEqual(['create']);
    answer();
    nesting.invalidated(scope(7, 12));
    nesting.work();
    expect(answer()).toEqual(['invalidate']);
  });

  it('says no to page requests of a model that has none', () => {
    const { host, events } = scripted();
    const answers: number[][] = [];
    host.respond = (...args) => void answers.push(args);
    events()?.pageRequest({ device: 1, pasid: -1, access: 1, lo: 0, hi: 0, group: 3, last: true });
    expect(answers).toEqual([[1, -1, 3, 1]]);
  });
});
