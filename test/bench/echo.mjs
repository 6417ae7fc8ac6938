/**
 * The floor of a round trip to the daemon: a worker that waits as the daemon's engine waits, takes frames from
 * a socket as it takes them, and sends each back as it came. No codec, no model.
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

async function serve(fd) {
  const { Channel, FILL } = await import('../../dist/wire/channel.js');
  const { HEADER_BYTES } = await import('../../dist/wire/frame.js');
  const { duplicate, POLL, PollSet } = await import('../../dist/base/native.js');
  const channel = new Channel(duplicate(fd));
  const poll = new PollSet(1);
  poll.set(0, channel.fd, POLL.IN);
  for (;;) {
    poll.wait(-1);
    if (channel.fill() === FILL.CLOSED) break;
    const { frame, bytes } = channel;
    while (channel.next()) channel.putRaw(bytes.subarray(frame.start - HEADER_BYTES, frame.end));
    channel.flush();
  }
  channel.close();
}

if (!isMainThread) await serve(workerData.fd);
