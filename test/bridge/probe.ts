import { execFileSync } from 'node:child_process';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { prepared } from '../guests/support.js';

const BRIDGE_DIRECTORY = fileURLToPath(new URL('../../qemu-bridge', import.meta.url));

/** Builds qemu-bridge/test/*-probe.c for amd64. Returns a directory of its own, to be removed; the objects are in `x86_64`. */
export function buildProbes(): string {
  const out = mkdtempSync(join(tmpdir(), 'viommu-probe-'));
  execFileSync('make', [
    ...['-s', '-C', BRIDGE_DIRECTORY, 'probe'],
    ...[`QEMU_HEADERS=${prepared().headers}`, `OUT=${out}`],
  ]);
  return out;
}
