import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { createConnection, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Arch, prepared } from '../guests/support.js';
import { endWithFile } from '../support/cleanup.js';
import { eventually } from '../support/daemon.js';

/** The machine and our device, by the guest's architecture. */
const MACHINES = {
  amd64: { machine: 'q35', device: 'viommu-vtd' },
  arm64: { machine: 'virt,gic-version=3', device: 'viommu-smmuv3' },
} as const satisfies Record<Arch, { machine: string; device: string }>;

/**
 * A QEMU with the bridge. A PC's firmware tries to boot from an NVMe disk: DMA, without any guest.
 */
export class BridgeQemu {
  readonly exited: Promise<number>;
  readonly socket: string;
  /** QEMU arguments for another IOMMU than ours. */
  foreignIommu: readonly string[] | undefined;
  #text = '';
  readonly #directory: string;
  readonly #ended = endWithFile(() => this.dispose());
  #process: ChildProcess | undefined;
  #qmp: Socket | undefined;
  #answers = '';
  #resolve: (code: number) => void = () => undefined;

  readonly #arch: Arch;

  /** Nothing runs before {@link start}; `socket` is where its daemon has to listen. */
  constructor(arch: Arch = 'amd64') {
    this.#arch = arch;
    this.#directory = mkdtempSync(join(tmpdir(), 'viommu-bridge-'));
    this.socket = join(this.#directory, 'daemon.sock');
    this.exited = new Promise((resolve) => {
      this.#resolve = resolve;
    });
  }

  /** A path of this machine's own, for a socket. */
  path(name: string): string {
    return join(this.#directory, name);
  }

  /** What QEMU said. */
  get text(): string {
    return this.#text;
  }

  /**
   * @param machine default: the one that the device needs
   * @param probe what qemu-bridge/test/notifier-probe.c or host-probe.c asks for, and its object;
   * `first`: loaded before the bridge
   */
  start(
    options = '',
    extra: readonly string[] = [],
    probe?: { readonly asks: string; readonly object: string; readonly first?: boolean },
    machine: string = MACHINES[this.#arch].machine,
  ): void {
    const { qemu, bridge } = prepared(this.#arch);
    const { device } = MACHINES[this.#arch];
    const disk = join(this.#directory, 'disk');
    writeFileSync(disk, '');
    truncateSync(disk, 1 << 20);
    const env =
      probe === undefined
        ? { ...process.env, LD_PRELOAD: bridge }
        : {
            ...process.env,
            LD_PRELOAD: probe.first ? `${probe.object}:${bridge}` : `${bridge}:${probe.object}`,
            VIOMMU_PROBE: probe.asks,
          };
    const child = spawn(
      qemu,
      [
        ...['-machine', `${machine},accel=tcg,memory-backend=ram0`, '-m', '128,slots=1,maxmem=512M'],
        ...['-object', 'memory-backend-memfd,id=ram0,size=128M,share=on', '-nodefaults', '-display', 'none'],
        ...(this.foreignIommu ?? ['-device', `${device},socket=${this.socket},name=bridge-test${options}`]),
        ...['-drive', `if=none,id=disk,file=${disk},format=raw`, '-device', 'nvme,drive=disk,serial=x'],
        ...['-qmp', `unix:${join(this.#directory, 'qmp')},server=on,wait=off`, ...extra],
      ],
      { env, stdio: ['ignore', 'pipe', 'pipe'] },
    );
    for (const stream of [child.stdout, child.stderr]) {
      stream.on('data', (data: Buffer) => {
        this.#text += data.toString();
      });
    }
    child.on('close', (code) => this.#resolve(code ?? -1));
    this.#process = child;
  }

  /** Runs a monitor command; the answer shows that the main loop and its lock are free. */
  async command(execute: string, args: object = {}): Promise<unknown> {
    const qmp = await this.#monitor();
    this.#answers = '';
    qmp.write(`${JSON.stringify({ execute, arguments: args })}\n`);
    const answer = (): Record<string, unknown> | undefined =>
      this.#answers
        .split('\n')
        .filter((line) => line.endsWith('}') || line.endsWith('}\r'))
        .map((line) => JSON.parse(line) as Record<string, unknown>)
        .find((message) => 'return' in message || 'error' in message);
    const message = await eventually(answer, `the monitor's answer to ${execute}`, 5000);
    if ('error' in message) throw new Error(JSON.stringify(message['error']));
    return message['return'];
  }

  /** `quit`, and the exit code. A QEMU that hangs fails here. */
  async quit(): Promise<number> {
    await this.command('quit');
    const late = new Promise<never>((_, reject) => {
      setTimeout(() => reject(new Error(`QEMU does not end: ${this.#text}`)), 5000).unref();
    });
    return Promise.race([this.exited, late]);
  }

  kill(): void {
    this.#process?.kill('SIGKILL');
  }

  dispose(): void {
    this.#qmp?.destroy();
    this.kill();
    rmSync(this.#directory, { recursive: true, force: true });
    this.#ended();
  }

  async #monitor(): Promise<Socket> {
    if (this.#qmp !== undefined) return this.#qmp;
    const path = join(this.#directory, 'qmp');
    const connect = (): Promise<Socket | undefined> =>
      new Promise((resolve) => {
        const socket = createConnection(path, () => resolve(socket));
        socket.on('error', () => resolve(undefined));
      });
    let socket: Socket | undefined;
    for (let tries = 0; tries < 100 && socket === undefined; tries++) {
      socket = await connect();
      if (socket === undefined) await new Promise((wake) => setTimeout(wake, 50));
    }
    if (socket === undefined) throw new Error(`no monitor: ${this.#text}`);
    socket.on('data', (data: Buffer) => {
      this.#answers += data.toString();
    });
    this.#qmp = socket;
    await this.command('qmp_capabilities');
    return socket;
  }
}
