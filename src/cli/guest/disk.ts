import { closeSync, ftruncateSync, openSync } from 'node:fs';
import { join } from 'node:path';

/** A sparse raw disk image of `mib` MiB in `dir`; returns its path. */
export function sparseDisk(dir: string, name: string, mib: number): string {
  const path = join(dir, `${name}.raw`);
  const fd = openSync(path, 'wx', 0o600);
  try {
    ftruncateSync(fd, mib * 2 ** 20);
  } finally {
    closeSync(fd);
  }
  return path;
}
