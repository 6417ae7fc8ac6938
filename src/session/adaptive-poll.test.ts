import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { currentCpu } from '../base/native.js';
import { AdaptivePoll, SPINS } from './adaptive-poll.js';

describe('polling before a sleep', () => {
  it('grows with sleeps that end soon, to a limit, and goes with those that do not', () => {
    const poll = new AdaptivePoll();
    expect(poll.polls).toBe(SPINS);
    poll.slept(0.1);
    expect(poll.polls).toBe(2 * SPINS);
    for (let sleeps = 0; sleeps < 20; sleeps++) poll.slept(0.1);
    const most = poll.polls;
    expect(most).toBe(512);
    poll.slept(1);
    expect(poll.polls).toBe(most / 2);
    for (let sleeps = 0; sleeps < 20; sleeps++) poll.slept(2000);
    expect(poll.polls).toBe(SPINS);
  });

  it('is never short where a look is not a system call', () => {
    const poll = new AdaptivePoll();
    poll.mailbox = true;
    const least = poll.polls;
    expect(least).toBeGreaterThan(SPINS);
    poll.slept(2000);
    expect(poll.polls).toBe(least);
    poll.slept(0.1);
    expect(poll.polls).toBe(2 * least);
  });

  it('is left out for a while when it was in vain', () => {
    const poll = new AdaptivePoll();
    expect(poll.skipTurn()).toBe(false);
    poll.foundNothing();
    let turns = 0;
    while (poll.skipTurn()) turns++;
    expect(turns).toBe(16);
  });
});

/** Processors that this thread may use, as the kernel lists them: `0-3,8`. */
const allowed = (): string =>
  /^Cpus_allowed_list:\s*(.*)$/m.exec(readFileSync('/proc/thread-self/status', 'utf8'))?.[1] ?? '';

describe('leaving a processor', () => {
  it('happens where there is another one, not over and over, and takes no processor away', () => {
    const processors = allowed();
    const poll = new AdaptivePoll();
    const cpu = currentCpu();
    expect(cpu).toBeGreaterThanOrEqual(0);
    const several = !/^\d+$/.test(processors);
    expect(poll.leaveCpu(cpu, 100)).toBe(several);
    expect(poll.leaveCpu(currentCpu(), 100.9)).toBe(false);
    expect(poll.leaveCpu(currentCpu(), 101)).toBe(several);
    expect(allowed()).toBe(processors);
  });

  it('is impossible for processors that there are none of', () => {
    expect(new AdaptivePoll().leaveCpu(-1, 0)).toBe(false);
    expect(new AdaptivePoll().leaveCpu(4096, 0)).toBe(false);
  });
});
