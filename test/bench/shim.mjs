/**
 * A QEMU under -S with the stop watch loaded: one IOMMU, one PCI device, commands over a socket.
 */

import { execFileSync, spawn } from 'node:child_process';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { track } from './children.mjs';

const COMMAND_TIMEOUT_MS = 120_000;

const SOURCES = fileURLToPath(new URL('../shim', import.meta.url));

/** Compiles the stop watch for a unit's QEMU. Returns its path. */
export function buildShim({ target }, part, scratch) {
  const args = ['-s', '-C', SOURCES, `QEMU_HEADERS=${part.headers}`, `OUT=${scratch}`];
  execFileSync('make', [...args, `TARGET=${target}`], { stdio: ['ignore', 2, 2] });
  return join(scratch, `viommu-shim-${target}.so`);
}

/** Lines of one connection, one at a time. */
class Lines {
  #buffer = '';
  #lines = [];
  #waiting = undefined;

  constructor(socket) {
    socket.setEncoding('utf8');
    socket.on('data', (text) => this.#take(text));
    socket.on('close', () => this.fail(new Error('QEMU closed the control socket')));
    socket.on('error', (error) => this.fail(error));
  }

  #take(text) {
    this.#buffer += text;
    for (let end = this.#buffer.indexOf('\n'); end >= 0; end = this.#buffer.indexOf('\n')) {
      this.#lines.push(this.#buffer.slice(0, end));
      this.#buffer = this.#buffer.slice(end + 1);
    }
    if (this.#waiting && this.#lines.length > 0) this.#waiting.resolve(this.#lines.shift());
  }

  fail(error) {
    this.#waiting?.reject(error);
  }

  next() {
    if (this.#lines.length > 0) return Promise.resolve(this.#lines.shift());
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error('no answer from the shim')), COMMAND_TIMEOUT_MS);
      const done = (settle) => (value) => {
        clearTimeout(timer);
        this.#waiting = undefined;
        settle(value);
      };
      this.#waiting = { resolve: done(resolve), reject: done(reject) };
    });
  }
}

export class ShimMachine {
  #child;
  #socket;
  #lines;

  constructor(child, socket) {
    this.#child = child;
    this.#socket = socket;
    this.#lines = new Lines(socket);
  }

  /**
   * Starts QEMU with the machine and the IOMMU of one side.
   * @param {{
   *   qemu: string, preload: string[], side: import('./units.mjs').Side,
   *   scratch: string, name: string, memory?: string
   * }} options
   */
  static async start({ qemu, preload, side, scratch, name, memory = '256M' }) {
    const control = join(scratch, `${name}.control`);
    const server = createServer();
    await new Promise((resolve) => server.listen(control, resolve));
    const connected = new Promise((resolve) => server.once('connection', resolve));
    const child = track(
      spawn(
        qemu,
        [
          ...[
            '-machine',
            `${side.machine},memory-backend=ram0`,
            '-accel',
            'tcg',
            '-S',
            '-nodefaults',
            '-display',
            'none',
          ],
          ...['-object', `memory-backend-memfd,id=ram0,size=${memory},share=on`, '-m', memory],
          ...[...side.iommu, '-device', 'edu,id=target'],
          ...['-device', `viommu-shim,control=${control},target=/machine/peripheral/target`],
        ],
        { stdio: ['ignore', 'inherit', 'inherit'], env: { ...process.env, LD_PRELOAD: preload.join(':') } },
      ),
    );
    const died = new Promise((_, reject) => {
      child.once('error', reject);
      child.once('exit', (code, signal) =>
        reject(new Error(`${name}: QEMU ended before it was ready (${signal ?? code})`)),
      );
    });
    died.catch(() => {});
    try {
      const machine = new ShimMachine(child, await Promise.race([connected, died]));
      await Promise.race([machine.#lines.next(), died]);
      return machine;
    } finally {
      server.close();
    }
  }

  /** Sends a command; resolves with the numbers after `ok`, rejects with the text after `error`. */
  async command(line) {
    this.#socket.write(`${line}\n`);
    const answer = await this.#lines.next();
    if (!answer.startsWith('ok')) throw new Error(`${line}: ${answer.replace(/^error /, '')}`);
    return answer
      .slice(2)
      .trim()
      .split(' ')
      .filter((word) => word !== '')
      .map(Number);
  }

  /** A timing command's answer by name, in nanoseconds. */
  async time(line) {
    const [min, median, p90, mean, count] = await this.command(line);
    return { min, median, p90, mean, count };
  }

  /** Ends QEMU: it goes when its commands' socket closes. */
  stop() {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return Promise.resolve();
    return new Promise((resolve) => {
      const timer = setTimeout(() => this.#child.kill('SIGKILL'), 5000);
      this.#child.once('exit', () => {
        clearTimeout(timer);
        resolve();
      });
      this.#socket.destroy();
    });
  }
}
