import { describe, expect, it } from 'vitest';
import { ANY } from '../base/ids.js';
import { closeFd, memoryFile } from '../base/native.js';
import { REQUEST } from '../device/iommu.js';
import { CODEC } from '../wire/codec.js';
import { CONTROL_MAGIC, MESSAGE } from '../wire/frame.js';
import { Bench } from './testing/bench.js';
import { FAKE, FakeModel, fakeModels } from './testing/fake-model.js';

const started = (): Bench => new Bench().hello();

/** Hands something out, so that an invalidation has something to drop. */
function used(): Bench {
  const bench = started();
  bench.translate(0x1000);
  return bench;
}

describe('ordering rule 1: one after the other', () => {
  it('a translation sees the register write before it, and the write counts as handled by then', () => {
    const bench = started();
    for (let i = 1; i < 20; i++) {
      bench.write(FAKE.OFFSET, i);
      const { spans } = bench.translate(0x1000);
      expect(spans[2]).toBe(0x1000 + i * 4096);
      expect(bench.handled).toBe(i);
    }
  });

  it('a REG_READ sees every write sent before, byte by byte as asked', () => {
    const bench = started();
    bench.write(FAKE.VALUE, 0x44332211);
    bench.write(FAKE.VALUE + 4, 0x88776655);
    const read = (offset: number, size: number): [number, number] => {
      const { lo, hi } = bench.ask(MESSAGE.REG_READ, { offset, size });
      return [lo, hi];
    };
    expect(read(FAKE.VALUE, 8)).toEqual([0x44332211, 0x88776655]);
    expect(read(FAKE.VALUE + 3, 2)).toEqual([0x5544, 0]);
    expect(read(FAKE.VALUE + 1, 8)).toEqual([0x55443322, 0x00887766]);
    expect(read(FAKE.BYTES - 2, 8)).toEqual([0, 0]);
    expect(read(0xffff_fff0, 8)).toEqual([0, 0]);
  });

  it('the count of handled writes rises after the effects are there', () => {
    const seen: number[] = [];
    const bench: Bench = new Bench({
      models: {
        ...fakeModels,
        createModel: (_name, _options, ports) => {
          const model = new FakeModel(ports);
          const write = model.writeRegister.bind(model);
          model.writeRegister = (...args) => {
            write(...args);
            seen.push(bench.handled);
          };
          return model;
        },
      },
    }).hello();
    bench.write(FAKE.OFFSET, 1);
    bench.write(FAKE.OFFSET, 2);
    expect(seen).toEqual([0, 1]);
    expect(bench.handled).toBe(2);
  });
});

describe('ordering rule 2: a completion is seen when everything is done', () => {
  it('waits for the acknowledgement', () => {
    const bench = used();
    bench.write(FAKE.TOKEN, 0xabc);
    bench.write(FAKE.INVALIDATE, 1);
    expect(bench.invalidations).toHaveLength(1);
    expect(bench.register(FAKE.STATUS)).toBe(0);
    bench.ack();
    expect(bench.register(FAKE.STATUS)).toBe(0xabc);
  });

  it('waits for all of them, in whatever order they come', () => {
    const bench = used();
    bench.write(FAKE.TOKEN, 7);
    bench.write(FAKE.FLOOD, 3);
    const ids = bench.invalidations.map((sent) => sent.id);
    expect(ids).toHaveLength(3);
    for (const id of [ids[2], ids[0]]) {
      bench.ack(id);
      expect(bench.register(FAKE.STATUS)).toBe(0);
    }
    bench.ack(ids[1]);
    expect(bench.register(FAKE.STATUS)).toBe(7);
  });

  it('an invalidation that needs no message does not overtake one that is pending', () => {
    const bench = used();
    bench.write(FAKE.INVALIDATE, 1);
    bench.write(FAKE.TOKEN, 9);
    bench.write(FAKE.INVALIDATE, 1);
    expect(bench.invalidations).toHaveLength(1);
    expect(bench.register(FAKE.STATUS)).toBe(0);
    bench.ack();
    expect(bench.register(FAKE.STATUS)).toBe(9);
  });

  it('refuses an acknowledgement twice', () => {
    const bench = used();
    bench.write(FAKE.INVALIDATE, 1);
    const id = bench.invalidations[0]?.id as number;
    bench.ack(id);
    expect(() => bench.ack(id)).toThrow(expect.objectContaining({ reason: 'UNEXPECTED_REPLY' }));
  });
});

describe('ordering rule 3: answers carry their epoch', () => {
  it('that of the last invalidation sent, which is the number in its message', () => {
    const bench = started();
    for (let i = 0; i < 5; i++) {
      expect(bench.translate(0x1000).epoch).toBe(i);
      bench.write(FAKE.INVALIDATE, 1);
      expect(bench.invalidations.at(-1)?.message['epoch']).toBe(i + 1);
    }
  });

  it('an answer after the invalidation, before its acknowledgement, is newer than it', () => {
    const bench = used();
    bench.write(FAKE.INVALIDATE, 1);
    expect(bench.translate(0x1000).epoch).toBe(1);
    bench.ack();
  });

  it('goes on through 2^32', () => {
    const bench = used();
    bench.session.invalidations.epoch = 0xffff_ffff;
    bench.write(FAKE.INVALIDATE, 1);
    expect(bench.invalidations[0]?.message['epoch']).toBe(0);
    expect(bench.translate(0x1000).epoch).toBe(0);
    bench.ack();
  });
});

describe('ordering rule 4: nothing stays', () => {
  it('RESET drops everything outside and puts the model back', () => {
    const bench = used();
    bench.write(FAKE.OFFSET, 5);
    expect(bench.ask(MESSAGE.RESET, {}).code).toBe(0);
    expect(bench.invalidations.at(-1)?.message).toMatchObject({
      space: ANY,
      rid: ANY,
      pasid: ANY,
      log2Size: 64,
    });
    expect(bench.translate(0x1000).spans[2]).toBe(0x1000);
    expect(bench.translate(0x1000).epoch).toBe(1);
    bench.ack();
  });

  it('RESET reaches every notified device, even when no answer was ever given', () => {
    const bench = started();
    bench.input(MESSAGE.DEVICE_ADDED, CODEC.DeviceAdded, { device: 4, rid: 8, name: 'nic' });
    bench.input(MESSAGE.NOTIFIER, CODEC.Notifier, { device: 4, flags: 1 });
    bench.ask(MESSAGE.RESET, {});
    expect(bench.invalidations.at(-1)?.message['devices']).toEqual([4]);
  });

  it('RESET answers at once: the peer may hold the lock that its notifiers need', () => {
    const bench = used();
    bench.write(FAKE.INVALIDATE, 1);
    expect(bench.ask(MESSAGE.RESET, {}).code).toBe(0);
    expect(bench.register(FAKE.STATUS)).toBe(0);
  });

  it('a completion that a reset cut off is not published afterwards', () => {
    const bench = used();
    bench.write(FAKE.TOKEN, 5);
    bench.write(FAKE.INVALIDATE, 1);
    bench.ask(MESSAGE.RESET, {});
    for (const { id } of bench.invalidations) bench.ack(id);
    expect(bench.register(FAKE.STATUS)).toBe(0);
  });

  it('the end gives the guest memory up', () => {
    const bench = new Bench({ fileBytes: 4096 }).hello();
    const fd = memoryFile('ram', 4096);
    const message = { ...CODEC.MemAdd.create(), region: 1, sizeLo: 4096, shared: true };
    bench.input(MESSAGE.MEM_ADD, CODEC.MemAdd, message, [fd]);
    expect(bench.ram.contains(0, 4096)).toBe(true);
    bench.session.end();
    expect(bench.ram.contains(0, 4)).toBe(false);
    expect([bench.session.model, bench.session.page]).toEqual([undefined, undefined]);
    closeFd(fd);
  });
});

describe('ordering rule 5: translations go on while an acknowledgement is missing', () => {
  it('and register writes, reads, replays and memory changes too', () => {
    const bench = used();
    bench.write(FAKE.TOKEN, 3);
    bench.write(FAKE.INVALIDATE, 1);
    for (let i = 0; i < 10; i++) expect(bench.translate(0x1000 * i).status).toBe(0);
    bench.write(FAKE.OFFSET, 1);
    expect(bench.ask(MESSAGE.REG_READ, { offset: FAKE.OFFSET, size: 4 }).lo).toBe(1);
    expect(bench.ask(MESSAGE.REPLAY, { rid: 8, pasid: 0, lo: 0, hi: 0 }).more).toBe(true);
    const region = { ...CODEC.MemAdd.create(), region: 1, sizeLo: 4096 };
    expect(bench.ask(MESSAGE.MEM_ADD, region).code).toBe(0);
    expect(bench.register(FAKE.STATUS)).toBe(0);
    bench.ack();
    expect(bench.register(FAKE.STATUS)).toBe(3);
  });
});

describe('invalidations', () => {
  it('need no message before anything was handed out, or for another space', () => {
    const bench = started();
    bench.write(FAKE.INVALIDATE, 1);
    bench.write(FAKE.INVALIDATE, ANY);
    expect(bench.invalidations).toHaveLength(0);
    bench.translate(0x1000);
    bench.write(FAKE.INVALIDATE, 2);
    expect(bench.invalidations).toHaveLength(0);
    bench.write(FAKE.INVALIDATE, ANY);
    expect(bench.invalidations).toHaveLength(1);
    bench.write(FAKE.INVALIDATE, 1);
    expect(bench.invalidations).toHaveLength(1);
    expect(bench.session.invalidations.suppressed).toBe(4);
  });

  it('are sent again after every answer, also one of a space seen before', () => {
    const bench = started();
    for (const space of [1, 2, 1, 1, 2]) {
      bench.write(FAKE.SPACE, space);
      bench.translate(0x1000);
      bench.write(FAKE.INVALIDATE, space);
    }
    expect(bench.invalidations.map((sent) => sent.message['space'])).toEqual([1, 2, 1, 1, 2]);
  });

  it('a partial one does not make the rest of the space count as dropped', () => {
    const bench = used();
    bench.write(FAKE.FLOOD, 1);
    bench.write(FAKE.INVALIDATE, 1);
    expect(bench.invalidations.map((sent) => sent.message['log2Size'])).toEqual([12, 64]);
    expect(bench.invalidations[0]?.message['pasid']).toBe(0);
    expect(bench.invalidations[1]?.message['pasid']).toBe(ANY);
  });

  it('wait for a device that uses an answer which is not cached', () => {
    const model = (change: Partial<FakeModel>): Bench =>
      new Bench({
        models: {
          ...fakeModels,
          createModel: (_name, _options, ports) => Object.assign(new FakeModel(ports), change),
        },
      }).hello();
    const unkept = model({ answersMayBeKept: false });
    expect(unkept.translate(0x1000).once).toBe(true);
    const translated = model({});
    const request = { rid: 8, pasid: 0, access: 1, lo: 0x1000, hi: 0, kind: REQUEST.TRANSLATED };
    expect(translated.ask(MESSAGE.TRANSLATE, { ...request, mayStall: false, size: 0 }).once).toBe(true);
    for (const bench of [unkept, translated]) {
      bench.write(FAKE.TOKEN, 5);
      bench.write(FAKE.INVALIDATE, 1);
      expect(bench.invalidations).toHaveLength(1);
      expect(bench.register(FAKE.STATUS)).toBe(0);
      bench.ack();
      expect(bench.register(FAKE.STATUS)).toBe(5);
    }
  });

  it('a fault hands nothing out', () => {
    const bench = started();
    expect(bench.translate(0, 0x9000_0000)).toMatchObject({ status: 1 });
    bench.write(FAKE.INVALIDATE, 1);
    expect(bench.invalidations).toHaveLength(0);
    expect(bench.events.at(-1)).toMatchObject({ kind: 'fault', rid: 8, pasid: -1 });
  });

  it('always reach a device with a notifier, and only devices with one', () => {
    const bench = started();
    for (const device of [1, 2, 3]) {
      bench.input(MESSAGE.DEVICE_ADDED, CODEC.DeviceAdded, { device, rid: device * 8, name: '' });
    }
    bench.input(MESSAGE.NOTIFIER, CODEC.Notifier, { device: 2, flags: 1 });
    bench.write(FAKE.INVALIDATE, 77);
    bench.input(MESSAGE.DEVICE_ADDED, CODEC.DeviceAdded, { device: 2, rid: 0x100, name: 'moved' });
    bench.input(MESSAGE.NOTIFIER, CODEC.Notifier, { device: 3, flags: 5 });
    bench.write(FAKE.INVALIDATE, 77);
    bench.input(MESSAGE.NOTIFIER, CODEC.Notifier, { device: 2, flags: 0 });
    bench.input(MESSAGE.DEVICE_REMOVED, CODEC.DeviceRemoved, { device: 3 });
    bench.write(FAKE.INVALIDATE, 77);
    expect(bench.invalidations.map((sent) => sent.message['devices'])).toEqual([[2], [2, 3]]);
  });

  it('are merged when the peer lets thousands pile up, and the completion still waits for everything', () => {
    const bench = used();
    bench.write(FAKE.TOKEN, 4);
    bench.write(FAKE.FLOOD, 10_000);
    expect(bench.invalidations).toHaveLength(4096);
    expect(bench.session.invalidations.merged).toBe(10_000 - 4096);
    const ids = bench.invalidations.map((sent) => sent.id);
    for (const id of ids) bench.ack(id);
    const rest = bench.invalidations.slice(4096);
    expect(rest).toHaveLength(1);
    expect(rest[0]?.message).toMatchObject({ space: ANY, rid: ANY, log2Size: 64, epoch: 4097 });
    expect(bench.register(FAKE.STATUS)).toBe(0);
    bench.ack(rest[0]?.id);
    expect(bench.register(FAKE.STATUS)).toBe(4);
  });
});

describe('the rest of the front channel', () => {
  it('without SPANS an answer has one span', () => {
    expect(new Bench().hello({ features: 7 }).translate(0x1000).spans).toHaveLength(6);
    expect(new Bench().hello().translate(0x1000).spans).toHaveLength(12);
  });

  it('PASIDs travel one up', () => {
    const asked: number[] = [];
    const bench = new Bench({
      models: {
        ...fakeModels,
        createModel: (_name, _options, ports) => {
          const model = new FakeModel(ports);
          model.translate = (request, result) => {
            asked.push(request.pasid);
            result.count = 0;
          };
          model.survey.enumerate = (_rid, pasid, _lo, _hi, result) => {
            asked.push(pasid);
            result.count = 0;
            return false;
          };
          return model;
        },
      },
    }).hello();
    for (const pasid of [0, 1, 0x100000]) {
      bench.ask(MESSAGE.TRANSLATE, {
        rid: 8,
        pasid,
        access: 1,
        lo: 0,
        hi: 0,
        kind: 0,
        mayStall: false,
        size: 0,
      });
    }
    for (const pasid of [0, 7]) bench.ask(MESSAGE.REPLAY, { rid: 8, pasid, lo: 0, hi: 0 });
    expect(asked).toEqual([-1, 0, 0xfffff, -1, 6]);
  });

  it('interrupts are posted on the backend channel', () => {
    const bench = started();
    bench.write(FAKE.INTERRUPT, 0x4021);
    expect(bench.sent.at(-1)).toMatchObject({
      channel: 1,
      type: MESSAGE.INTERRUPT,
      flags: 0,
      message: { addressLo: 0xfee0_0000, addressHi: 0, data: 0x4021, wire: 0 },
    });
    bench.write(FAKE.WIRE, 3);
    expect(bench.sent.at(-1)).toMatchObject({
      channel: 1,
      type: MESSAGE.INTERRUPT,
      message: { addressLo: 0, addressHi: 0, data: 0, wire: 4 },
    });
  });

  it('REPLAY pages through what the model enumerates', () => {
    const bench = started();
    const pages: unknown[] = [];
    for (let lo = 0; ; lo += 0x1000) {
      const reply = bench.ask(MESSAGE.REPLAY, { rid: 8, pasid: 0, lo, hi: 0 });
      pages.push(reply.spans[0]);
      if (!reply.more) break;
    }
    expect(pages).toEqual([0, 0x1000, 0x2000, 0x3000]);
  });

  it('register writes of 1, 2, 4 and 8 bytes reach the model, up to its end', () => {
    const seen: number[][] = [];
    const bench = new Bench({
      models: {
        ...fakeModels,
        createModel: (_name, _options, ports) =>
          Object.assign(new FakeModel(ports), { writeRegister: (...args: number[]) => seen.push(args) }),
      },
    }).hello();
    const writes = [1, 2, 4, 8].map((size) => [FAKE.BYTES - size, size, 5, 6] as const);
    for (const [offset, size, lo, hi] of writes) {
      bench.input(MESSAGE.REG_WRITE, CODEC.RegWrite, { offset, size, lo, hi });
    }
    expect(seen).toEqual(writes);
  });

  it('register writes of other sizes or outside the register space do nothing but count', () => {
    const bench = started();
    const before = bench.page.slice(2048);
    for (const [offset, size] of [
      [0, 3],
      [0, 0],
      [0, 16],
      [FAKE.BYTES - 2, 4],
      [0xffff_fffc, 4],
    ] as const) {
      bench.input(MESSAGE.REG_WRITE, CODEC.RegWrite, { offset, size, lo: 0xffff_ffff, hi: 0 });
    }
    expect(bench.page.slice(2048)).toEqual(before);
    expect(bench.handled).toBe(5);
  });

  it('the control page is claimed when new and refused when it is something else', () => {
    const bench = new Bench();
    bench.page[0] = 0x12345678;
    expect(() => bench.hello()).toThrow(expect.objectContaining({ reason: 'BAD_SHARED_PAGE' }));
    expect(started().page[0]).toBe(CONTROL_MAGIC);
  });

  it.each([
    ['no bytes', { sizeLo: 0 }, 30],
    ['half a word', { sizeLo: 4 }, 30],
    ['an odd address', { gpaLo: 1 }, 30],
    ['an address beyond 52 bits', { gpaHi: 0x10_0000 }, 30],
    ['an end beyond 52 bits', { gpaLo: 0xffff_f000, gpaHi: 0xf_ffff, sizeLo: 0x2000 }, 30],
    ['an absurd address', { gpaLo: 0xffff_ffff, gpaHi: 0xffff_ffff }, 30],
    ['an overlap', { region: 2, gpaLo: 0xff8 }, 32],
    ['an overlap from below', { region: 2, gpaLo: 0, sizeLo: 0xffff_fff8 }, 32],
    ['a number in use', { gpaLo: 0x10_0000 }, 31],
  ])('MEM_ADD with %s is answered with its code, and the session goes on', (_, changes, code) => {
    const bench = started();
    const region = { ...CODEC.MemAdd.create(), region: 1, gpaLo: 0, sizeLo: 0x1000 };
    expect(bench.ask(MESSAGE.MEM_ADD, region).code).toBe(0);
    expect(bench.ask(MESSAGE.MEM_ADD, { ...region, ...changes })).toMatchObject({ code });
    expect(bench.ask(MESSAGE.MEM_REMOVE, { region: 1 }).code).toBe(0);
    expect(bench.ask(MESSAGE.MEM_REMOVE, { region: 1 }).code).toBe(33);
  });
});
