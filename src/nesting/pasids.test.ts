import { describe, expect, it } from 'vitest';
import { PASID_ANSWER } from '../device/pasid-space.js';
import type { HostDone, HostIommu, HostOutcome } from '../host/port.js';
import { HostOperations } from './host-operations.js';
import { HostPasids } from './pasids.js';

const { DONE, REFUSED, LATER } = PASID_ANSWER;
const DEVICE = 3;

/** A host that answers when the test says so, and who asks it. */
class Asked {
  readonly asked: string[] = [];
  readonly waiting: HostDone[] = [];
  readonly answers: number[] = [];
  readonly changes: string[] = [];
  readonly elsewhere = new Set<number>();
  device: number | undefined = DEVICE;
  readonly operations = new HostOperations(
    () => {},
    () => {},
  );
  readonly pasids = new HostPasids(
    {
      allocatePasid: (device: number, done: HostDone) => this.#ask(`allocate ${device}`, done),
      freePasid: (device: number, pasid: number, done: HostDone) =>
        this.#ask(`free ${pasid} of ${device}`, done),
    } as unknown as HostIommu,
    this.operations,
    () => this.device,
    (answer) => void this.answers.push(answer),
    (pasid, live) => void this.changes.push(`${live ? '+' : '-'}${pasid}`),
    (pasid) => this.elsewhere.has(pasid),
  );

  #ask(what: string, done: HostDone): void {
    this.asked.push(what);
    this.waiting.push(done);
  }

  answer(value: number, code: HostOutcome['code'] = 'OK'): void {
    (this.waiting.shift() as HostDone)({ code, text: '', done: 0, value });
  }

  /** A PASID that the guest has. */
  give(pasid: number): void {
    this.pasids.allocate();
    this.answer(pasid);
    this.answers.length = 0;
    this.changes.length = 0;
    this.asked.length = 0;
  }
}

describe('PASIDs of a parent device', () => {
  it('are the host’s to give, later', () => {
    const host = new Asked();
    expect(host.pasids.allocate()).toBe(LATER);
    expect(host.answers).toEqual([]);
    host.answer(7);
    expect([host.answers, host.changes, [...host.pasids.live]]).toEqual([[7], ['+7'], [7]]);
    expect([host.pasids.free(8), host.pasids.free(7), host.pasids.free(7)]).toEqual([
      REFUSED,
      LATER,
      REFUSED,
    ]);
    host.answer(0);
    expect([host.answers, host.changes]).toEqual([
      [7, DONE],
      ['+7', '-7'],
    ]);
    expect(host.pasids.allocate()).toBe(LATER);
    host.answer(0, 'NO_PASID');
    expect(host.answers.at(-1)).toBe(REFUSED);
    host.device = undefined;
    expect([host.pasids.allocate(), host.pasids.free(7)]).toEqual([REFUSED, REFUSED]);
  });

  it('are given back at a reset, also those that come after it, without an answer to the guest', () => {
    const host = new Asked();
    host.give(5);
    host.pasids.allocate();
    host.pasids.releaseAll();
    host.answer(6);
    expect(host.asked).toEqual(['allocate 3', 'free 5 of 3', 'free 6 of 3']);
    expect([host.answers, host.changes]).toEqual([[], ['-5']]);
  });

  it('end with the device, and so does a command that is under way', () => {
    const host = new Asked();
    host.give(5);
    host.pasids.allocate();
    host.pasids.leave();
    expect([host.answers, host.changes]).toEqual([[REFUSED], ['-5']]);
    host.answer(6);
    host.answer(0);
    host.answer(0);
    expect(host.answers).toEqual([REFUSED]);
    host.give(9);
    host.pasids.free(9);
    host.pasids.leave();
    expect(host.answers).toEqual([DONE]);
    host.answer(0);
    host.pasids.leave();
    expect([host.answers, host.operations.pending]).toEqual([[DONE], 0]);
  });

  it.each([0, -1, 2 ** 20, 5])('that no host gives (%i) are none', (value) => {
    const host = new Asked();
    host.give(5);
    host.pasids.allocate();
    host.answer(value);
    expect([host.answers, host.changes, host.asked]).toEqual([[REFUSED], [], ['allocate 3']]);
    expect([...host.pasids.live]).toEqual([5]);
  });

  it('of a device that has gone have gone with it: none is given back', () => {
    const host = new Asked();
    host.give(5);
    host.give(6);
    host.device = undefined;
    host.pasids.releaseAll();
    expect([host.asked, host.changes, host.pasids.live.size]).toEqual([[], ['-5', '-6'], 0]);
  });

  it('of a number that the guest has from elsewhere go back', () => {
    const host = new Asked();
    host.elsewhere.add(4);
    host.pasids.allocate();
    host.answer(4);
    expect([host.answers, host.changes, host.asked]).toEqual([[REFUSED], [], ['allocate 3', 'free 4 of 3']]);
  });
});
