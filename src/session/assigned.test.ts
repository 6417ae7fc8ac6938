/**
 * Assigned devices: who is served how, whose PASIDs they have, and where what hardware reports
 * goes.
 */
import { beforeEach, describe, expect, it } from 'vitest';
import type { Mode } from '../assignment/request.js';
import { ACCESS, EVERYTHING, type Iommu, type TranslateRequest } from '../device/iommu.js';
import { STREAM } from '../device/nested-view.js';
import { PASID_ANSWER } from '../device/pasid-space.js';
import { type AddressSpaceTables, THROUGH } from '../device/tables.js';
import { EVENT_TYPE, toBytes } from '../host/kernel-structures.js';
import { SimHost } from '../host/sim/sim-host.js';
import { ArrayMemory } from '../memory/array.js';
import { Shadow } from '../shadow/shadow.js';
import { CODEC } from '../wire/codec.js';
import { FLAG, MESSAGE } from '../wire/frame.js';
import type * as M from '../wire/messages.js';
import { AssignedDevices } from './assigned.js';
import { DeviceTable } from './devices.js';
import type { LogFields } from './ports.js';
import { CHANNEL } from './session.js';
import { Bench } from './testing/bench.js';
import { FakeModel, fakeModels } from './testing/fake-model.js';

const VF = 0;
const MDEV = 1;
/** All that a peer may be able to do, and the same without nest parents. */
const ABLE = 63;
const NO_NESTING = { abilities: 62 };
const GUEST = { 'scalable-mode': 'on', 'virtual-commands': 'on', 'caching-mode': 'on' };
const HOSTS = {
  vtd2: new SimHost({ kind: 'vtd2' }).driver.hardwareInfo(),
  vtd3: new SimHost({ kind: 'vtd3' }).driver.hardwareInfo(),
};
/** A VT-d fault record: a write at 0x12345000. */
const RECORD = toBytes([0x1234_5000, 0, 0x18, 0]);

/**
 * A guest's devices, a peer that carries out what it is asked for, and a model that says what it
 * hears.
 */
class Guest {
  readonly table = new DeviceTable();
  readonly sent: { type: number; id: number; message: Record<string, unknown> }[] = [];
  readonly heard: string[] = [];
  readonly log: { level: string; text: string; fields: LogFields }[] = [];
  /** What PASIDs the host gives. */
  readonly pasids = [7, 9];
  through: number = THROUGH.NOTHING;
  /** What a nested device's structures say. */
  stream: number = STREAM.IDENTITY;
  readonly assigned: AssignedDevices;
  #answered = 0;

  constructor(mode: Mode = 'auto') {
    const model = {
      spaces: {
        concerns: () => false,
        tables: (_rid: number, _pasid: number, out: AddressSpaceTables) => {
          out.through = this.through;
        },
      },
      pasids: {
        bits: 20,
        answered: (answer: number) => this.heard.push(`answer ${answer}`),
        revoked: (pasid: number) => this.heard.push(`revoked ${pasid}`),
      },
      nested: {
        format: 'vtd',
        stream: () => this.stream,
        noSuchPasid: (rid: number, pasid: number, access: number) =>
          this.heard.push(`no PASID ${pasid} of ${rid}: ${access}`),
      },
      translate: ({ rid, pasid, access, lo }: TranslateRequest) =>
        this.heard.push(`translate ${lo.toString(16)} of ${rid}, PASID ${pasid}: ${access}`),
    } as unknown as Iommu;
    const memory = new ArrayMemory([{ base: 0, bytes: 4096 }]);
    this.assigned = new AssignedDevices(
      {
        log: (level, text, fields = {}) => this.log.push({ level, text, fields }),
        event: () => {},
      },
      { session: 'test', modelDefaults: {}, assignment: { mode } },
      this.table,
      new Shadow(memory, () => {}),
      () => model,
      () => {},
    );
    this.assigned.open({
      put: (type, _flags, id, _codec, message) =>
        this.sent.push({ type, id, message: { ...message } as Record<string, unknown> }),
    });
  }

  /**
   * A device that the guest knows as `rid`. Returns what was chosen: 0 nothing, 2 shadow, 3 nest.
   */
  plug(device: number, rid: number, kind: number, host: keyof typeof HOSTS, change: object = {}): number {
    this.table.add(device, rid, `device ${device}`);
    const { type, info } = HOSTS[host];
    const message: M.HostDevice = {
      ...CODEC.HostDevice.create(),
      ...{ device, kind, abilities: ABLE, infoType: type, info, pasidBits: 20, ...change },
    };
    const { choice } = this.assigned.announce(message, 'vtd', GUEST);
    this.settle();
    return choice;
  }

  /** The peer answers all that it was asked. */
  settle(code = 0): void {
    while (this.#answered < this.sent.length) {
      const { type, id } = this.sent[this.#answered++] as (typeof this.sent)[0];
      if (type === MESSAGE.HOST_RESPOND) continue;
      const value = type === MESSAGE.HOST_PASID_ALLOC ? (this.pasids.shift() ?? 0) : 0;
      this.assigned.host.answered(type, id, { code, text: 'no', done: 0, value });
    }
  }

  /** The next PASID of the host becomes the guest's. */
  give(): void {
    expect(this.assigned.pasids.allocate()).toBe(PASID_ANSWER.LATER);
    this.settle();
    this.heard.length = 0;
  }

  /** What was sent of a type since the last call; all of it counts as answered. */
  told(type: number): Record<string, unknown>[] {
    this.#answered = 0;
    return this.sent
      .splice(0)
      .filter((sent) => sent.type === type)
      .map(({ message }) => message);
  }
}

describe('PASIDs of a parent device', () => {
  let guest: Guest;

  beforeEach(() => {
    guest = new Guest();
    expect(guest.plug(3, 0x18, MDEV, 'vtd2')).toBe(2);
    expect(guest.plug(4, 0x20, MDEV, 'vtd2')).toBe(2);
    guest.told(0);
  });

  it('are lost with the last of its mdevs: the host gets them back and the model hears of it', () => {
    guest.give();
    guest.give();
    guest.told(0);
    guest.assigned.remove(4);
    guest.settle();
    expect(guest.told(MESSAGE.HOST_PASID_FREE)).toEqual([]);
    expect(guest.heard).toEqual([]);
    guest.assigned.remove(3);
    guest.settle();
    expect(guest.heard).toEqual(['revoked 7', 'revoked 9']);
    expect(guest.told(MESSAGE.HOST_PASID_FREE)).toEqual([7, 9].map((pasid) => ({ device: 3, pasid })));
    expect([guest.assigned.pending, guest.assigned.idle]).toEqual([0, true]);
    expect(guest.assigned.pasids.free(7)).toBe(PASID_ANSWER.REFUSED);
  });

  it('end a command that is under way when the last mdev goes', () => {
    guest.assigned.remove(4);
    guest.assigned.pasids.allocate();
    guest.assigned.remove(3);
    expect(guest.heard).toEqual([`answer ${PASID_ANSWER.REFUSED}`]);
    guest.settle();
    expect(guest.told(MESSAGE.HOST_PASID_FREE)).toEqual([{ device: 3, pasid: 7 }]);
  });

  it('stay when a whole function goes', () => {
    expect(guest.plug(5, 0x28, VF, 'vtd2', NO_NESTING)).toBe(2);
    guest.give();
    guest.assigned.remove(5);
    guest.settle();
    expect([guest.heard, guest.assigned.pasids.free(7)]).toEqual([[], PASID_ANSWER.LATER]);
  });

  it('have shadows of their own on each mdev while they are the guest’s', () => {
    guest.give();
    const pasid = 7;
    expect(guest.told(MESSAGE.HOST_ATTACH)).toMatchObject(
      [3, 4].map((device) => ({ device, pasid: pasid + 1 })),
    );
    guest.assigned.pasids.free(pasid);
    guest.settle();
    expect(guest.told(MESSAGE.HOST_DETACH)).toEqual([3, 4].map((device) => ({ device, pasid: pasid + 1 })));
  });

  it('come from a space of the guest’s own where no mdev is assigned', () => {
    guest.assigned.remove(3);
    guest.assigned.remove(4);
    guest.settle();
    const { pasids } = guest.assigned;
    expect([pasids.allocate(), pasids.allocate()]).toEqual([1, 2]);
    expect([pasids.free(1), pasids.free(1), pasids.free(0)]).toEqual([
      PASID_ANSWER.DONE,
      PASID_ANSWER.REFUSED,
      PASID_ANSWER.REFUSED,
    ]);
    // An mdev that comes: what the guest has of its own stays its own.
    guest.plug(3, 0x18, MDEV, 'vtd2');
    guest.told(0);
    expect(pasids.free(2)).toBe(PASID_ANSWER.DONE);
    expect(guest.told(MESSAGE.HOST_PASID_FREE)).toEqual([]);
  });

  it('that the host gives and the guest has already of its own go back', () => {
    guest.assigned.remove(3);
    guest.assigned.remove(4);
    guest.settle();
    expect(guest.assigned.pasids.allocate()).toBe(1);
    guest.plug(3, 0x18, MDEV, 'vtd2');
    guest.told(0);
    guest.pasids.unshift(1);
    guest.assigned.pasids.allocate();
    guest.settle();
    expect(guest.heard).toEqual([`answer ${PASID_ANSWER.REFUSED}`]);
    expect(guest.told(MESSAGE.HOST_PASID_FREE)).toEqual([{ device: 3, pasid: 1 }]);
  });
});

describe('a device', () => {
  it('is reported with its choice, and served by requester id', () => {
    const guest = new Guest();
    guest.plug(3, 0x18, VF, 'vtd3');
    guest.plug(4, 0x20, VF, 'vtd2', { ...NO_NESTING, batches: true });
    expect(guest.assigned.report).toEqual([
      { device: 3, rid: 0x18, kind: 'vf', choice: 'nest', batches: false },
      { device: 4, rid: 0x20, kind: 'vf', choice: 'shadow', batches: true },
    ]);
    const { assigned } = guest;
    expect([0x18, 0x20, 0x28].map((rid) => assigned.serves(rid))).toEqual([true, false, false]);
    expect([3, 4, 5].map((device) => assigned.has(device))).toEqual([true, false, false]);
    expect(assigned.idle).toBe(false);
  });

  it('that no plan has a place for is refused with what would work, and not served', () => {
    const guest = new Guest('nest');
    expect(guest.plug(3, 0x18, VF, 'vtd2', NO_NESTING)).toBe(0);
    expect(guest.log.map(({ level, fields }) => [level, fields['device']])).toEqual([['error', 'device 3']]);
    expect(String(guest.log[0]?.fields['reason'])).toMatch(/^no nest \(\w+\): .*What would work: ./);
    expect([guest.assigned.idle, guest.sent]).toEqual([true, []]);
  });

  it('that is nested is bound as the guest’s structures say, when that is worked on', () => {
    const guest = new Guest();
    guest.assigned.ramAdded(1, 0, 2 ** 20, false);
    expect(guest.plug(3, 0x18, VF, 'vtd3')).toBe(3);
    expect(guest.assigned.pending).toBeGreaterThan(0);
    guest.told(0);
    guest.assigned.advance();
    guest.settle();
    expect(guest.told(MESSAGE.HOST_ATTACH)).toMatchObject([{ device: 3, pasid: 0 }]);
    expect(guest.assigned.pending).toBe(0);
    guest.stream = STREAM.BLOCKED;
    guest.assigned.invalidated(EVERYTHING);
    guest.assigned.advance();
    guest.settle();
    expect(guest.told(MESSAGE.HOST_DETACH)).toEqual([{ device: 3, pasid: 0 }]);
  });

  it('has a new requester id in all that is told of it', () => {
    const guest = new Guest();
    guest.plug(3, 0x18, VF, 'vtd3');
    guest.assigned.renumber(3, 0x30);
    expect([guest.assigned.serves(0x18), guest.assigned.serves(0x30)]).toEqual([false, true]);
  });

  it('whose guest tables hardware refuses: the log says so', () => {
    const guest = new Guest();
    guest.plug(3, 0x18, VF, 'vtd3');
    guest.log.length = 0;
    guest.assigned.nesting.operations.begin(
      'guest tables',
      3,
      5,
    )({
      ...{ code: 'BAD_TABLE', text: 'not today', done: 0, value: 0 },
    });
    expect(guest.log).toEqual([
      {
        level: 'warn',
        text: 'the host refused: guest tables',
        fields: { device: 'device 3', pasid: 5, code: 'BAD_TABLE', text: 'not today' },
      },
    ]);
  });
});

describe('what hardware reports', () => {
  const event = (change: object): M.HostEvent => ({
    ...CODEC.HostEvent.create(),
    ...{ device: 4, pasid: 6, type: EVENT_TYPE.VTD_FAULT, record: RECORD, ...change },
  });

  it('of a shadowed device, the guest’s own unit is asked again, with its numbers', () => {
    const guest = new Guest();
    guest.plug(3, 0x18, VF, 'vtd2', NO_NESTING);
    guest.assigned.hostEvent(event({}));
    expect(guest.heard).toEqual([`translate 12345000 of 24, PASID 5: ${ACCESS.WRITE}`]);
    expect(guest.log.filter(({ level }) => level === 'warn')).toEqual([]);
  });

  it('of a device that is not known goes nowhere; what was lost is said', () => {
    const guest = new Guest();
    guest.plug(3, 0x18, VF, 'vtd2', NO_NESTING);
    guest.log.length = 0;
    guest.assigned.hostEvent(event({ device: 9 }));
    guest.assigned.hostEvent(event({ device: 0, record: new Uint8Array(0), lost: true, space: 12 }));
    expect(guest.heard).toEqual([]);
    expect(guest.log).toEqual([
      { level: 'warn', text: 'faults of the host were lost', fields: { space: 12 } },
    ]);
  });

  it('of page requests goes to nesting, or is answered where nothing of the guest could', () => {
    const guest = new Guest();
    guest.plug(3, 0x18, VF, 'vtd2', NO_NESTING);
    guest.plug(4, 0x20, VF, 'vtd3');
    guest.told(0);
    const requests: object[] = [];
    Object.assign(guest.assigned.host.events ?? {}, {
      pageRequest: (request: object) => requests.push(request),
    });
    const ask = (device: number, last: boolean): void =>
      guest.assigned.pageRequest({ device, pasid: 6, access: 0x13, lo: 0x1000, hi: 2, group: 11, last });
    ask(3, false);
    expect(guest.told(MESSAGE.HOST_RESPOND)).toEqual([]);
    ask(3, true);
    expect(guest.told(MESSAGE.HOST_RESPOND)).toEqual([{ device: 3, pasid: 6, group: 11, code: 1 }]);
    expect(requests).toEqual([]);
    ask(4, true);
    expect(requests).toEqual([{ device: 4, pasid: 5, access: 3, lo: 0x1000, hi: 2, group: 11, last: true }]);
    expect(() => ask(5, true)).toThrow(expect.objectContaining({ reason: 'OUT_OF_ORDER' }));
  });

  it('of a PASID is the guest’s own fault where its structures refuse it too', () => {
    const guest = new Guest();
    guest.plug(3, 0x18, MDEV, 'vtd2');
    const refused = (): void =>
      guest.assigned.refusedPasid({ device: 3, pasid: 6, access: 0x11, lo: 0x2000, hi: 0 });
    refused();
    guest.through = THROUGH.IDENTITY;
    refused();
    expect(guest.heard).toEqual(['translate 2000 of 24, PASID 5: 1', 'no PASID 5 of 24: 1']);
  });
});

describe('answers to page requests', () => {
  it('go to the device that has the requester id, unless the peer has it in batches', () => {
    const guest = new Guest();
    guest.plug(3, 0x18, VF, 'vtd3');
    guest.plug(4, 0x20, VF, 'vtd2', { ...NO_NESTING, batches: true });
    guest.told(0);
    const respond = (rid: number): boolean => guest.assigned.pageResponse(rid, 5, 11, 0);
    expect([0x18, 0x20, 0x28].map(respond)).toEqual([true, false, false]);
    expect(guest.told(MESSAGE.HOST_RESPOND)).toEqual([{ device: 3, pasid: 6, group: 11, code: 0 }]);
  });
});

describe('an assigned device of a session', () => {
  it('is announced by HOST_DEVICE, and what the host answers reaches the model', () => {
    const heard: number[] = [];
    const pasids = { bits: 20, answered: (answer: number) => heard.push(answer), revoked: () => {} };
    const bench = new Bench({
      models: {
        ...fakeModels,
        createModel: (_name, _options, ports) => Object.assign(new FakeModel(ports), { pasids }),
      },
    }).hello();
    const { type, info } = HOSTS.vtd2;
    const device = { device: 3, kind: MDEV, abilities: ABLE, infoType: type, info, pasidBits: 20 };
    bench.input(MESSAGE.DEVICE_ADDED, CODEC.DeviceAdded, { device: 3, rid: 0x18, name: 'nic' });
    const announced = bench.ask(MESSAGE.HOST_DEVICE, { ...CODEC.HostDevice.create(), ...device });
    expect([announced.code, announced.choice]).toEqual([0, 2]);
    bench.session.assigned.pasids.allocate();
    const asked = bench.sent.filter((sent) => sent.channel === CHANNEL.BACKEND);
    const reply = { code: 0, text: '', done: 0, value: 7 };
    for (const sent of asked) {
      bench.input(sent.type, CODEC.HostReply, reply, [], CHANNEL.BACKEND, FLAG.REPLY, sent.id);
    }
    expect(asked.map((sent) => sent.type)).toEqual([
      MESSAGE.HOST_SPACE_CREATE,
      MESSAGE.HOST_ATTACH,
      MESSAGE.HOST_PASID_ALLOC,
    ]);
    expect(heard).toEqual([7]);
  });
});
