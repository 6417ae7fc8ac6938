/**
 * The floor of a round trip to the daemon: a worker that waits as a session's thread waits and sends back what
 * it receives (src/wire/echo.ts). No frames, no codec, no model.
 */

import { once } from 'node:events';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { isMainThread, Worker, workerData } from 'node:worker_threads';

/** Starts an echo on a socket of its own below `scratch`; takes one connection after the other. */
export async function startEcho(scratch) {
  const socket = join(scratch, 'echo.sock');
  const workers = new Set();
  const server = createServer({ pauseOnConnect: true }, async (connection) => {
    // The worker reads and writes the descriptor itself; Node never does, and closes it after the worker.
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

if (!isMainThread) {
  const { duplicate } = await import('../../dist/base/native.js');
  const { serveEcho } = await import('../../dist/wire/echo.js');
  serveEcho(duplicate(workerData.fd));
}
