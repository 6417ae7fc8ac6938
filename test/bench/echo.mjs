/**
 * The floor of a round trip to the daemon: a worker that waits as a session's thread waits and
 * sends back what it receives. No frames, no codec, no model.
 */

import { once } from 'node:events';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { isMainThread, Worker, workerData } from 'node:worker_threads';

const BUFFER_BYTES = 2 * 65536;
/** A thread that only waits cannot be ended; so it wakes up now and then. */
const WAIT_MS = 500;

/** Starts an echo on a socket of its own below `scratch`; takes one connection after the other. */
export async function startEcho(scratch) {
  const socket = join(scratch, 'echo.sock');
  const workers = new Set();
  const server = createServer({ pauseOnConnect: true }, async (connection) => {
    // The worker reads and writes the descriptor itself; Node never does, and closes it after the
    // worker.
    const worker = new Worker(new URL(import.meta.url), { workerData: { fd: connection._handle.fd } });
    workers.add(worker);
    worker.on('error', (error) => process.stderr.write(`bench: echo: ${error.message}\n`));
    await once(worker, 'exit');
    workers.delete(worker);
    connection.destroy();
  });
  server.listen(socket);
  await once(server, 'listening');
  return {
    socket,
    async stop() {
      server.close();
      await Promise.all([...workers].map((worker) => worker.terminate()));
    },
  };
}

/** Echoes on `fd` until the peer closes. Blocks its thread. */
async function serveEcho(fd) {
  const { duplicate, NativeBuffer, POLL, PollSet } = await import('../../dist/base/native.js');
  const { FdSocket, RECEIVED } = await import('../../dist/wire/fd-socket.js');
  const { SPINS } = await import('../../dist/session/adaptive-poll.js');
  const socket = new FdSocket(duplicate(fd));
  const buffer = new NativeBuffer(BUFFER_BYTES);
  const poll = new PollSet(1);
  poll.set(0, socket.fd, POLL.IN);
  let empty = 0;
  for (;;) {
    const count = socket.receive(buffer.address, BUFFER_BYTES);
    if (count === RECEIVED.CLOSED) break;
    if (count > 0) {
      empty = 0;
      for (let sent = 0; sent < count; ) sent += socket.send(buffer.address + sent, count - sent);
    } else if (++empty >= SPINS) {
      poll.wait(WAIT_MS);
    }
  }
  poll.free();
  buffer.free();
  socket.close();
}

if (!isMainThread) await serveEcho(workerData.fd);
