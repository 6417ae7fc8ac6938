import { createConnection } from 'node:net';
import { WebSocket } from 'ws';
import { type CliContext, CliError, EXIT } from './context.js';
import {
  CONTROL_VERSION,
  type ControlEvent,
  type ControlMethod,
  type ControlReply,
  type ControlRequest,
  type Greeting,
} from './control-protocol.js';
import { type DaemonNote, runningDaemons } from './runtime-dir.js';

interface Waiting {
  readonly resolve: (result: unknown) => void;
  readonly reject: (error: Error) => void;
}

/** How long the daemon may take to greet; answers may take longer, since tables can be large. */
const GREETING_MS = 5000;

/** A connection to the control channel of a running daemon. */
export class ControlClient {
  readonly #socket: WebSocket;
  readonly #waiting = new Map<number, Waiting>();
  #nextId = 1;
  #onEvent: (event: ControlEvent) => void = () => undefined;
  /** Settles when the connection has ended, for whatever reason. */
  readonly closed: Promise<void>;

  private constructor(socket: WebSocket) {
    this.#socket = socket;
    socket.on('message', (data) => this.#receive(String(data)));
    this.closed = new Promise((resolve) => socket.once('close', () => resolve()));
    void this.closed.then(() => {
      for (const { reject } of this.#waiting.values())
        reject(new CliError('the daemon closed the connection'));
      this.#waiting.clear();
    });
  }

  /** @throws {CliError} when no daemon answers there, or one of another version. */
  static async connect(path: string): Promise<ControlClient> {
    const socket = new WebSocket('ws://viommu/', {
      handshakeTimeout: GREETING_MS,
      createConnection: () => createConnection(path),
    });
    const greeting = await new Promise<Greeting>((resolve, reject) => {
      socket.once('message', (data) => resolve(JSON.parse(String(data)) as Greeting));
      socket.on('error', (error) =>
        reject(new CliError(`no daemon answers on ${path}: ${error.message}`, EXIT.NOT_FOUND)),
      );
      socket.once('close', () => reject(new CliError(`no daemon answers on ${path}`, EXIT.NOT_FOUND)));
    });
    if (greeting.viommu !== CONTROL_VERSION) {
      socket.terminate();
      throw new CliError(
        `the daemon on ${path} (viommu ${greeting.version}) speaks another control version: use its own viommu`,
      );
    }
    return new ControlClient(socket);
  }

  /** Asks and waits. @throws {CliError} with the daemon's message. */
  request(method: ControlMethod, params: Readonly<Record<string, unknown>> = {}): Promise<unknown> {
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      const request: ControlRequest = { id, method, params };
      this.#socket.send(JSON.stringify(request));
    });
  }

  /** Calls `handler` for each event from now on; `vm` '' = of every machine. */
  async watch(vm: string, handler: (event: ControlEvent) => void): Promise<void> {
    this.#onEvent = handler;
    await this.request('watch', { vm });
  }

  close(): void {
    this.#socket.terminate();
  }

  #receive(text: string): void {
    const message = JSON.parse(text) as ControlReply | ControlEvent;
    if ('event' in message) {
      this.#onEvent(message);
      return;
    }
    const waiting = message.id === null ? undefined : this.#waiting.get(message.id);
    if (waiting === undefined || message.id === null) return;
    this.#waiting.delete(message.id);
    if ('error' in message) {
      const missing = message.error.code === 'noSuchVm' || message.error.code === 'ambiguousVm';
      waiting.reject(new CliError(message.error.message, missing ? EXIT.NOT_FOUND : EXIT.FAILED));
    } else {
      waiting.resolve(message.result);
    }
  }
}

/**
 * The daemon that the user means: `--control`, or the only one that runs. @throws {CliError} if
 * there are several.
 */
export function findControl(context: CliContext, given: string | undefined): string {
  if (given !== undefined) return given;
  const daemons = runningDaemons(context);
  const only = daemons[0];
  if (only === undefined) {
    throw new CliError(
      'no daemon of yours is running: start one with "viommu serve" or "viommu qemu", or name its control socket with --control',
      EXIT.NOT_FOUND,
    );
  }
  if (daemons.length > 1) {
    throw new CliError(
      `several daemons are running; choose one:\n${daemons.map(choice).join('\n')}`,
      EXIT.NOT_FOUND,
    );
  }
  return only.control;
}

function choice(note: DaemonNote): string {
  return `  --control ${note.control}   (viommu ${note.command}, process ${note.pid})`;
}
