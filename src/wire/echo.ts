/**
 * The floor under every round trip: sends back what it receives, over the same kind of socket and with the
 * same way of waiting as a session's loop, and does nothing else. For benchmarks.
 */
import { NativeBuffer, POLL, PollSet } from '../base/native.js';
import { FdSocket, RECEIVED } from './fd-socket.js';

const BUFFER_BYTES = 2 * 65536;
/** As in a session's loop: how often the socket is looked at again before the thread goes to sleep. */
export const SPINS = 4;
/** A thread that only waits cannot be ended; so it looks up now and then. */
const WAIT_MS = 500;

/** Echoes on `fd`, taken over, until the peer closes. Blocks its thread. */
export function serveEcho(fd: number): void {
  const socket = new FdSocket(fd);
  const buffer = new NativeBuffer(BUFFER_BYTES);
  const poll = new PollSet(1);
  poll.set(0, fd, POLL.IN);
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
