import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, openSync, readdirSync, readFileSync, readlinkSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { requireFresh } from '../../setup/build-stamp.mjs';
import { ControlClient } from '../../src/cli/control-client.js';
import type { ReportAnswer } from '../../src/cli/control-protocol.js';
import type { SessionReport } from '../../src/session/report.js';
import { endWithFile } from './cleanup.js';

/**
 * The compiled command. VIOMMU_MAIN names another build on purpose; the project's own has to be
 * fresh.
 */
export const MAIN = process.env['VIOMMU_MAIN'] ?? ownMain();
const START_MS = 20_000;

function ownMain(): string {
  const root = fileURLToPath(new URL('../..', import.meta.url));
  requireFresh(root, ', or name another build with VIOMMU_MAIN');
  return join(root, 'dist/main.js');
}

/** One line of the daemon's log. */
interface LogLine {
  readonly level: number;
  readonly msg: string;
  readonly [field: string]: unknown;
}

export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/**
 * Waits until `done` gives something other than undefined or false. Throws with `what` after a
 * while.
 */
export async function eventually<T>(
  done: () => T | undefined | false | Promise<T | undefined | false>,
  what: string,
  timeoutMs = 10_000,
): Promise<T> {
  for (let waited = 0; ; waited += 20) {
    const value = await done();
    if (value !== undefined && value !== false) return value;
    if (waited >= timeoutMs) throw new Error(`timed out: ${what}`);
    await sleep(20);
  }
}

/**
 * A real `viommu serve` in a process of its own, its log in a file: a test may block while it runs.
 */
export class Daemon {
  readonly socket: string;
  readonly exited: Promise<number>;
  readonly #directory: string;
  readonly #process: ChildProcess;
  readonly #logFile: string;
  readonly #ended: () => void;

  private constructor(directory: string, args: readonly string[]) {
    if (!existsSync(MAIN)) throw new Error(`${MAIN} is missing`);
    this.#directory = directory;
    this.socket = join(directory, 'viommu.sock');
    this.#logFile = join(directory, `log-${Math.floor(process.hrtime()[1])}`);
    const log = openSync(this.#logFile, 'w');
    this.#process = spawn(process.execPath, [MAIN, 'serve', '--socket', this.socket, '--log-json', ...args], {
      stdio: ['ignore', log, log],
    });
    this.#ended = endWithFile(async () => {
      this.signal('SIGKILL');
      await this.exited;
      rmSync(directory, { recursive: true, force: true });
    });
    this.exited = new Promise((resolve) => {
      this.#process.on('exit', (code, signal) => resolve(code ?? (signal === null ? -1 : 128)));
    });
  }

  /**
   * Starts a daemon and waits until it listens. `directory` = one that exists already, with what is
   * in it: it stays when the start fails.
   */
  static async start(args: readonly string[] = [], given?: string): Promise<Daemon> {
    const directory = given ?? mkdtempSync(join(tmpdir(), 'viommu-it-'));
    const daemon = new Daemon(directory, args);
    let code: number | undefined;
    void daemon.exited.then((value) => {
      code = value;
    });
    await eventually(
      () => code !== undefined || daemon.listens(),
      `the daemon to listen; its log:\n${daemon.text()}`,
      START_MS,
    );
    if (code === undefined) return daemon;
    const text = daemon.text();
    if (given === undefined) rmSync(directory, { recursive: true, force: true });
    throw new Error(`the daemon ended with ${code}:\n${text}`);
  }

  get pid(): number {
    return this.#process.pid ?? -1;
  }

  get running(): boolean {
    return this.#process.exitCode === null && this.#process.signalCode === null;
  }

  /** True when the kernel lists this process's socket as listening. */
  listens(): boolean {
    const line = readFileSync('/proc/net/unix', 'utf8')
      .split('\n')
      .find((text) => text.endsWith(` ${this.socket}`));
    return line !== undefined && line.split(/\s+/)[3] === '00010000';
  }

  text(): string {
    return existsSync(this.#logFile) ? readFileSync(this.#logFile, 'utf8') : '';
  }

  /** What the daemon reports of a machine, over its control channel. */
  async report(vm: string): Promise<SessionReport> {
    const client = await ControlClient.connect(`${this.socket}.ctl`);
    try {
      return ((await client.request('report', { vm })) as ReportAnswer).report;
    } finally {
      client.close();
    }
  }

  /** Log lines that are JSON, so far. */
  log(): LogLine[] {
    return this.text()
      .split('\n')
      .filter((line) => line.startsWith('{'))
      .map((line) => JSON.parse(line) as LogLine);
  }

  /**
   * What those of the daemon's descriptors point at that a peer can cause: sockets and files in
   * memory. (Threads that are made ahead have descriptors too, and come and go.)
   */
  descriptors(): string[] {
    const directory = `/proc/${this.pid}/fd`;
    return readdirSync(directory).flatMap((fd) => {
      try {
        const target = readlinkSync(join(directory, fd));
        return target.startsWith('socket:') || target.includes('memfd:') ? [target] : [];
      } catch {
        return [];
      }
    });
  }

  /** Number of all its descriptors. */
  descriptorCount(): number {
    return readdirSync(`/proc/${this.pid}/fd`).length;
  }

  /** Number of its threads. */
  threadCount(): number {
    return readdirSync(`/proc/${this.pid}/task`).length;
  }

  /** Mappings of guest RAM and shared pages in the daemon. */
  guestMappings(): string[] {
    return readFileSync(`/proc/${this.pid}/maps`, 'utf8')
      .split('\n')
      .filter((line) => line.includes('/memfd:'));
  }

  signal(name: NodeJS.Signals): void {
    this.#process.kill(name);
  }

  /** Ends the daemon as an administrator does; returns its exit code. */
  async stop(): Promise<number> {
    if (this.running) this.signal('SIGTERM');
    const late = setTimeout(() => this.signal('SIGKILL'), 15_000);
    const code = await this.exited;
    clearTimeout(late);
    return code;
  }

  /** {@link stop}, and removes the directory. */
  async dispose(): Promise<void> {
    await this.stop();
    rmSync(this.#directory, { recursive: true, force: true });
    this.#ended();
  }
}
