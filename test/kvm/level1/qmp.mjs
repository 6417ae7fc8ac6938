/** QEMU's monitor: one command at a time. */
import { createConnection } from 'node:net';
import { createInterface } from 'node:readline';

export class Qmp {
  #socket;
  #waiting = [];

  constructor(socket) {
    this.#socket = socket;
    socket.on('error', () => {});
    createInterface({ input: socket }).on('line', (line) => {
      const message = JSON.parse(line);
      if ('return' in message || 'error' in message) this.#waiting.shift()?.(message);
    });
  }

  static async open(path) {
    const socket = createConnection(path);
    await new Promise((done, failed) => socket.once('connect', done).once('error', failed));
    const qmp = new Qmp(socket);
    await qmp.run('qmp_capabilities');
    return qmp;
  }

  /** Resolves with what the command returns. */
  async run(execute, args = {}) {
    const answer = new Promise((done) => {
      this.#waiting.push(done);
    });
    this.#socket.write(`${JSON.stringify({ execute, arguments: args })}\n`);
    const { error, ...rest } = await answer;
    if (error !== undefined) throw new Error(`${execute}: ${error.desc}`);
    return rest.return;
  }

  close() {
    this.#socket.destroy();
  }
}
