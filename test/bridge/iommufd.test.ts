/**
 * The host's objects of the bridge beside a stand-in for the kernel
 * (qemu-bridge/test/iommufd-test.c).
 */
import { expect, it } from 'vitest';
import { runCheck } from './make.js';

it('leaves no object whatever call fails, knows what each release of Linux lacks, and what of an array was done', () => {
  const text = runCheck('check-iommufd');
  expect(text).toMatch(/lives, one for each of \d+ calls and 9 errors/);
  expect(text).toMatch(/all well/);
});
