import { describe, expect, it } from 'vitest';
import {
  DEVICE_TLB,
  type DeviceView,
  type IommuOutputs,
  PAGE_RESPONSE,
  type PageRequest,
  RESUME,
  TRANSLATE_STATUS,
} from '../device/iommu.js';
import { CODEC } from '../wire/codec.js';
import { ALL_FEATURES, FEATURE, FLAG, MESSAGE } from '../wire/frame.js';
import { reportOf } from './report.js';
import { CHANNEL } from './session.js';
import { Bench } from './testing/bench.js';
import { FakeModel, fakeModels } from './testing/fake-model.js';

/** A model that keeps what reaches it of devices that stall, translate ahead and ask for pages. */
class AheadModel extends FakeModel {
  readonly pages: PageRequest[] = [];
  readonly ended: [tag: number, result: number][] = [];
  outputs!: IommuOutputs;
  /** On an ended request, ask again this many times. */
  again = 0;
  acknowledgements = 0;

  override acknowledged(): void {
    this.acknowledgements++;
    super.acknowledged();
  }

  readonly devices: DeviceView = {
    pageRequest: (request) => void this.pages.push({ ...request }),
    invalidated: (tag, result) => {
      this.ended.push([tag, result]);
      if (this.again-- > 0) this.outputs.invalidateDeviceTlb(tag + 1, 8, -1, 0, 0, 64, false);
    },
  };
}

function bench(features: number = ALL_FEATURES): { bench: Bench; model: AheadModel } {
  let model: AheadModel | undefined;
  const made = new Bench({
    models: {
      ...fakeModels,
      createModel: (_name, _options, ports) => {
        model = new AheadModel(ports);
        model.outputs = ports.outputs;
        return model;
      },
    },
  }).hello({ features });
  return { bench: made, model: model as AheadModel };
}

const PAGE = { rid: 8, pasid: 6, access: 3, lo: 0x5000, hi: 7, group: 511, last: true };
const TRANSLATE = { rid: 8, pasid: 0, access: 1, lo: 0, hi: 0, kind: 0, mayStall: false, size: 0 };

describe('devices that ask for pages', () => {
  it('reach the model, and its answer reaches them', () => {
    const { bench: b, model } = bench();
    b.input(MESSAGE.PAGE_REQUEST, CODEC.PageRequest, PAGE);
    expect(model.pages).toEqual([{ ...PAGE, pasid: 5 }]);
    model.outputs.pageResponse(8, 5, 511, PAGE_RESPONSE.SUCCESS);
    const message = { rid: 8, pasid: 6, group: 511, code: 0 };
    expect(b.sent.at(-1)).toMatchObject({ channel: CHANNEL.BACKEND, type: MESSAGE.PAGE_RESPONSE, message });
  });

  it('hear that it is invalid where the model has no page requests, once a group', () => {
    const b = new Bench().hello();
    b.input(MESSAGE.PAGE_REQUEST, CODEC.PageRequest, { ...PAGE, last: false });
    expect(b.sent.at(-1)?.type).not.toBe(MESSAGE.PAGE_RESPONSE);
    b.input(MESSAGE.PAGE_REQUEST, CODEC.PageRequest, PAGE);
    expect(b.sent.at(-1)).toMatchObject({ type: MESSAGE.PAGE_RESPONSE, message: { pasid: 6, code: 1 } });
  });

  it('hear nothing where the peer has no such devices', () => {
    const { bench: b, model } = bench(ALL_FEATURES & ~(FEATURE.PRI | FEATURE.STALLS));
    const before = b.sent.length;
    model.outputs.pageResponse(8, 5, 511, PAGE_RESPONSE.SUCCESS);
    model.outputs.resume(1, RESUME.RETRY);
    expect(b.sent).toHaveLength(before);
  });

  it('are asked for nothing where the peer has none: that ends at once, and is told afterwards', () => {
    const { bench: b, model } = bench(ALL_FEATURES & ~FEATURE.ATS);
    expect(model.outputs.invalidateDeviceTlb(5, 8, -1, 0, 0, 64, false)).toBe(true);
    expect(model.ended).toEqual([]);
    b.input(MESSAGE.MAIL, CODEC.Mail, {});
    expect(model.ended).toEqual([[5, DEVICE_TLB.UNSUPPORTED]]);
  });

  it('end the connection with an impossible group, or without the feature', () => {
    const group = { ...PAGE, group: 512 };
    expect(() => bench().bench.input(MESSAGE.PAGE_REQUEST, CODEC.PageRequest, group)).toThrow('group 512');
    const without = bench(ALL_FEATURES & ~FEATURE.PRI).bench;
    expect(() => without.input(MESSAGE.PAGE_REQUEST, CODEC.PageRequest, PAGE)).toThrow('not in force');
  });
});

describe('devices that translate ahead', () => {
  const answer = (b: Bench, id: number, result: number): void =>
    b.input(MESSAGE.DEVICE_TLB, CODEC.DeviceTlbReply, { result }, [], CHANNEL.BACKEND, FLAG.REPLY, id);

  it('are asked to invalidate, and their answers come back by tag', () => {
    const { bench: b, model } = bench();
    model.outputs.invalidateDeviceTlb(40, 8, 5, 0x2000, 1, 13, false);
    model.outputs.invalidateDeviceTlb(41, 9, -1, 0, 0, 64, true);
    const [first, second] = b.sent.filter((sent) => sent.type === MESSAGE.DEVICE_TLB);
    expect(reportOf(b.session).deviceTlbInvalidations).toBe(2);
    expect(first).toMatchObject({
      flags: FLAG.NEED_REPLY,
      message: { rid: 8, pasid: 6, lo: 0x2000, hi: 1, log2Size: 13, global: false },
    });
    expect(second?.message).toMatchObject({ rid: 9, pasid: 0, log2Size: 64, global: true });
    answer(b, second?.id as number, DEVICE_TLB.TIMEOUT);
    answer(b, first?.id as number, 77);
    expect(model.ended).toEqual([
      [41, DEVICE_TLB.TIMEOUT],
      [40, DEVICE_TLB.UNSUPPORTED],
    ]);
    expect(() => answer(b, first?.id as number, 0)).toThrow('is not waited for');
  });

  it('are forgotten by a reset, and the model waits for no answer', () => {
    const { bench: b, model } = bench();
    model.outputs.invalidateDeviceTlb(1, 8, 5, 0, 0, 12, false);
    const id = b.sent.at(-1)?.id as number;
    b.ask(MESSAGE.RESET, {});
    answer(b, id, DEVICE_TLB.DONE);
    expect(model.ended).toEqual([]);
  });

  it('from before a reset leave room when they answer, which the model hears', () => {
    const { bench: b, model } = bench();
    model.outputs.invalidateDeviceTlb(1, 8, 5, 0, 0, 12, false);
    const id = b.sent.at(-1)?.id as number;
    b.ask(MESSAGE.RESET, {});
    const before = model.acknowledgements;
    answer(b, id, DEVICE_TLB.DONE);
    expect(model.acknowledgements).toBe(before + 1);
  });

  it('are not there with a peer that does not know them, which the model hears after its input', () => {
    const { bench: b, model } = bench(ALL_FEATURES & ~FEATURE.ATS);
    model.again = 2;
    model.outputs.invalidateDeviceTlb(1, 8, -1, 0, 0, 64, false);
    expect(model.ended).toEqual([]);
    b.write(0x100, 0);
    expect(model.ended).toEqual([
      [1, DEVICE_TLB.UNSUPPORTED],
      [2, DEVICE_TLB.UNSUPPORTED],
      [3, DEVICE_TLB.UNSUPPORTED],
    ]);
  });

  it('are asked only so much at once', () => {
    const { bench: b, model } = bench();
    let taken = 0;
    while (taken < 100_000 && model.outputs.invalidateDeviceTlb(taken, 8, -1, 0, 0, 64, false)) taken++;
    expect(taken).toBe(1024);
    answer(b, b.sent.at(-1)?.id as number, DEVICE_TLB.DONE);
    expect(model.outputs.invalidateDeviceTlb(taken, 8, -1, 0, 0, 64, false)).toBe(true);
  });

  it('say what kind a request is, within what was agreed', () => {
    const { bench: b, model } = bench();
    const kinds: number[] = [];
    model.translate = (request, result) => {
      kinds.push(request.kind);
      result.count = 0;
    };
    const once = [0, 1, 2].map((kind) => b.ask(MESSAGE.TRANSLATE, { ...TRANSLATE, kind }).once);
    expect(kinds).toEqual([0, 1, 2]);
    // An answer to a translated request is of no use for another one.
    expect(once).toEqual([false, false, true]);
    expect(() => b.ask(MESSAGE.TRANSLATE, { ...TRANSLATE, kind: 3 })).toThrow('request kind 3');
    const without = bench(ALL_FEATURES & ~FEATURE.ATS).bench;
    expect(() => without.ask(MESSAGE.TRANSLATE, { ...TRANSLATE, kind: 1 })).toThrow('not in force');
  });
});

describe('devices that can wait', () => {
  it('are told that a request is stalled, and what becomes of it', () => {
    const { bench: b, model } = bench();
    model.translate = (request, result) => {
      result.status = request.mayStall ? TRANSLATE_STATUS.STALLED : TRANSLATE_STATUS.FAULT;
      result.count = 0;
      result.stall = 0x9000_0001;
    };
    const reply = b.ask(MESSAGE.TRANSLATE, { ...TRANSLATE, mayStall: true });
    expect(reply).toMatchObject({ status: TRANSLATE_STATUS.STALLED, stall: 0x9000_0001 });
    model.outputs.resume(0x9000_0001, RESUME.READ_ZERO);
    const message = { stall: 0x9000_0001, action: RESUME.READ_ZERO };
    expect(b.sent.at(-1)).toMatchObject({ channel: CHANNEL.BACKEND, type: MESSAGE.RESUME, message });
  });

  it('need the feature', () => {
    const { bench: b } = bench(ALL_FEATURES & ~FEATURE.STALLS);
    expect(() => b.ask(MESSAGE.TRANSLATE, { ...TRANSLATE, mayStall: true })).toThrow('not in force');
  });
});
