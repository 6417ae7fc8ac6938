import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { endWithFile } from '../support/cleanup.js';
import { BatchAnswers, dumpSizes, encode, type Operation } from './operations.js';

const SHIM = fileURLToPath(new URL('../shim', import.meta.url));
const ANSWER_MS = 60_000;

export type Target = 'x86_64' | 'aarch64';

/** Thrown when QEMU ended in the middle of a batch: what it said last. */
export class StockDied extends Error {}

/** Compiles the shim for one target. @returns path of the object */
export function buildShim(target: Target, headers: string, out: string): string {
  const args = ['-s', '-C', SHIM, `TARGET=${target}`, `QEMU_HEADERS=${headers}`, `OUT=${out}`];
  execFileSync('make', args, { stdio: ['ignore', 'inherit', 'inherit'] });
  return join(out, `viommu-shim-${target}.so`);
}

interface StockOptions {
  readonly qemu: string;
  /** The shim's object. */
  readonly shim: string;
  /** The machine and its IOMMU. */
  readonly args: readonly string[];
}

/**
 * A stock QEMU under -S with the shim loaded. Its guest never runs: RAM and registers hold what
 * {@link run} stored. It has a PCIe root port whose bus is requesters' second one.
 */
export class StockMachine {
  readonly #child: ChildProcess;
  readonly #directory: string;
  readonly #exited: Promise<void>;
  readonly #ended = endWithFile(() => this.stop());
  #socket: Socket | undefined;
  #text = '';
  #received: Buffer[] = [];
  #wake: () => void = () => {};
  #over = false;

  private constructor({ qemu, shim, args }: StockOptions) {
    this.#directory = mkdtempSync(join(tmpdir(), 'viommu-oracle-'));
    this.#child = spawn(
      qemu,
      [
        ...args,
        ...['-accel', 'tcg', '-S', '-nodefaults', '-display', 'none'],
        ...['-device', 'pcie-root-port,id=below,slot=1,chassis=1'],
        ...['-device', `viommu-shim,control=${this.#control},bridge=/machine/peripheral/below`],
      ],
      { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, LD_PRELOAD: shim } },
    );
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      stream?.on('data', (data: Buffer) => {
        this.#text = (this.#text + data.toString()).slice(-4000);
      });
    }
    this.#exited = new Promise((resolve) => {
      const over = (): void => {
        this.#over = true;
        this.#wake();
        resolve();
      };
      this.#child.once('close', over);
      this.#child.once('error', (error) => {
        this.#text += error.message;
        over();
      });
    });
  }

  get #control(): string {
    return join(this.#directory, 'control');
  }

  static async start(options: StockOptions): Promise<StockMachine> {
    const machine = new StockMachine(options);
    try {
      await machine.#connect();
      return machine;
    } catch (error) {
      await machine.stop();
      throw error;
    }
  }

  async #connect(): Promise<void> {
    const server = createServer((socket) => {
      this.#socket = socket;
      socket.on('data', (data: Buffer) => {
        this.#received.push(data);
        this.#wake();
      });
      socket.on('error', () => {});
      this.#wake();
    });
    await new Promise<void>((resolve) => server.listen(this.#control, resolve));
    try {
      await this.#until(() => this.#socket !== undefined);
    } finally {
      server.close();
    }
    if ((await this.#line()) !== 'ready') throw new Error('the shim is not ready');
    this.#socket?.write('oracle\n');
    const answer = await this.#line();
    if (answer !== 'ok') throw new Error(`the shim: ${answer}`);
  }

  /** Runs a batch. Throws {@link StockDied} when QEMU did not survive it. */
  async run(operations: readonly Operation[]): Promise<BatchAnswers> {
    this.#socket?.write(encode(operations));
    const size = (await this.#take(4)).readUInt32LE(0);
    return new BatchAnswers(await this.#take(size), dumpSizes(operations));
  }

  /** Ends QEMU: it goes when its commands' socket closes. */
  async stop(): Promise<void> {
    this.#socket?.destroy();
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), this.#socket === undefined ? 0 : 5000);
    await this.#exited;
    clearTimeout(timer);
    rmSync(this.#directory, { recursive: true, force: true });
    this.#ended();
  }

  async #line(): Promise<string> {
    let text = '';
    for (;;) {
      const byte = (await this.#take(1)).toString();
      if (byte === '\n') return text;
      text += byte;
    }
  }

  async #take(bytes: number): Promise<Buffer> {
    const ready = (): boolean => this.#received.reduce((sum, { length }) => sum + length, 0) >= bytes;
    await this.#until(ready);
    const all = Buffer.concat(this.#received);
    this.#received = all.length === bytes ? [] : [all.subarray(bytes)];
    return all.subarray(0, bytes);
  }

  async #until(ready: () => boolean): Promise<void> {
    const deadline = performance.now() + ANSWER_MS;
    while (!ready()) {
      if (this.#over) throw new StockDied(this.#text.trim());
      if (performance.now() > deadline) throw new Error(`QEMU does not answer: ${this.#text}`);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, 1000);
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }
}
