import { closeSync, openSync, writeSync } from 'node:fs';
import { resolve } from 'node:path';
import type { Arch } from './arch.js';
import type { CliContext } from './context.js';
import { CliError, EXIT } from './context.js';
import type { Daemon } from './daemon.js';
import { type DemoFlavour, demoFlavour } from './demo-arch.js';
import { ByteServer, type ServedTransfer } from './guest/byte-server.js';
import type { GuestRecord } from './guest/console.js';
import { sparseDisk } from './guest/disk.js';
import { MACHINE_DEFAULTS, machineArguments, type QemuMachine } from './guest/qemu-machine.js';
import { type GuestEnd, GuestRun } from './guest/run.js';
import { type GuestVerdict, judge } from './guest/verdict.js';
import { bridgePath, firmwarePath, kernelPaths, qemuPath } from './paths.js';
import { preloadEnvironment } from './qemu.js';
import { deviceOption } from './qemu-arguments.js';

export interface DemoGuestOptions {
  readonly arch?: Arch;
  readonly acpi?: boolean;
  readonly firmware?: string;
  readonly kernelVersion?: string;
  readonly mode?: 'legacy' | 'scalable';
  readonly strict?: boolean;
  readonly cachingMode?: boolean;
  readonly accel?: 'tcg' | 'kvm';
  readonly mib?: number;
  readonly qemu?: string;
  readonly kernel?: string;
  readonly initramfs?: string;
  readonly bridge?: string;
  readonly keepLog?: string;
  readonly verbose?: boolean;
}

/** How the demo's guest went. */
export interface DemoOutcome {
  readonly verdict: GuestVerdict;
  readonly end: GuestEnd;
  readonly release: string;
  /** Lines of the guest's IOMMU driver. */
  readonly driver: readonly string[];
  /** How the guest uses or finds the unit. */
  readonly how: string;
}

const JOBS = ['dmesg', 'nvme', 'virtio-blk', 'net'] as const;
const DEFAULT_MIB = 64;
const DEFAULT_SERIES = '6.12';
/** A job that moves data prints nothing until it is done. */
const QUIET_MS = 180_000;
const TOTAL_MS = 900_000;

/**
 * The demo's machine: an NVMe disk, a virtio-blk disk, e1000e and the test device behind the
 * external IOMMU.
 */
export class DemoGuest {
  readonly #context: CliContext;
  readonly #options: DemoGuestOptions;
  readonly #scratch: string;
  readonly #flavour: DemoFlavour;
  #run: GuestRun | undefined;
  #killed: string | undefined;

  /** @throws {CliError} for options that do not go together. */
  constructor(context: CliContext, options: DemoGuestOptions, scratch: string) {
    this.#context = context;
    this.#options = options;
    this.#flavour = demoFlavour(options);
    this.#scratch = scratch;
  }

  /** Boots, runs the jobs, waits for power-off, and judges. */
  async run(daemon: Daemon): Promise<DemoOutcome> {
    const { arch, unit } = this.#flavour;
    const bridge = bridgePath(this.#context, arch, this.#options.bridge);
    const program = qemuPath(this.#context, arch, this.#options.qemu);
    const server = await ByteServer.open();
    const log = this.#options.keepLog === undefined ? undefined : openSync(this.#options.keepLog, 'w', 0o644);
    try {
      const args = machineArguments(this.#machine(daemon.socket, server.port));
      if (this.#killed !== undefined) throw new CliError(this.#killed);
      this.#say(0, `${program} -device ${deviceOption(arch, daemon.socket, {})}`);
      daemon.onEvent((_vm, event) => {
        if (event.kind === 'hello') this.#say(this.#elapsed(), `${event.peer} connected to the daemon`);
        if (event.kind === 'enable')
          this.#say(this.#elapsed(), `${unit}: ${event.what} ${event.on ? 'on' : 'off'}`);
      });
      this.#started = this.#context.now();
      this.#run = GuestRun.start({
        program,
        args,
        env: preloadEnvironment(this.#context.env, bridge),
        quietMs: QUIET_MS,
        totalMs: TOTAL_MS,
        now: this.#context.now,
        onLine: (line, at) => {
          if (log !== undefined) writeSync(log, `${line}\n`);
          if (this.#options.verbose === true) this.#context.stdout.write(`           ${line}\n`);
          const version = /\] (Linux version \S+)/.exec(line)?.[1];
          if (version !== undefined && !line.includes('VIOMMU-GUEST'))
            this.#say(at, `guest kernel: ${version}`);
        },
        onRecord: (record, at) => this.#progress(record, at),
      });
      return this.#outcome(this.#run, await this.#run.end, server.transfers);
    } finally {
      if (log !== undefined) closeSync(log);
      await server.close();
    }
  }

  #started = 0;

  /** Ends QEMU, now or as soon as it would start. */
  async kill(reason: string): Promise<void> {
    this.#killed = reason;
    await this.#run?.kill(reason);
  }

  describe(what: string): string {
    return this.#run?.describe(what) ?? what;
  }

  #elapsed(): number {
    return this.#context.now() - this.#started;
  }

  #machine(socket: string, port: number): QemuMachine {
    const { kernel, initramfs, strict, accel, acpi, firmware } = this.#options;
    const { arch, choice, words } = this.#flavour;
    if ((kernel === undefined) !== (initramfs === undefined)) {
      throw new CliError('--kernel and --initramfs go together', EXIT.USAGE);
    }
    const mib = this.#options.mib ?? DEFAULT_MIB;
    const paths =
      kernel === undefined || initramfs === undefined
        ? kernelPaths(this.#context, arch, this.#options.kernelVersion ?? DEFAULT_SERIES)
        : { image: resolve(kernel), initramfs: resolve(initramfs) };
    return {
      ...MACHINE_DEFAULTS,
      arch,
      iommu: { kind: 'viommu', socket, choice: { name: 'demo', ...choice } },
      ...(acpi === true || firmware !== undefined ? { firmware: firmwarePath(this.#context, firmware) } : {}),
      kernel: paths.image,
      initramfs: paths.initramfs,
      append: [
        ...['loglevel=6', ...words, `iommu.strict=${strict === true ? 1 : 0}`],
        ...[`viommu.run=${JOBS.join(',')}`, `viommu.port=${port}`, `viommu.mib=${mib}`],
      ],
      memoryMib: 512 + 2 * mib,
      accelerator: accel ?? 'tcg',
      nvme: sparseDisk(this.#scratch, 'nvme', mib),
      virtioBlk: sparseDisk(this.#scratch, 'virtio', mib),
      network: true,
      testDevice: true,
    };
  }

  #progress(record: GuestRecord, at: number): void {
    const text = progressText(record, this.#flavour.driver);
    if (text !== undefined) this.#say(at, text);
  }

  #say(milliseconds: number, text: string): void {
    this.#context.stdout.write(`[${(milliseconds / 1000).toFixed(1).padStart(6)} s] ${text}\n`);
  }

  #outcome(run: GuestRun, end: GuestEnd, served: readonly ServedTransfer[]): DemoOutcome {
    return {
      verdict: judge(run, end, JOBS, served),
      end,
      release: run.value('boot', 'release') ?? 'unknown',
      driver: run.textOf('dmesg').filter((line) => this.#flavour.driver.test(line)),
      how: this.#flavour.how,
    };
  }
}

/** The line that a record adds to what a person sees; undefined: none. */
function progressText({ job, values, text }: GuestRecord, driver: RegExp): string | undefined {
  if (text !== undefined) {
    if (job === 'faults') return `guest kernel: ${text}`;
    return job === 'dmesg' && driver.test(text)
      ? `guest kernel: ${text.replace(/^\[[ .0-9]+\] /, '')}`
      : undefined;
  }
  if (job === 'READY') return 'guest: first line of user space';
  if ('disk' in values) {
    const mib = Number(values['bytes']) / 2 ** 20;
    const verdict = values['same'] === '1' ? 'equal' : 'DIFFERENT';
    return `${job}: ${mib} MiB written and read back (${values['disk']}), checksums ${verdict}`;
  }
  if ('direction' in values) {
    return `network ${values['direction']}: ${Number(values['bytes']) / 2 ** 20} MiB over e1000e, md5 ${values['md5']}`;
  }
  if (values['status'] !== undefined && values['status'] !== '0') {
    return `${job} failed ${values['reason'] ?? ''}`.trimEnd();
  }
  return undefined;
}
