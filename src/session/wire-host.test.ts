import { beforeEach, describe, expect, it } from 'vitest';
import { fullHost } from '../assignment/request.js';
import { decodeTable, encodeTable, toWords } from '../host/kernel-structures.js';
import {
  ALL_PAGES,
  HostInvalidations,
  type HostOutcome,
  MapChanges,
  type NestedTable,
} from '../host/port.js';
import { FLAG, MESSAGE } from '../wire/frame.js';
import { hostResult } from '../wire/host-results.js';
import type * as M from '../wire/messages.js';
import { WireHost } from './wire-host.js';

interface Sent {
  readonly type: number;
  readonly id: number;
  readonly message: object;
}

let host: WireHost;
let sent: Sent[];
let ended: HostOutcome[];
const done = (outcome: HostOutcome): void => void ended.push(outcome);

beforeEach(() => {
  host = new WireHost();
  sent = [];
  ended = [];
  host.open({
    put: (type, flags, id, _codec, message) => {
      expect(flags).toBe(type === MESSAGE.HOST_RESPOND ? 0 : FLAG.NEED_REPLY);
      sent.push({ type, id, message });
    },
  });
  host.announce(4, {
    capabilities: fullHost('vtd3'),
    limits: { mappings: 1, ranges: [], readOnlyParents: true },
  });
  host.announce(5, {
    capabilities: fullHost('smmuv3'),
    limits: { mappings: 1, ranges: [], readOnlyParents: true },
  });
});

function answer(at: number, reply: Partial<M.HostReply> = {}): void {
  host.answered(sent[at].type, sent[at].id, { code: 0, text: '', done: 0, value: 0, ...reply });
}

describe('host operations on the wire', () => {
  it('are sent at once and end in the order in which they were asked', () => {
    host.createSpace(0, 4, true, done);
    host.allocatePasid(4, done);
    expect(sent.map(({ type }) => type)).toEqual([MESSAGE.HOST_SPACE_CREATE, MESSAGE.HOST_PASID_ALLOC]);
    expect(() => answer(1)).toThrow(expect.objectContaining({ reason: 'UNEXPECTED_REPLY' }));
    answer(0);
    answer(1, { value: 9 });
    expect(ended.map(({ code, value }) => [code, value])).toEqual([
      ['OK', 0],
      ['OK', 9],
    ]);
  });

  it('are answered by their type and number', () => {
    host.detach(4, -1, done);
    const [{ type, id }] = sent;
    const reply = { code: 0, text: '', done: 0, value: 0 };
    for (const [other, number] of [
      [type, id + 1],
      [type + 1, id],
    ] as const) {
      expect(() => host.answered(other, number, reply)).toThrow(
        expect.objectContaining({ reason: 'UNEXPECTED_REPLY' }),
      );
    }
    host.answered(type, id, reply);
    expect(ended).toHaveLength(1);
  });

  it('end with the codes of the port; one from the future ends the connection', () => {
    host.detach(4, -1, done);
    answer(0, { code: hostResult('NOT_ATTACHED'), text: 'x' });
    expect(ended).toEqual([{ code: 'NOT_ATTACHED', text: 'x', done: 0, value: 0 }]);
    host.detach(4, 3, done);
    expect(() => answer(1, { code: 99 })).toThrow(expect.objectContaining({ reason: 'BAD_ARGUMENT' }));
  });

  it('name PASIDs one up, and none as 0', () => {
    const table: NestedTable = { format: 'smmuv3', ste: Uint32Array.of(1, 2, 3, 4) };
    for (const pasid of [-1, 7]) {
      host.attach(4, pasid, 1000, done);
      host.attachNested(4, pasid, 1, table, done);
      host.detach(4, pasid, done);
      host.respond(4, pasid, 3, 1);
    }
    expect(sent.map(({ message }) => (message as { pasid: number }).pasid)).toEqual([0, 0, 0, 0, 8, 8, 8, 8]);
    expect(sent[1].message).toMatchObject({ device: 4, parent: 1, type: 2 });
  });

  it('put pages of up to 52 bits into both halves', () => {
    host.change(
      1,
      new MapChanges()
        .unmap(2 ** 51, 2)
        .unmap(7, 1)
        .map(2 ** 52 - 1, 0x12345678, 1, 3),
      done,
    );
    const { ops } = sent[0].message as M.HostMap;
    const [low, high] = [0xfffff000, 0xffffffff];
    expect(Array.from(ops)).toEqual([
      ...[0, 0, 0x80000000, 0x1fff, 0x80000000, 0, 0],
      ...[0, 0x7000, 0, 0x7fff, 0, 0, 0],
      ...[3, low, high, high, high, 0x45678000, 0x123],
    ]);
  });

  it('send a long list in parts, one after the other, and nothing in between', () => {
    const changes = new MapChanges();
    for (let page = 0; page < 5000; page++) changes.map(page * 2, page, 1, 3);
    host.change(1, changes, done);
    host.detach(4, -1, done);
    expect(sent).toHaveLength(1);
    answer(0, { done: 2048 });
    answer(1, { done: 2048 });
    expect(sent).toHaveLength(3);
    answer(2, { done: 904 });
    expect(ended[0]).toMatchObject({ code: 'OK', done: 5000 });
    expect(sent.map(({ type }) => type)).toEqual([82, 82, 82, MESSAGE.HOST_DETACH]);
  });

  it('do not send the rest of a list that has failed', () => {
    const changes = new MapChanges();
    for (let page = 0; page < 5000; page++) changes.map(page * 2, page, 1, 3);
    host.change(1, changes, done);
    host.detach(4, -1, done);
    answer(0, { done: 2048 });
    answer(1, { code: hostResult('PIN_LIMIT'), done: 2 });
    expect(ended).toMatchObject([{ code: 'PIN_LIMIT', done: 2050 }]);
    expect(sent.map(({ type }) => type)).toEqual([82, 82, MESSAGE.HOST_DETACH]);
  });

  it('batch invalidations of a VT-d by whose tables they are of', () => {
    host.createSpace(0, 4, true, done);
    const list = new HostInvalidations()
      .range(4, -1, 0x1000, 2, 1)
      .range(4, -1, 0x3000, 2, 8)
      .range(4, 7, 0, 0, ALL_PAGES);
    host.invalidate(0, list, done);
    const message = sent[1].message as M.HostInvalidate;
    expect({ ...message, entries: [...toWords(message.entries)] }).toEqual({
      space: 0,
      type: 0,
      size: 24,
      targets: [4, 0, 2, 4, 8, 1],
      entries: [
        ...[0x1000, 2, 1, 0, 0, 0],
        ...[0x3000, 2, 8, 0, 0, 0],
        ...[0, 0, 0xffffffff, 0xffffffff, 0, 0],
      ],
    });
  });

  it('give an SMMUv3 its commands as they are', () => {
    host.createSpace(0, 5, true, done);
    host.identify(5, 0x18, done);
    host.invalidate(0, new HostInvalidations().command(1, 2, 3, 4), done);
    const message = sent[2].message as M.HostInvalidate;
    expect([message.type, message.size, [...(message.targets as number[])]]).toEqual([1, 16, []]);
    expect([...toWords(message.entries)]).toEqual([1, 2, 3, 4]);
    expect([host.deviceOf(0x18), host.deviceOf(0x19)]).toEqual([5, undefined]);
    host.forget(5);
    expect(host.deviceOf(0x18)).toBeUndefined();
    expect(() => host.capabilities(6)).toThrow(/NO_SUCH_DEVICE/);
    expect(() => host.limits(6)).toThrow(/NO_SUCH_DEVICE/);
  });
});

describe('guest tables as the kernel takes them', () => {
  const vtd = (fields: object): NestedTable =>
    ({
      ...{ format: 'vtd', root: 0x12_3456_7000, levels: 4 },
      ...{ writeProtect: false, extendedAccessed: false, supervisor: false },
      ...fields,
    }) as NestedTable;

  it.each([
    [vtd({}), 1, [0, 0, 0x34567000, 0x12, 48, 0]],
    [vtd({ levels: 5, supervisor: true }), 1, [1, 0, 0x34567000, 0x12, 57, 0]],
    [vtd({ extendedAccessed: true, writeProtect: true }), 1, [6, 0, 0x34567000, 0x12, 48, 0]],
    [{ format: 'smmuv3', ste: Uint32Array.of(1, 2, 3, 4) } as NestedTable, 2, [1, 2, 3, 4]],
  ])('%o', (table, type, words) => {
    const encoded = encodeTable(table);
    expect([encoded.type, [...toWords(encoded.data)]]).toEqual([type, words]);
    expect(decodeTable(encoded.type, encoded.data)).toEqual(table);
  });

  it.each([
    [1, 20],
    [2, 24],
    [3, 24],
    [1, 24],
  ])('type %i with %i bytes is none', (type, bytes) => {
    expect(() => decodeTable(type, new Uint8Array(bytes))).toThrow(/BAD_TABLE/);
  });
});
