import { expect, it } from 'vitest';
import { MESSAGE } from '../../src/wire/frame.js';
import { FRONT } from './frame-maker.js';

/** Messages of the front channel that are made elsewhere, and where. */
const ELSEWHERE: ReadonlyMap<number, string> = new Map([
  [MESSAGE.HELLO, 'firstFrames'],
  [MESSAGE.MAIL, 'test/fuzz/socket.ts: what is in the mailbox'],
  [MESSAGE.HOST_DEVICE, 'hostFrames'],
]);

it('makes every message of the front channel, or another maker does', () => {
  const front = Object.values(MESSAGE).filter((type) => type > 0 && type < 64);
  expect(front.length).toBeGreaterThan(FRONT.length);
  expect(front.filter((type) => !FRONT.includes(type as never) && !ELSEWHERE.has(type))).toEqual([]);
});
