import {
  chmodSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type CliContext, CliError, EXIT, errnoOf } from './context.js';

/**
 * The directory for the notes by which daemons of this user are found, and for the private sockets
 * of `viommu qemu`: `$XDG_RUNTIME_DIR/viommu`, else `viommu-<uid>` in the temporary directory. It
 * must have mode 0700 and belong to this user. Otherwise another user could answer in the daemon's
 * place.
 */
export function runtimeDir(context: CliContext): string {
  const xdg = context.env['XDG_RUNTIME_DIR'];
  const base = xdg?.startsWith('/') === true && isDirectory(xdg) ? xdg : undefined;
  const path =
    base !== undefined
      ? join(base, 'viommu')
      : join(context.env['TMPDIR'] ?? tmpdir(), `viommu-${context.uid}`);
  try {
    mkdirSync(path, { mode: 0o700 });
  } catch (error) {
    if (errnoOf(error) !== 'EEXIST') throw new CliError(`cannot make ${path}: ${String(error)}`, EXIT.FAILED);
  }
  const stat = lstatSync(path);
  if (!stat.isDirectory() || stat.uid !== context.uid) {
    throw new CliError(`${path} is not a directory of ours; remove it or set XDG_RUNTIME_DIR`, EXIT.FAILED);
  }
  if ((stat.mode & 0o077) !== 0) chmodSync(path, 0o700);
  return path;
}

function isDirectory(path: string): boolean {
  try {
    return lstatSync(path).isDirectory();
  } catch {
    return false;
  }
}

/** How a running daemon is found. */
export interface DaemonNote {
  readonly pid: number;
  /** Path of the control channel. */
  readonly control: string;
  /** Path that virtual machine monitors connect to. */
  readonly socket: string;
  /** The subcommand: serve, qemu or demo. */
  readonly command: string;
}

const NOTE = /^([0-9]+)-.*\.json$/;
const PRIVATE = /^vm-([0-9]+)-/;

/** Leaves a note; the returned function takes it away again. */
export function announce(context: CliContext, note: DaemonNote): () => void {
  const path = join(runtimeDir(context), `${note.pid}-${note.command}.json`);
  writeFileSync(path, `${JSON.stringify(note)}\n`, { mode: 0o600 });
  return () => rmSync(path, { force: true });
}

/** Running daemons of this user. Removes notes of daemons that have died. */
export function runningDaemons(context: CliContext): DaemonNote[] {
  const dir = runtimeDir(context);
  const notes: DaemonNote[] = [];
  for (const name of readdirSync(dir)) {
    const pid = Number(NOTE.exec(name)?.[1] ?? PRIVATE.exec(name)?.[1] ?? Number.NaN);
    if (Number.isNaN(pid)) continue;
    if (!isAlive(pid)) rmSync(join(dir, name), { recursive: true, force: true });
    else if (name.endsWith('.json')) notes.push(...readNote(join(dir, name)));
  }
  return notes.sort((a, b) => a.pid - b.pid);
}

function readNote(path: string): DaemonNote[] {
  try {
    const note = JSON.parse(readFileSync(path, 'utf8')) as DaemonNote;
    return typeof note.control === 'string' && typeof note.socket === 'string' ? [note] : [];
  } catch {
    return []; // being written, or gone between listing and reading
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return errnoOf(error) === 'EPERM';
  }
}

/**
 * A new directory that only this user can enter, for the sockets of one virtual machine. Removes
 * those of processes that have died.
 */
export function privateDir(context: CliContext): string {
  runningDaemons(context);
  return mkdtempSync(join(runtimeDir(context), `vm-${context.pid}-`));
}
