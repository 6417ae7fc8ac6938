import { describe, expect, it } from 'vitest';
import { CODEC } from '../wire/codec.js';
import { ALL_FEATURES, CONTROL, MESSAGE, NOTIFY } from '../wire/frame.js';
import { reportOf } from './report.js';
import { Bench } from './testing/bench.js';
import { FAKE } from './testing/fake-model.js';

describe('what a session says of itself', () => {
  it('is nothing before HELLO', () => {
    expect(reportOf(new Bench().session)).toMatchObject({
      ...{ session: 'bench', vm: '', peer: '', model: '', options: {}, features: 0, regions: 0, devices: [] },
      ...{ epoch: 0, frontFrames: 0, backendFrames: 0, commandsByPeer: 0 },
      counters: { translations: 0 },
      bridge: { hits: 0, misses: 0, writesHandled: 0 },
    });
  });

  it('is what the peer agreed to, has added and was sent', () => {
    const bench = new Bench().hello({ peer: 'qemu', options: { 'caching-mode': 'on' } });
    bench.notified(3, 0x18);
    bench.input(MESSAGE.MEM_ADD, CODEC.MemAdd, { ...CODEC.MemAdd.create(), region: 1, sizeLo: 4096 });
    bench.translate(0x1000);
    bench.write(FAKE.INVALIDATE, 1);
    const report = reportOf(bench.session);
    expect(report).toMatchObject({
      ...{ vm: 'vm', peer: 'qemu', model: 'fake', options: { 'caching-mode': 'on' } },
      ...{ features: ALL_FEATURES, regions: 1, remoteRegions: 1, epoch: 1, invalidationsSent: 1 },
      devices: [{ device: 3, rid: 0x18, name: 'nic', notify: NOTIFY.UNMAP }],
      ...{ pendingAcks: 1, frontFrames: 6, backendFrames: 0, counters: { translations: 1 } },
    });
    bench.ack();
    expect(reportOf(bench.session)).toMatchObject({ pendingAcks: 0, backendFrames: 1 });
  });

  it('has the peer’s counters, of 64 bits where they may be large', () => {
    const bench = new Bench().hello();
    const words = { HITS_LO: 5, HITS_HI: 1, MISSES_LO: 6, MISSES_HI: 2, STALE_FILLS: 7, REFUSED: 8 } as const;
    for (const [name, value] of Object.entries(words)) {
      bench.page[CONTROL[name as keyof typeof words]] = value;
    }
    bench.write(FAKE.OFFSET, 1);
    expect(reportOf(bench.session).bridge).toMatchObject({
      ...{ hits: 2 ** 32 + 5, misses: 2 ** 33 + 6, staleFills: 7, refused: 8, writesHandled: 1 },
    });
  });
});
