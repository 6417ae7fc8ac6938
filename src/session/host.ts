/**
 * The main thread's hold on a session: starts its thread, asks it things, stops it. The main thread
 * never stands between the guest and a translation.
 */
import { Worker } from 'node:worker_threads';
import type { AssignmentSettings } from '../assignment/offer.js';
import { CodedError, type ErrorName } from '../base/errors.js';
import { closeFd, wake, wakeFd } from '../base/native.js';
import type { DumpNode, DumpOptions } from '../device/iommu.js';
import type { ViommuEvent } from '../events/viommu-events.js';
import type { AuditAnswer } from '../shadow/audit/audit.js';
import type { DiffAnswer } from '../shadow/check.js';
import type { LogFields, LogLevel } from './ports.js';
import type { SessionReport } from './report.js';
import { type FromWorker, SHARED_WORD, type ToWorker, type WorkerStart } from './worker-messages.js';

/** How a session ended. */
export interface SessionClosed {
  readonly reason: ErrorName;
  readonly text: string;
  /** The last report there is; undefined when the thread died. */
  readonly report: SessionReport | undefined;
}

export interface SessionOptions {
  /** Name of this session, for the peer and the log. */
  readonly session: string;
  /** Model options that hold where the peer names none, e.g. `cache-policy`. */
  readonly modelDefaults?: Readonly<Record<string, string>>;
  /** How assigned devices are served; default: mode `auto`. */
  readonly assignment?: AssignmentSettings;
  /**
   * Refuse guest memory in files that may shrink. Default false: take them, and say so in the log.
   */
  readonly requireSealed?: boolean;
  /** Module with other models; see {@link WorkerStart.models}. */
  readonly models?: string;
  readonly onLog?: (level: LogLevel, message: string, fields: LogFields) => void;
  readonly onEvent?: (event: ViommuEvent) => void;
  /** Called once, last. Every descriptor and mapping of the session is given back by then. */
  readonly onClosed?: (closed: SessionClosed) => void;
}

export interface SessionHost {
  readonly session: string;
  /** The model's state as a tree. Throws `SESSION_GONE`. */
  dump(options: DumpOptions): Promise<DumpNode[]>;
  /** Throws `SESSION_GONE`. */
  report(): Promise<SessionReport>;
  /**
   * Host mappings of assigned devices (of one requester id) against the guest's tables, as they are
   * now. Throws `SESSION_GONE`.
   */
  diff(rid: number | undefined, most: number): Promise<DiffAnswer>;
  /**
   * Has every completion checked from now on, or takes one such wish back. Throws `SESSION_GONE`.
   */
  watchCompletions(on: boolean): Promise<AuditAnswer>;
  /** What these checks have found, from difference `from` on. Throws `SESSION_GONE`. */
  completions(from: number): Promise<AuditAnswer>;
  /** Ends the connection with `STOPPED`; resolves when nothing of it is left. */
  stop(): Promise<void>;
  /** Resolves when the session has ended, however. */
  readonly closed: Promise<SessionClosed>;
}

/**
 * Where the thread's code is. Threads run compiled files: a host that runs from `src` (tests do)
 * takes the worker from `dist`, which `npm run build` makes.
 */
const WORKER = import.meta.url.endsWith('.ts')
  ? new URL('../../dist/session/worker.js', import.meta.url)
  : new URL('./worker.js', import.meta.url);

/**
 * Sessions that run: told to end when the process exits, since a thread that waits cannot be ended
 * otherwise.
 */
const running = new Set<Host>();

process.on('exit', () => {
  for (const host of running) host.tellToStop();
});

/** A thread that has loaded everything and waits for a session. */
let prepared: Worker | undefined;

/**
 * Starts the next session's thread now, so that its virtual machine need not wait for that (about
 * 150 ms). Does not keep the process alive.
 */
export function prepareSession(): void {
  if (prepared !== undefined) return;
  const worker = new Worker(WORKER);
  const forget = (): void => {
    if (prepared === worker) prepared = undefined;
  };
  // A thread that cannot start is found out about when a session needs one.
  worker.on('error', forget);
  worker.once('exit', forget);
  worker.unref();
  prepared = worker;
}

function takeWorker(): Worker {
  const worker = prepared ?? new Worker(WORKER);
  prepared = undefined;
  worker.ref();
  return worker;
}

/**
 * Serves the connection `fd` in a thread of its own. The descriptor is the session's from now on.
 */
export function startSession(fd: number, options: SessionOptions): SessionHost {
  return new Host(fd, options);
}

interface Waiting {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
}

type Question<T = ToWorker> = T extends ToWorker ? Omit<T, 'id'> : never;

class Host implements SessionHost {
  readonly session: string;
  readonly closed: Promise<SessionClosed>;
  readonly #options: SessionOptions;
  readonly #worker: Worker;
  readonly #fd: number;
  readonly #wakeFd = wakeFd();
  readonly #shared = new Int32Array(new SharedArrayBuffer(4 * SHARED_WORD.COUNT));
  readonly #waiting = new Map<number, Waiting>();
  #nextId = 1;
  #end: SessionClosed | undefined;
  #gone = false;
  #failure: string | undefined;

  constructor(fd: number, options: SessionOptions) {
    this.session = options.session;
    this.#options = options;
    this.#fd = fd;
    const start: WorkerStart = {
      fd,
      wakeFd: this.#wakeFd,
      shared: this.#shared.buffer as SharedArrayBuffer,
      session: options.session,
      modelDefaults: options.modelDefaults ?? {},
      assignment: options.assignment,
      requireSealed: options.requireSealed ?? false,
      models: options.models,
    };
    this.#worker = takeWorker();
    running.add(this);
    this.#worker.on('message', (message: FromWorker) => this.#hear(message));
    this.#worker.on('error', (error) => {
      this.#failure = error.stack ?? error.message;
    });
    this.closed = new Promise((resolve) => {
      this.#worker.once('exit', () => resolve(this.#exited()));
    });
    this.#worker.postMessage(start);
  }

  async dump(options: DumpOptions): Promise<DumpNode[]> {
    return (await this.#ask({ method: 'dump', options })) as DumpNode[];
  }

  async report(): Promise<SessionReport> {
    return (await this.#ask({ method: 'report' })) as SessionReport;
  }

  async diff(rid: number | undefined, most: number): Promise<DiffAnswer> {
    return (await this.#ask({ method: 'diff', rid, most })) as DiffAnswer;
  }

  async watchCompletions(on: boolean): Promise<AuditAnswer> {
    return (await this.#ask({ method: 'watchCompletions', on })) as AuditAnswer;
  }

  async completions(from: number): Promise<AuditAnswer> {
    return (await this.#ask({ method: 'completions', from })) as AuditAnswer;
  }

  async stop(): Promise<void> {
    this.tellToStop();
    await this.closed;
  }

  /** Does not wait; safe at any time. */
  tellToStop(): void {
    if (this.#gone) return;
    Atomics.store(this.#shared, SHARED_WORD.STOP, 1);
    wake(this.#wakeFd);
  }

  #ask(question: Question): Promise<unknown> {
    if (this.#gone || this.#end !== undefined) return Promise.reject(this.#goneError());
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#worker.postMessage({ ...question, id });
      wake(this.#wakeFd);
    });
  }

  #hear(message: FromWorker): void {
    const { onLog, onEvent } = this.#options;
    if (message.kind === 'event') Atomics.add(this.#shared, SHARED_WORD.HEARD, 1);
    if (message.kind === 'log') onLog?.(message.level, message.message, message.fields);
    else if (message.kind === 'event') onEvent?.(message.event);
    else if (message.kind === 'closed') this.#end = message;
    else this.#settle(message);
  }

  #settle(message: Extract<FromWorker, { id: number }>): void {
    const waiting = this.#waiting.get(message.id);
    this.#waiting.delete(message.id);
    if (message.kind === 'reply') waiting?.resolve(message.value);
    else waiting?.reject(new CodedError(message.reason, message.text));
  }

  #exited(): SessionClosed {
    running.delete(this);
    this.#gone = true;
    closeFd(this.#wakeFd);
    for (const waiting of this.#waiting.values()) waiting.reject(this.#goneError());
    this.#waiting.clear();
    const end = this.#end ?? this.#died();
    const closed = { reason: end.reason, text: end.text, report: end.report };
    this.#options.onClosed?.(closed);
    return closed;
  }

  /** The thread ended without a word: out of memory, or its code is missing. */
  #died(): SessionClosed {
    closeFd(this.#fd);
    const text = this.#failure ?? 'the session thread ended unexpectedly';
    this.#options.onLog?.('error', 'session thread failed', { stack: text });
    return { reason: 'INTERNAL', text: text.split('\n')[0] as string, report: undefined };
  }

  #goneError(): CodedError {
    return new CodedError('SESSION_GONE', `session ${this.session} has ended`);
  }
}
