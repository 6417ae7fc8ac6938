/** The end of a session: what fails on the way keeps nothing else from being done. */
import { describe, expect, it } from 'vitest';
import { CodedError } from '../base/errors.js';
import { MESSAGE } from '../wire/frame.js';
import { type LastChannel, tellWhy } from './ending.js';
import { Bench } from './testing/bench.js';

class Words implements LastChannel {
  readonly said: number[] = [];
  flushed = false;

  put(type: number): void {
    this.said.push(type);
  }

  flush(): boolean {
    this.flushed = true;
    return true;
  }
}

/** The peer of this channel is gone. */
class Deaf extends Words {
  override put(): void {
    throw new CodedError('PEER_CLOSED', 'gone');
  }
}

describe('the last words to a peer', () => {
  it('reach either channel when the other one takes nothing', () => {
    const reason = new CodedError('BAD_BODY', 'not a message');
    for (const at of [0, 1]) {
      const words = new Words();
      tellWhy(at === 0 ? [words, new Deaf()] : [new Deaf(), words], reason);
      expect([words.said, words.flushed]).toEqual([[MESSAGE.ERROR], true]);
    }
  });

  it('are none to a peer that has closed its channels', () => {
    const words = new Words();
    tellWhy([words, undefined], new CodedError('PEER_CLOSED', 'gone'));
    expect([words.said, words.flushed]).toEqual([[], true]);
  });
});

describe('a session that ends', () => {
  it('gives memory back though the shadow fails', () => {
    const { session } = new Bench().hello();
    let cleared = 0;
    session.ports.memory.clear = () => cleared++;
    session.shadowing.shadow.end = () => {
      throw new Error('a defect of the shadow');
    };
    expect(() => session.end()).toThrow('a defect of the shadow');
    expect(cleared).toBe(1);
  });
});
