/**
 * The host's objects of the bridge beside a stand-in for the kernel
 * (qemu-bridge/test/iommufd-test.c, iommufd-queues-test.c).
 */
import { expect, it } from 'vitest';
import { runCheck } from './make.js';

it('leaves no object whatever call fails, and knows what each release of Linux lacks', () => {
  const text = runCheck('check-iommufd');
  expect(text).toMatch(/lives, one for each of \d+ calls and 9 errors/);
  expect(text).toMatch(/all well/);
});

it('knows what of an array was done, and what of a queue was cut short', () => {
  expect(runCheck('check-iommufd-queues')).toMatch(/all well/);
});
