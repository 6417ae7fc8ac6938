/**
 * Accepts connections on a Unix socket, on the main thread. Node only accepts: it never reads from
 * a connection, whose descriptor goes to a session's thread.
 */
import { lstatSync, type Stats, unlinkSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { CodedError } from '../base/errors.js';
import { closeFd, connectUnix, duplicate, ERRNO, listenUnix, SystemError } from '../base/native.js';

const BACKLOG = 64;

export interface Listener {
  readonly path: string;
  /** Stops accepting and removes the socket file, if it still is this one. */
  close(): Promise<void>;
}

/**
 * Listens on `path`; the file has mode 0600 from the moment it exists. A socket file without a
 * listener is replaced. Every connection's descriptor (close-on-exec) belongs to `onConnection`.
 * Throws `ADDRESS_IN_USE`, `BAD_SOCKET_PATH`.
 */
export async function listen(path: string, onConnection: (fd: number) => void): Promise<Listener> {
  const fd = bindSocket(path);
  const mine = lstatSync(path);
  const server = createServer({ pauseOnConnect: true }, (socket) => handOver(socket, onConnection));
  try {
    await listening(server, fd);
  } catch (error) {
    closeFd(fd);
    removeIfSame(path, mine);
    throw error;
  }
  return {
    path,
    close: async () => {
      removeIfSame(path, mine);
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}

function bindSocket(path: string): number {
  try {
    return listenUnix(path, BACKLOG);
  } catch (error) {
    if (!(error instanceof SystemError)) throw error;
    if (error.errno !== ERRNO.EADDRINUSE)
      throw new CodedError('BAD_SOCKET_PATH', `${path}: ${error.message}`);
  }
  removeStale(path);
  try {
    return listenUnix(path, BACKLOG);
  } catch (error) {
    throw new CodedError('ADDRESS_IN_USE', `${path}: ${(error as Error).message}`);
  }
}

/** Removes a socket file without a listener. Throws `ADDRESS_IN_USE` if there is one. */
function removeStale(path: string): void {
  const there = lstatSync(path, { throwIfNoEntry: false });
  if (there === undefined) return;
  if (!there.isSocket()) throw new CodedError('ADDRESS_IN_USE', `${path} exists and is not a socket`);
  try {
    closeFd(connectUnix(path));
  } catch (error) {
    if (!(error instanceof SystemError) || error.errno !== ERRNO.ECONNREFUSED) throw error;
    unlinkSync(path);
    return;
  }
  throw new CodedError('ADDRESS_IN_USE', `another process answers on ${path}`);
}

function listening(server: Server, fd: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen({ fd }, () => {
      server.off('error', reject);
      // Accepting fails when no descriptor is left. That must not end existing connections.
      server.on('error', () => undefined);
      resolve();
    });
  });
}

/** Takes the descriptor out of Node's hands, by duplicating it and letting Node close its own. */
function handOver(socket: Socket, onConnection: (fd: number) => void): void {
  const { fd } = (socket as unknown as { readonly _handle: { readonly fd: number } })._handle;
  const mine = duplicate(fd);
  socket.destroy();
  onConnection(mine);
}

function removeIfSame(path: string, mine: Stats): void {
  const there = lstatSync(path, { throwIfNoEntry: false });
  if (there !== undefined && there.ino === mine.ino && there.dev === mine.dev) unlinkSync(path);
}
