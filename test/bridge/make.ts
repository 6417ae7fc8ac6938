import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { prepared } from '../guests/support.js';

const BRIDGE_DIRECTORY = fileURLToPath(new URL('../../qemu-bridge', import.meta.url));

/** A target of qemu-bridge/Makefile, built for amd64 into a directory of its own. */
export class BridgeBuild {
  readonly directory = mkdtempSync(join(tmpdir(), 'viommu-bridge-'));
  /** What make printed, and what it ran. */
  readonly text: string;

  constructor(target: string) {
    const { headers, uapi } = prepared();
    const args = [`QEMU_HEADERS=${headers}`, `UAPI_HEADERS=${uapi}`, `OUT=${this.directory}`];
    try {
      this.text = execFileSync('make', ['-s', '-C', BRIDGE_DIRECTORY, target, ...args], { encoding: 'utf8' });
    } catch (error) {
      this.dispose();
      throw error;
    }
  }

  /** Path of a program or object that was built. */
  path(name: string): string {
    return join(this.directory, 'x86_64', name);
  }

  dispose(): void {
    rmSync(this.directory, { recursive: true, force: true });
  }
}

/** What a check of qemu-bridge/Makefile prints. It throws when the check fails. */
export function runCheck(target: string): string {
  const build = new BridgeBuild(target);
  build.dispose();
  return build.text;
}
