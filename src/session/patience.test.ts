import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { currentCpu } from '../base/native.js';
import { SPINS } from '../wire/echo.js';
import { Patience } from './patience.js';

describe('patience before a sleep', () => {
  it('grows with sleeps that end soon, to a limit, and goes with those that do not', () => {
    const patience = new Patience();
    expect(patience.looks).toBe(SPINS);
    patience.slept(0.1);
    expect(patience.looks).toBe(2 * SPINS);
    for (let sleeps = 0; sleeps < 20; sleeps++) patience.slept(0.1);
    const most = patience.looks;
    expect(most).toBe(512);
    patience.slept(1);
    expect(patience.looks).toBe(most / 2);
    for (let sleeps = 0; sleeps < 20; sleeps++) patience.slept(2000);
    expect(patience.looks).toBe(SPINS);
  });

  it('is never short where a look is not a system call', () => {
    const patience = new Patience();
    patience.mail = true;
    const least = patience.looks;
    expect(least).toBeGreaterThan(SPINS);
    patience.slept(2000);
    expect(patience.looks).toBe(least);
    patience.slept(0.1);
    expect(patience.looks).toBe(2 * least);
  });

  it('is left out for a while when it was in vain', () => {
    const patience = new Patience();
    expect(patience.without()).toBe(false);
    patience.inVain();
    let turns = 0;
    while (patience.without()) turns++;
    expect(turns).toBe(16);
  });
});

/** Processors that this thread may use, as the kernel lists them: `0-3,8`. */
const allowed = (): string =>
  /^Cpus_allowed_list:\s*(.*)$/m.exec(readFileSync('/proc/thread-self/status', 'utf8'))?.[1] ?? '';

describe('leaving a processor', () => {
  it('happens where there is another one, not over and over, and takes no processor away', () => {
    const processors = allowed();
    const patience = new Patience();
    const cpu = currentCpu();
    expect(cpu).toBeGreaterThanOrEqual(0);
    const several = !/^\d+$/.test(processors);
    expect(patience.leave(cpu, 100)).toBe(several);
    expect(patience.leave(currentCpu(), 100.9)).toBe(false);
    expect(patience.leave(currentCpu(), 101)).toBe(several);
    expect(allowed()).toBe(processors);
  });

  it('is impossible for processors that there are none of', () => {
    expect(new Patience().leave(-1, 0)).toBe(false);
    expect(new Patience().leave(4096, 0)).toBe(false);
  });
});
