/** The host's objects of the bridge beside a stand-in for the kernel (qemu-bridge/test/iommufd-test.c). */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { prepared } from '../guests/support.js';

const BRIDGE_DIRECTORY = fileURLToPath(new URL('../../qemu-bridge', import.meta.url));

it('leaves no object whatever call fails, knows what each release of Linux lacks, and what of an array was done', () => {
  const out = mkdtempSync(join(tmpdir(), 'viommu-iommufd-'));
  try {
    const { headers, uapi } = prepared();
    const args = [
      '-s',
      '-C',
      BRIDGE_DIRECTORY,
      'check-iommufd',
      `QEMU_HEADERS=${headers}`,
      `UAPI_HEADERS=${uapi}`,
    ];
    const text = execFileSync('make', [...args, `OUT=${out}`], { encoding: 'utf8' });
    expect(text).toMatch(/lives, one for each of \d+ calls and 9 errors/);
    expect(text).toMatch(/all well/);
  } finally {
    rmSync(out, { recursive: true, force: true });
  }
});
