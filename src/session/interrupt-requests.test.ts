import { beforeEach, describe, expect, it } from 'vitest';
import { ANY } from '../base/ids.js';
import type { InterruptRequest, InterruptResult } from '../device/interrupts.js';
import { type IommuOutputs, TRANSLATE_STATUS } from '../device/iommu.js';
import { CODEC } from '../wire/codec.js';
import { ALL_FEATURES, FEATURE, FLAG, MESSAGE, NOTIFY } from '../wire/frame.js';
import type * as M from '../wire/messages.js';
import type { ModelFactory } from './ports.js';
import { CHANNEL } from './session.js';
import { Bench, type Sent } from './testing/bench.js';
import { FAKE, FakeModel, fakeModels } from './testing/fake-model.js';

const MSI = 0xfee0_0010;
const PENDING = 77;

/** Remaps handle n (data) through entry n to vector n + 0x30, entry 9 excepted, which blocks. */
class RemappingModel extends FakeModel {
  readonly looks: boolean[] = [];
  passAll = false;
  checks = false;
  readonly interrupts = {
    check: (on: boolean) => {
      this.checks = on;
    },
    remap: (request: InterruptRequest, result: InterruptResult) => {
      this.looks.push(request.look);
      result.passAll = this.passAll;
      result.status = request.data === 9 ? TRANSLATE_STATUS.FAULT : TRANSLATE_STATUS.OK;
      result.lo = this.passAll ? request.lo : 0xfee0_1000;
      result.hi = this.passAll ? 0 : 0x100;
      result.data = this.passAll ? request.data : request.data + 0x30;
      result.index = this.passAll || request.data === 0x80 ? ANY : request.data;
    },
  };
}

let model: RemappingModel;
let bench: Bench;
let outputs: IommuOutputs;

const models: ModelFactory = {
  modelRegisterBytes: () => FAKE.BYTES,
  createModel: (_name, _options, ports) => {
    model = new RemappingModel(ports);
    return model;
  },
};

function remap(data: number, look = false, rid = 8): M.RemapInterruptReply {
  return bench.ask(MESSAGE.REMAP_INTERRUPT, { rid, addressLo: MSI, addressHi: 0, data, look });
}

/** The model invalidates within an input, which then ends. */
function invalidate(index: number, log2Count: number): void {
  outputs.invalidateInterrupts?.(index, log2Count);
  bench.input(MESSAGE.MAIL, CODEC.Mail, {});
}

function told(): Sent[] {
  return bench.sent.filter(({ type }) => type === MESSAGE.INVALIDATE_INTERRUPTS);
}

function acknowledge(id: number, code = 0): void {
  const type = MESSAGE.INVALIDATE_INTERRUPTS;
  bench.input(type, CODEC.Status, { code, text: 'no' }, [], CHANNEL.BACKEND, FLAG.REPLY, id);
}

beforeEach(() => {
  bench = new Bench({ models });
  bench.hello();
  outputs = bench.session.outputs;
});

describe('REMAP_INTERRUPT', () => {
  it('gives the message, its entry and the epoch', () => {
    expect(remap(3)).toEqual({
      ...{ status: 0, epoch: 0, addressLo: 0xfee0_1000, addressHi: 0x100, data: 0x33 },
      ...{ index: 4, once: false, passAll: false },
    });
    expect(remap(0x80).index).toBe(0);
  });

  it('comes to a model that says which of its entries are stale', () => {
    expect(model.checks).toBe(true);
  });

  it('says that it is blocked', () => {
    expect(remap(9)).toMatchObject({ status: 1 });
  });

  it('hands a look to the model as one', () => {
    remap(3, true);
    remap(3);
    expect(model.looks).toEqual([true, false]);
    const { interrupts } = bench.session;
    expect(interrupts.report).toMatchObject({ asked: 1, looks: 1, blocked: 0 });
  });

  it('passes everything where the model says so', () => {
    model.passAll = true;
    expect(remap(3)).toMatchObject({ status: 0, addressLo: MSI, data: 3, index: 0, passAll: true });
  });

  it('is good once where no answer may be kept', () => {
    model.answersMayBeKept = false;
    model.passAll = true;
    expect(remap(3)).toMatchObject({ once: true, passAll: false });
  });

  it('passes through a model that does not remap', () => {
    bench = new Bench();
    bench.hello();
    expect(remap(3)).toMatchObject({ status: 0, addressLo: MSI, data: 3, passAll: true });
  });

  it.each([
    ['a requester id of 17 bits', { rid: 0x10000, addressLo: MSI }],
    ['an address between doublewords', { rid: 8, addressLo: MSI + 2 }],
  ])('refuses %s', (_, wrong) => {
    const message = { addressHi: 0, data: 0, look: false, ...wrong };
    expect(() => bench.ask(MESSAGE.REMAP_INTERRUPT, message)).toThrow(
      expect.objectContaining({ reason: 'BAD_ARGUMENT' }),
    );
  });
});

describe('INVALIDATE_INTERRUPTS', () => {
  it('names the aligned block and counts the epoch on', () => {
    remap(3);
    invalidate(3, 2);
    expect(told().map(({ message }) => message)).toEqual([{ epoch: 1, index: 0, log2Count: 2 }]);
    expect(remap(3).epoch).toBe(1);
  });

  it('is waited for by a completion, from the call on', () => {
    remap(3);
    outputs.invalidateInterrupts?.(3, 0);
    expect(outputs.pendingAcks()).toBe(1);
    bench.input(MESSAGE.MAIL, CODEC.Mail, {});
    let done = false;
    model.acknowledged = () => {
      done = true;
    };
    expect(done).toBe(false);
    acknowledge(told()[0]?.id ?? -1);
    expect(done).toBe(true);
    expect(outputs.pendingAcks()).toBe(0);
  });

  it('keeps register reads from the page until it is acknowledged', () => {
    remap(3);
    outputs.invalidateInterrupts?.(3, 0);
    bench.write(0x100, 5);
    expect(bench.handled).toBe(0);
    const read = (): M.RegReadReply => ({ ...bench.ask(MESSAGE.REG_READ, { offset: 0x100, size: 4 }) });
    expect(read()).toEqual({ lo: 5, hi: 0, unsettled: true });
    acknowledge(told()[0]?.id ?? -1);
    expect(bench.handled).toBe(1);
    expect(read().unsettled).toBe(false);
  });

  it('is suppressed where the peer holds nothing of the block', () => {
    remap(3);
    remap(0x80);
    invalidate(4, 2);
    invalidate(0x80, 0);
    invalidate(1000, 9);
    expect(told()).toEqual([]);
    expect(bench.session.interrupts.report.invalidationsSuppressed).toBe(3);
    invalidate(0, 16);
    expect(told()).toHaveLength(1);
    invalidate(0, 16);
    invalidate(3, 0);
    expect(told()).toHaveLength(1);
  });

  it('is not suppressed for an answer of no entry, or a blocked one that was copied', () => {
    remap(0x80);
    invalidate(0, 16);
    expect(told()).toHaveLength(1);
    remap(9, true);
    invalidate(500, 0);
    expect(told()).toHaveLength(2);
  });

  it('finds one entry in a large block, and one of many in a small one', () => {
    for (let data = 0; data < 9; data++) remap(data);
    invalidate(6, 1);
    expect(told().map(({ message }) => message)).toEqual([{ epoch: 1, index: 6, log2Count: 1 }]);
    invalidate(7, 0);
    expect(told()).toHaveLength(1);
    invalidate(0, 15);
    expect(told()).toHaveLength(2);
  });

  it('becomes one of all when the peer does not answer and more comes', () => {
    for (let i = 0; i < 1024; i++) {
      remap(3);
      invalidate(3, 0);
    }
    expect(told()).toHaveLength(1024);
    for (let i = 0; i < 1000; i++) invalidate(i % 9, 0);
    expect(told()).toHaveLength(1024);
    expect(bench.session.interrupts.pending).toBeLessThan(1024 + 300);
    remap(5);
    remap(0x80);
    for (const { id } of told().slice(0, 300)) acknowledge(id);
    const sizes = told()
      .slice(1024)
      .map(({ message }) => message['log2Count']);
    expect(sizes).toEqual([16]);
  });

  it('drops and tells at a reset', () => {
    remap(3);
    bench.ask(MESSAGE.RESET, {});
    expect(told().map(({ message }) => message)).toEqual([{ epoch: 1, index: 0, log2Count: 16 }]);
  });

  it('ends the session when it is refused, or was not asked', () => {
    remap(3);
    invalidate(3, 0);
    expect(() => acknowledge(PENDING)).toThrow(expect.objectContaining({ reason: 'UNEXPECTED_REPLY' }));
    expect(() => acknowledge(told()[0]?.id ?? -1, 1)).toThrow(
      expect.objectContaining({ reason: 'PEER_REFUSED' }),
    );
  });

  it('counts as what a thread that settles has to carry out', () => {
    bench.notified(1, 8);
    bench.input(MESSAGE.NOTIFIER, CODEC.Notifier, { device: 1, flags: NOTIFY.UNMAP });
    remap(3);
    invalidate(3, 0);
    const { settled, sent } = bench.ask(MESSAGE.HOST_SETTLE, {});
    expect({ settled, sent }).toEqual({ settled: false, sent: 1 });
    acknowledge(told()[0]?.id ?? -1);
    expect(bench.ask(MESSAGE.HOST_SETTLE, {}).settled).toBe(true);
  });
});

describe('a peer that does not remap interrupts', () => {
  const features = ALL_FEATURES & ~FEATURE.INTERRUPT_REMAPPING;

  it('is refused a model that does', () => {
    const refused = expect.objectContaining({
      reason: 'BAD_OPTION',
      message: expect.stringContaining('intremap=on'),
    });
    expect(() => new Bench({ models }).hello({ features })).toThrow(refused);
  });

  it('may not ask', () => {
    bench = new Bench({ models: fakeModels });
    bench.hello({ features });
    expect(() => remap(3)).toThrow(expect.objectContaining({ reason: 'NOT_NEGOTIATED' }));
    bench.session.outputs.invalidateInterrupts(0, 16);
    expect(bench.session.completions.pending).toBe(0);
  });
});
