import { chmodSync, lstatSync, rmSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import { createConnection } from 'node:net';
import { type RawData, type WebSocket, WebSocketServer } from 'ws';
import { CliError, errnoOf } from './context.js';
import {
  CONTROL_VERSION,
  ControlError,
  type ControlEvent,
  type ControlReply,
  type Greeting,
  isNamed,
  MAX_REQUEST_BYTES,
} from './control-protocol.js';

/** The client of a request. */
export interface ControlConnection {
  /** Calls `listener` when the connection has ended. */
  onClose(listener: () => void): void;
}

/** Answers one request; throws {@link ControlError} for a mistake of the client. */
export type ControlMethodHandler = (
  params: Readonly<Record<string, unknown>>,
  connection: ControlConnection,
) => Promise<unknown>;

interface ControlServerOptions {
  readonly path: string;
  readonly version: string;
  readonly pid: number;
  /** `watch` is the server's own; every other method is here. */
  readonly methods: ReadonlyMap<string, ControlMethodHandler>;
  /** Called when a handler throws anything but a {@link ControlError}: a defect of ours. */
  readonly onFailure: (error: unknown) => void;
}

/** A watcher with this many unread bytes gets no further events. */
const WATCH_BACKLOG_BYTES = 4 << 20;

/** The control channel of one daemon. */
export class ControlServer {
  readonly path: string;
  readonly #options: ControlServerOptions;
  readonly #http: Server;
  readonly #sockets: WebSocketServer;
  /** Watchers, and the machine that each watches; '' for all. */
  readonly #watchers = new Map<WebSocket, string>();

  private constructor(options: ControlServerOptions) {
    this.path = options.path;
    this.#options = options;
    this.#http = createServer((_request, response) => {
      response.writeHead(426, { 'content-type': 'text/plain' });
      response.end('This is the control channel of viommu: it speaks WebSocket. See docs/protocol.md.\n');
    });
    this.#sockets = new WebSocketServer({ server: this.#http, maxPayload: MAX_REQUEST_BYTES });
    this.#sockets.on('connection', (socket) => this.#greet(socket));
    // Errors of listening are reported by `open`; a WebSocketServer repeats them.
    this.#sockets.on('error', () => undefined);
  }

  /**
   * Listens on `options.path`, mode 0600 from its first moment. A stale socket file is replaced.
   * @throws {CliError} when another process answers there, or the path cannot be used.
   */
  static async open(options: ControlServerOptions): Promise<ControlServer> {
    await removeStale(options.path);
    const server = new ControlServer(options);
    await server.#listen();
    return server;
  }

  #listen(): Promise<void> {
    return new Promise((resolve, reject) => {
      const http = this.#http;
      const failed = (error: Error): void =>
        reject(new CliError(`cannot listen on ${this.path}: ${error.message}`));
      http.once('error', failed);
      const mask = process.umask(0o177);
      // The socket's name is bound before listen() returns, so the mask holds for it.
      http.listen(this.path, () => {
        http.off('error', failed);
        chmodSync(this.path, 0o600);
        resolve();
      });
      process.umask(mask);
    });
  }

  /** Sends an event to every watcher of its machine. */
  publish(event: ControlEvent): void {
    if (this.#watchers.size === 0) return;
    const text = JSON.stringify(event);
    for (const [socket, vm] of this.#watchers) {
      if ((vm === '' || isNamed(event.vm, vm)) && socket.bufferedAmount < WATCH_BACKLOG_BYTES)
        socket.send(text);
    }
  }

  /** Closes every connection and removes the socket. */
  async close(): Promise<void> {
    for (const socket of this.#sockets.clients) socket.terminate();
    this.#sockets.close();
    await new Promise<void>((resolve) => {
      this.#http.close(() => resolve());
      this.#http.closeAllConnections();
    });
    rmSync(this.path, { force: true });
  }

  #greet(socket: WebSocket): void {
    const greeting: Greeting = {
      viommu: CONTROL_VERSION,
      version: this.#options.version,
      pid: this.#options.pid,
    };
    socket.on('error', () => socket.terminate()); // e.g. a request above the limit: only that asker ends
    socket.on('close', () => this.#watchers.delete(socket));
    const connection: ControlConnection = { onClose: (listener) => socket.once('close', listener) };
    socket.on('message', (data, isBinary) => {
      void this.#answer(socket, connection, data, isBinary).then((reply) =>
        socket.send(JSON.stringify(reply)),
      );
    });
    socket.send(JSON.stringify(greeting));
  }

  async #answer(
    socket: WebSocket,
    connection: ControlConnection,
    data: RawData,
    isBinary: boolean,
  ): Promise<ControlReply> {
    let id: number | null = null;
    try {
      const request = parseRequest(isBinary ? '' : String(data));
      id = request.id;
      if (request.method === 'watch') return { id, result: this.#watch(socket, request.params) };
      const method = this.#options.methods.get(request.method);
      if (method === undefined) throw new ControlError('unknownMethod', `no method ${request.method}`);
      return { id, result: await method(request.params, connection) };
    } catch (error) {
      if (error instanceof ControlError) return { id, error: error.toFailure() };
      this.#options.onFailure(error);
      return { id, error: new ControlError('internal').toFailure() };
    }
  }

  #watch(socket: WebSocket, params: Readonly<Record<string, unknown>>): { watching: string } {
    const vm = params['vm'] ?? '';
    if (typeof vm !== 'string') throw new ControlError('badParams', 'vm is not a string');
    this.#watchers.set(socket, vm);
    return { watching: vm };
  }
}

interface ParsedRequest {
  readonly id: number;
  readonly method: string;
  readonly params: Readonly<Record<string, unknown>>;
}

function parseRequest(text: string): ParsedRequest {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new ControlError('badRequest');
  }
  if (typeof value !== 'object' || value === null) throw new ControlError('badRequest');
  const { id, method, params = {} } = value as Record<string, unknown>;
  if (typeof id !== 'number' || typeof method !== 'string') throw new ControlError('badRequest');
  if (typeof params !== 'object' || params === null || Array.isArray(params)) {
    throw new ControlError('badRequest', 'params is not an object');
  }
  return { id, method, params: params as Record<string, unknown> };
}

/** Removes a socket file without a listener. A file of another kind is not ours and stays. */
async function removeStale(path: string): Promise<void> {
  const stat = lstatSync(path, { throwIfNoEntry: false });
  if (stat === undefined) return;
  if (!stat.isSocket()) throw new CliError(`${path} exists and is not a socket`);
  const alive = await new Promise<boolean>((resolve) => {
    const probe = createConnection(path);
    // Anything but a refusal (no rights, say) means that it is not ours to remove.
    probe.once('error', (error) => resolve(errnoOf(error) !== 'ECONNREFUSED'));
    probe.once('connect', () => {
      probe.destroy();
      resolve(true);
    });
  });
  if (alive) throw new CliError(`${path} is in use: a daemon answers there`);
  rmSync(path, { force: true });
}
