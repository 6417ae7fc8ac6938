import { type ChildProcess, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { eventually } from '../support/daemon.js';
import { prepared } from './support.js';

/**
 * A disk served by vhost-user-blk: a backend in a process of its own that maps the guest's memory,
 * as DPDK or a storage daemon does. It is a stock QEMU without a machine, because Debian packages
 * no `qemu-storage-daemon`.
 */
export class VhostUserDisk {
  readonly socket: string;
  readonly #directory: string;
  readonly #process: ChildProcess;
  #said = '';

  private constructor(bytes: number) {
    this.#directory = mkdtempSync(join(tmpdir(), 'viommu-vhost-user-'));
    this.socket = join(this.#directory, 'disk.sock');
    writeFileSync(this.#file, '');
    truncateSync(this.#file, bytes);
    const disk = `driver=file,node-name=disk,filename=${this.#file}`;
    const args = ['-machine', 'none', '-nodefaults', '-display', 'none', '-blockdev', disk, '-qmp', 'stdio'];
    this.#process = spawn(prepared('arm64').qemu, args, { stdio: ['pipe', 'pipe', 'inherit'] });
    this.#process.stdout?.on('data', (data: Buffer) => {
      this.#said += data.toString();
    });
  }

  static async start(bytes: number): Promise<VhostUserDisk> {
    const disk = new VhostUserDisk(bytes);
    await disk.#command('qmp_capabilities');
    const addr = { type: 'unix', path: disk.socket };
    await disk.#command('block-export-add', {
      type: 'vhost-user-blk',
      id: 'export',
      'node-name': 'disk',
      writable: true,
      addr,
    });
    return disk;
  }

  get #file(): string {
    return join(this.#directory, 'disk');
  }

  /** MD5 of the first `bytes`. */
  sum(bytes: number): string {
    return createHash('md5').update(readFileSync(this.#file).subarray(0, bytes)).digest('hex');
  }

  dispose(): void {
    this.#process.kill('SIGKILL');
    rmSync(this.#directory, { recursive: true, force: true });
  }

  async #command(execute: string, args: object = {}): Promise<void> {
    this.#said = '';
    this.#process.stdin?.write(`${JSON.stringify({ execute, arguments: args })}\n`);
    await eventually(() => /"(return|error)":/.test(this.#said), `an answer to ${execute}`);
    if (this.#said.includes('"error":')) throw new Error(`${execute}: ${this.#said}`);
  }
}
