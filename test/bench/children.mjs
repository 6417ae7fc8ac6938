/** Processes and files that must not outlive this one, however it ends. */

import { rmSync } from 'node:fs';

const children = new Set();
const directories = new Set();

/** Has a child process ended with this one. */
export function track(child) {
  children.add(child);
  child.once('exit', () => children.delete(child));
  return child;
}

/** Has a directory removed at the end. */
export function removeAtExit(path) {
  directories.add(path);
}

process.once('exit', () => {
  for (const child of children) child.kill('SIGKILL');
  for (const path of directories) rmSync(path, { recursive: true, force: true });
});
process.once('SIGINT', () => process.exit(130));
process.once('SIGTERM', () => process.exit(143));
