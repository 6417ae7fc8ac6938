/** Shadows in spaces of a host: which operations reach it, and what becomes of those that fail. */
import { describe, expect, it } from 'vitest';
import { Bench, OUT } from '../../test/support/shadow-unit.js';
import type { HostDone, HostIommu, HostOutcome, MapChanges } from '../host/port.js';
import { HostSpaces } from './host-spaces.js';
import { LAST_PAGE } from './pages.js';

const RID = 8;
const DEVICE = 3;
const OTHER = 4;

/** A host that answers a change of mappings when the test says so. */
function scripted() {
  const bench = new Bench();
  const asked: string[] = [];
  const changes: { readonly space: number; readonly maps: number[]; readonly unmaps: number[] }[] = [];
  const waiting: HostDone[] = [];
  let answers = 0;
  const host = {
    limits: () => ({ ranges: [{ first: 0, last: LAST_PAGE }] }),
    createSpace: (space: number, device: number) => asked.push(`create ${space} for ${device}`),
    destroySpace: (space: number) => asked.push(`destroy ${space}`),
    attach: (device: number, pasid: number, space: number) =>
      asked.push(`attach ${device}.${pasid} to ${space}`),
    detach: (device: number, pasid: number) => asked.push(`detach ${device}.${pasid}`),
    change: (space: number, { maps, mapCount, unmaps, unmapCount }: MapChanges, done: HostDone) => {
      const list = {
        maps: [...maps.subarray(0, mapCount * 4)],
        unmaps: [...unmaps.subarray(0, unmapCount * 2)],
      };
      changes.push({ space, ...list });
      waiting.push(done);
    },
  } as unknown as HostIommu;
  const nothing = (): void => {};
  const spaces = new HostSpaces(
    host,
    bench.shadow,
    { begin: () => nothing, detaching: () => nothing },
    () => void answers++,
  );
  const send = (): boolean[] => {
    const taken: boolean[] = [];
    bench.shadow.work();
    for (let batch = bench.shadow.take(); batch !== undefined; batch = bench.shadow.take()) {
      taken.push(spaces.takes(batch));
    }
    return taken;
  };
  const answer = (code: HostOutcome['code'], done = 0): void =>
    (waiting.shift() as HostDone)({ code, text: '', done, value: 0 });
  return { bench, spaces, asked, changes, send, answer, answers: () => answers };
}

describe('a shadow in a space of the host', () => {
  it('begins with the space, and maps there', () => {
    const { bench, spaces, asked, changes, send, answer, answers } = scripted();
    bench.map(0, OUT, 2);
    spaces.attach(DEVICE, RID, bench.model);
    expect(asked).toEqual(['create 1000 for 3', 'attach 3.-1 to 1000']);
    expect(send()).toEqual([true]);
    expect(changes).toEqual([{ space: 1000, maps: [0, OUT, 2, 3], unmaps: [] }]);
    expect([spaces.underWay, bench.shadow.pending > 0, answers()]).toEqual([1, true, 0]);
    answer('OK', 1);
    expect([spaces.underWay, bench.shadow.pending, answers()]).toEqual([0, 0, 1]);
  });

  it('goes on behind an operation that fails, which is told as an error number', () => {
    const { bench, spaces, changes, send, answer } = scripted();
    for (const page of [0, 2, 4]) bench.map(page, OUT + page);
    spaces.attach(DEVICE, RID, bench.model);
    send();
    answer('MAPPING_LIMIT', 1);
    expect(spaces.underWay).toBe(1);
    expect(changes.at(-1)).toEqual({ space: 1000, maps: [4, OUT + 4, 1, 3], unmaps: [] });
    answer('OK', 1);
    expect(spaces.underWay).toBe(0);
    expect(bench.events).toMatchObject([{ kind: 'hostRefused', error: 28, count: 1, failed: 1 }]);
  });

  it('has nothing mapped when the space is gone: no operation of the batch counts as refused', () => {
    const { bench, spaces, send, answer } = scripted();
    for (const page of [0, 2]) bench.map(page, OUT + page);
    spaces.attach(DEVICE, RID, bench.model);
    send();
    answer('NO_SUCH_SPACE');
    expect([spaces.underWay, bench.shadow.pending, bench.events]).toEqual([0, 0, []]);
  });

  it('takes no batch of a device that is shadowed without a space', () => {
    const { bench, spaces, send } = scripted();
    bench.map(0, OUT);
    bench.shadow.attach(1, RID, bench.model);
    bench.shadow.listen(1, 0, LAST_PAGE);
    expect([send(), spaces.underWay]).toEqual([[false], 0]);
  });

  it.each([
    ['one PASID', (spaces: HostSpaces) => spaces.detach(DEVICE, 5), ['detach 3.5', 'destroy 1001']],
    [
      'a device without PASID',
      (spaces: HostSpaces) => spaces.detach(DEVICE),
      ['detach 3.-1', 'destroy 1000'],
    ],
    [
      'a device with all of them',
      (spaces: HostSpaces) => spaces.detachAll(DEVICE),
      ['detach 3.-1', 'destroy 1000', 'detach 3.5', 'destroy 1001'],
    ],
  ])('ends with %s, and no other', (_, end, operations) => {
    const { bench, spaces, asked } = scripted();
    spaces.attach(DEVICE, RID, bench.model);
    spaces.attach(DEVICE, RID, bench.model, 5);
    spaces.attach(OTHER, RID + 8, bench.model, 5);
    asked.length = 0;
    end(spaces);
    expect(asked).toEqual(operations);
    expect([...bench.shadow.devices]).toHaveLength(3 - operations.length / 2);
  });

  it('follows its device to another requester id, and no other device does', () => {
    const { bench, spaces } = scripted();
    spaces.attach(DEVICE, RID, bench.model);
    spaces.attach(OTHER, RID + 8, bench.model);
    spaces.renumber(DEVICE, 0x55, bench.model);
    expect([...bench.shadow.devices].map(({ rid }) => rid)).toEqual([0x55, RID + 8]);
  });
});

describe('a device that gets another requester id', () => {
  it('goes through the tables of that one; the same id changes nothing', () => {
    const bench = new Bench();
    bench.map(0, OUT);
    bench.attach();
    const tables = bench.space().guest;
    bench.root = 0x80_0000;
    bench.map(7, OUT + 7);
    bench.shadow.renumber(1, 8, bench.model);
    expect([bench.shadow.pending, bench.space().guest === tables]).toEqual([0, true]);
    bench.shadow.renumber(99, 8, bench.model);
    bench.shadow.renumber(1, 9, bench.model);
    expect(bench.settle()).toEqual(['unmap 0+1', `map 7+1 to ${(OUT + 7).toString(16)} 3`]);
    expect(bench.space().rid).toBe(9);
  });
});
