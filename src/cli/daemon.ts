import type { DumpNode, DumpOptions } from '../device/iommu.js';
import type { ViommuEvent } from '../events/viommu-events.js';
import { formatEvent } from '../observe/event.js';
import type { Logger } from '../observe/log.js';
import type { LogLevel } from '../session/ports.js';
import type { SessionReport } from '../session/report.js';
import type { AuditAnswer } from '../shadow/audit/audit.js';
import type { DiffAnswer } from '../shadow/check.js';
import { type CliContext, messageOf } from './context.js';
import { controlMethods } from './control-methods.js';
import { ControlServer } from './control-server.js';
import { announce } from './runtime-dir.js';

/** What the daemon asks of one connected virtual machine; {@link StartSession} makes it. */
export interface SessionPort {
  dump(options: DumpOptions): Promise<DumpNode[]>;
  report(): Promise<SessionReport>;
  diff(rid: number | undefined, most: number): Promise<DiffAnswer>;
  watchCompletions(on: boolean): Promise<AuditAnswer>;
  completions(from: number): Promise<AuditAnswer>;
  /** Ends the connection; resolves when nothing of it is left. */
  stop(): Promise<void>;
}

/** What a session tells the daemon. */
export interface SessionCallbacks {
  log(level: LogLevel, message: string, fields: Readonly<Record<string, unknown>>): void;
  event(event: ViommuEvent): void;
  /**
   * Called once, last. `code` is a name of the error table, `report` what a report would have said.
   */
  closed(code: string, text: string, report: SessionReport | undefined): void;
}

export type StartSession = (fd: number, id: string, callbacks: SessionCallbacks) => SessionPort;

/**
 * Accepts connections on `path` (mode 0600, stale files replaced); each descriptor belongs to the
 * callback.
 */
export type Listen = (path: string, onConnection: (fd: number) => void) => Promise<ListenerPort>;

interface ListenerPort {
  /** Stops accepting and removes the socket. */
  close(): Promise<void> | void;
}

interface DaemonOptions {
  readonly context: CliContext;
  readonly log: Logger;
  readonly socket: string;
  /** Undefined = no control channel. */
  readonly control: string | undefined;
  /** Subcommand, for the note by which other commands find the daemon. */
  readonly command: string;
  readonly listen: Listen;
  readonly startSession: StartSession;
}

/** How a session ended. */
export interface SessionEnd {
  readonly vm: string;
  readonly code: string;
  readonly text: string;
  /** The last one; undefined when its thread died. */
  readonly report: SessionReport | undefined;
}

/** One virtual machine as the daemon knows it. */
interface ConnectedVm {
  /** Unique among the connected: the machine's own name, numbered when it is taken. */
  name: string;
  readonly since: number;
  readonly session: SessionPort;
}

/**
 * The main thread's side of everything: accepts machines, answers the control channel, writes the
 * log.
 */
export class Daemon {
  readonly #options: DaemonOptions;
  readonly #vms = new Map<string, ConnectedVm>();
  readonly #eventListeners = new Set<(vm: string, event: ViommuEvent) => void>();
  readonly #closedListeners = new Set<(end: SessionEnd) => void>();
  #listener: ListenerPort | undefined;
  #control: ControlServer | undefined;
  #unannounce: () => void = () => undefined;
  #count = 0;

  private constructor(options: DaemonOptions) {
    this.#options = options;
  }

  /** Listens on both sockets, or on neither. @throws {CliError} or a coded error when it cannot. */
  static async start(options: DaemonOptions): Promise<Daemon> {
    const daemon = new Daemon(options);
    try {
      await daemon.#open();
    } catch (error) {
      await daemon.stop();
      throw error;
    }
    return daemon;
  }

  get socket(): string {
    return this.#options.socket;
  }

  get control(): string | undefined {
    return this.#control?.path;
  }

  /** Connected machines, in the order in which they came. */
  vms(): readonly ConnectedVm[] {
    return [...this.#vms.values()];
  }

  /** Calls `listener` for every event of every machine, until the returned function is called. */
  onEvent(listener: (vm: string, event: ViommuEvent) => void): () => void {
    this.#eventListeners.add(listener);
    return () => this.#eventListeners.delete(listener);
  }

  /** Calls `listener` when a session ends, until the returned function is called. */
  onClosed(listener: (end: SessionEnd) => void): () => void {
    this.#closedListeners.add(listener);
    return () => this.#closedListeners.delete(listener);
  }

  /** Ends every session and removes both sockets. May be called again. */
  async stop(): Promise<void> {
    const listener = this.#listener;
    this.#listener = undefined;
    await listener?.close();
    await Promise.all(this.vms().map((vm) => vm.session.stop()));
    const control = this.#control;
    this.#control = undefined;
    await control?.close();
    this.#unannounce();
    this.#unannounce = () => undefined;
  }

  async #open(): Promise<void> {
    const { context, log, socket, control, listen, command } = this.#options;
    if (control !== undefined) {
      this.#control = await ControlServer.open({
        path: control,
        version: context.version,
        pid: context.pid,
        methods: controlMethods(this),
        onFailure: (error) => log.error({ err: messageOf(error) }, 'control request failed'),
      });
      this.#unannounce = announce(context, { pid: context.pid, socket, control, command });
    }
    // Last, so that everything else is there when the machines' socket can be connected to.
    this.#listener = await listen(socket, (fd) => this.#connected(fd));
    log.info({ socket, ...(control === undefined ? {} : { control }) }, 'listening');
  }

  #connected(fd: number): void {
    const { context, log, startSession } = this.#options;
    const id = `vm${++this.#count}`;
    const callbacks: SessionCallbacks = {
      log: (level, message, fields) => log[level]({ vm: this.#nameOf(id), ...fields }, message),
      event: (event) => this.#event(id, event),
      closed: (code, text, report) => this.#closed(id, code, text, report),
    };
    try {
      const session = startSession(fd, id, callbacks);
      // Another machine's name may be this one's number.
      this.#vms.set(id, { name: this.#uniqueName(id, id), since: context.now(), session });
    } catch (error) {
      log.error({ vm: id, err: messageOf(error) }, 'session did not start');
    }
  }

  #nameOf(id: string): string {
    return this.#vms.get(id)?.name ?? id;
  }

  #event(id: string, event: ViommuEvent): void {
    const vm = this.#vms.get(id);
    if (vm !== undefined && event.kind === 'hello' && event.vm !== '')
      vm.name = this.#uniqueName(event.vm, id);
    const name = this.#nameOf(id);
    const level = event.kind === 'fault' || event.kind === 'queueError' ? 'warn' : 'debug';
    this.#options.log[level]({ vm: name }, formatEvent(event));
    this.#control?.publish({ vm: name, time: this.#options.context.now(), event });
    for (const listener of this.#eventListeners) listener(name, event);
  }

  /** The name by which people see and name the machine. Names that look the same get a number. */
  #uniqueName(wanted: string, id: string): string {
    const taken = new Set([...this.#vms].filter(([other]) => other !== id).map(([, vm]) => vm.name));
    let name = wanted;
    for (let number = 2; taken.has(name); number++) name = `${wanted}-${number}`;
    return name;
  }

  #closed(id: string, code: string, text: string, report: SessionReport | undefined): void {
    const name = this.#nameOf(id);
    this.#vms.delete(id);
    const { commandsByPeer = 0, counters } = report ?? {};
    const fields = { vm: name, code, commands: counters?.commands ?? 0, commandsByPeer };
    this.#options.log.info(fields, `disconnected: ${text}`);
    const event = { kind: 'disconnected', detail: text } as const;
    this.#control?.publish({ vm: name, time: this.#options.context.now(), event });
    for (const listener of this.#closedListeners) listener({ vm: name, code, text, report });
  }
}
