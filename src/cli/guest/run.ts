import { type ChildProcess, spawn } from 'node:child_process';
import { type GuestRecord, LineSplitter, parseRecord } from './console.js';

/** How a guest is run. */
export interface GuestRunOptions {
  readonly program: string;
  readonly args: readonly string[];
  readonly env: NodeJS.ProcessEnv;
  /** Milliseconds without a console line after which the guest counts as stuck and is killed. */
  readonly quietMs: number;
  /** Milliseconds for everything. */
  readonly totalMs: number;
  /** Milliseconds, monotonic or not: only differences are used. */
  readonly now: () => number;
  /** Every console line, with the milliseconds since the start. */
  readonly onLine?: (line: string, milliseconds: number) => void;
  /** Every {@link GuestRecord}, likewise. */
  readonly onRecord?: (record: GuestRecord, milliseconds: number) => void;
}

/** How a guest ended. */
export interface GuestEnd {
  readonly exitCode: number | null;
  readonly signal: NodeJS.Signals | null;
  /** Why we ended it; undefined when QEMU ended by itself. */
  readonly killed: string | undefined;
  readonly milliseconds: number;
  /** What QEMU itself said. */
  readonly stderr: string;
}

interface Waiter {
  readonly matches: (line: string) => boolean;
  readonly done: (line: string) => void;
  readonly failed: (error: Error) => void;
}

/** Time between asking QEMU to end and making it. */
const GRACE_MS = 3000;
/** Lines quoted when something went wrong. */
const TAIL = 25;

/**
 * One guest under QEMU: its console on our pipes, its results as data. QEMU's arguments must put
 * the serial console on stdio (see `machineArguments`).
 */
export class GuestRun {
  /** Console lines so far. */
  readonly lines: string[] = [];
  /** `VIOMMU-GUEST:` lines so far. */
  readonly records: GuestRecord[] = [];
  /** Settles when QEMU is gone; never rejects. */
  readonly end: Promise<GuestEnd>;
  readonly #options: GuestRunOptions;
  readonly #child: ChildProcess;
  readonly #started: number;
  readonly #waiters = new Set<Waiter>();
  #stderr = '';
  #killed: string | undefined;
  #ended = false;
  #quiet: NodeJS.Timeout | undefined;

  private constructor(options: GuestRunOptions) {
    this.#options = options;
    this.#started = options.now();
    this.#child = spawn(options.program, options.args, { env: options.env, stdio: 'pipe' });
    const console = new LineSplitter((line) => this.#line(line));
    this.#child.stdout?.setEncoding('utf8').on('data', (chunk: string) => console.push(chunk));
    this.#child.stderr?.setEncoding('utf8').on('data', (chunk: string) => {
      this.#stderr += chunk;
    });
    this.#child.stdin?.on('error', () => undefined); // it ended while we wrote: `end` tells
    const total = setTimeout(
      () => void this.kill(`not done after ${options.totalMs / 1000} s`),
      options.totalMs,
    );
    this.#watchQuiet();
    this.end = new Promise((done) => {
      const finish = (exitCode: number | null, signal: NodeJS.Signals | null): void => {
        if (this.#ended) return;
        this.#ended = true;
        console.end();
        clearTimeout(total);
        clearTimeout(this.#quiet);
        const end = {
          exitCode,
          signal,
          killed: this.#killed,
          milliseconds: this.#elapsed(),
          stderr: this.#stderr,
        };
        this.#failWaiters(end);
        done(end);
      };
      this.#child.once('error', (error) => {
        this.#stderr += `${error.message}\n`;
        finish(null, null);
      });
      this.#child.once('close', finish);
    });
  }

  /** Starts QEMU. */
  static start(options: GuestRunOptions): GuestRun {
    return new GuestRun(options);
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  /**
   * Resolves with the first console line, past or future, that matches. Rejects with the console's
   * last lines when the guest ends before.
   */
  waitFor(pattern: RegExp): Promise<string> {
    const found = this.lines.find((line) => pattern.test(line));
    if (found !== undefined) return Promise.resolve(found);
    if (this.#ended) return Promise.reject(new Error(this.describe(`ended before ${pattern}`)));
    return new Promise((done, failed) => {
      this.#waiters.add({ matches: (line) => pattern.test(line), done, failed });
    });
  }

  /** Something else than the console shows that the guest is at work: its silence begins anew. */
  atWork(): void {
    this.#watchQuiet();
  }

  /** Types text on the guest's console. */
  send(text: string): void {
    this.#child.stdin?.write(text);
  }

  /** The records of one job. */
  of(job: string): GuestRecord[] {
    return this.records.filter((record) => record.job === job);
  }

  /** The lines that a job passed on. */
  textOf(job: string): string[] {
    return this.of(job).flatMap(({ text }) => (text === undefined ? [] : [text]));
  }

  /** Value of `key` in the last record of a job that has it. */
  value(job: string, key: string): string | undefined {
    return this.of(job).findLast(({ values }) => key in values)?.values[key];
  }

  /** Ends QEMU: politely, then not. Resolves when it is gone. */
  async kill(reason: string): Promise<void> {
    if (this.#ended) return;
    this.#killed ??= reason;
    this.#child.kill('SIGTERM');
    const hard = setTimeout(() => this.#child.kill('SIGKILL'), GRACE_MS);
    await this.end;
    clearTimeout(hard);
  }

  /** A message with the console's last lines and what QEMU said, for people. */
  describe(what: string): string {
    const stderr = this.#stderr.trim();
    const said = stderr === '' ? '' : `\nQEMU said:\n  ${stderr.split('\n').slice(-TAIL).join('\n  ')}`;
    const tail = this.lines.slice(-TAIL).join('\n  ');
    return `${what}\nlast console lines:\n  ${tail}${said}`;
  }

  #elapsed(): number {
    return this.#options.now() - this.#started;
  }

  #line(line: string): void {
    this.lines.push(line);
    this.#watchQuiet();
    this.#options.onLine?.(line, this.#elapsed());
    const record = parseRecord(line);
    if (record !== undefined) {
      this.records.push(record);
      this.#options.onRecord?.(record, this.#elapsed());
    }
    for (const waiter of this.#waiters) {
      if (!waiter.matches(line)) continue;
      this.#waiters.delete(waiter);
      waiter.done(line);
    }
  }

  #watchQuiet(): void {
    clearTimeout(this.#quiet);
    if (this.#ended) return;
    const { quietMs } = this.#options;
    this.#quiet = setTimeout(() => void this.kill(`no console output for ${quietMs / 1000} s`), quietMs);
  }

  #failWaiters(end: GuestEnd): void {
    const why = end.killed ?? `QEMU ended (${end.signal ?? `exit code ${end.exitCode}`})`;
    for (const waiter of this.#waiters) waiter.failed(new Error(this.describe(why)));
    this.#waiters.clear();
  }
}
