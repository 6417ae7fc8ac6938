import { createHash } from 'node:crypto';
import {
  createReadStream,
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { requireFreshBridge } from '../../setup/build-stamp.mjs';
import type { Arch } from '../../src/cli/arch.js';
import { type KernelFault, parseKernelFaults } from '../../src/cli/guest/kernel-faults.js';
import {
  type GuestIommu,
  MACHINE_DEFAULTS,
  machineArguments,
  type QemuMachine,
} from '../../src/cli/guest/qemu-machine.js';
import { type GuestEnd, GuestRun } from '../../src/cli/guest/run.js';
import { type KernelPaths, preparedFile } from '../../src/cli/paths.js';
import type { DeviceChoice } from '../../src/cli/qemu-arguments.js';
import { endWithFile } from '../support/cleanup.js';
import { Progress } from './progress.js';

export type Series = '6.1' | '6.12';
export type { Arch };

/**
 * What the set-up prepared. A guest test without it fails: it never passes by having nothing to
 * run.
 */
interface Prepared {
  readonly qemu: string;
  /** The loader, or a bridge that the user brought. */
  readonly bridge: string;
  /** What the loader loads; absent when the user brought it. */
  readonly bridgeObject?: string;
  /** Hash of what it was built from; absent when the user brought it. */
  readonly bridgeSources?: string;
  readonly headers: string;
  /** Linux's headers that the bridge is compiled against. */
  readonly uapi: string;
  readonly firmware?: string;
  readonly kernels: Readonly<Record<Series, KernelPaths>>;
}

const ROOT = join(import.meta.dirname, '../..');

/** Parts whose bridge was compared with the sources. */
const fresh = new Set<string>();

/** @throws {Error} when nothing is prepared, or the bridge is one of other sources */
export function prepared(arch: Arch = 'amd64'): Prepared {
  const file = process.env['VIOMMU_PATHS'] ?? preparedFile(process.env, ROOT);
  if (!existsSync(file)) throw new Error(`nothing is prepared for guests (${file}): npm run setup`);
  const paths = JSON.parse(readFileSync(file, 'utf8')) as Prepared & { readonly arm64?: Prepared };
  const part = arch === 'amd64' ? paths : paths[arch];
  if (part?.qemu === undefined)
    throw new Error(`nothing is prepared for ${arch} guests (${file}): npm run setup`);
  if (!fresh.has(arch)) requireFreshBridge(ROOT, part.bridgeSources);
  fresh.add(arch);
  return part;
}

const MIB = 1 << 20;

/** How one guest is booted; see test/guests/image/README.md for jobs and parameters. */
export interface GuestOptions {
  /** amd64 unless it says otherwise. */
  readonly arch?: Arch;
  /** arm64: boots through UEFI firmware, and so with ACPI. */
  readonly acpi?: boolean;
  readonly series: Series;
  /** Name of the machine at the daemon. */
  readonly name: string;
  readonly socket: string;
  readonly choice: DeviceChoice;
  readonly append: readonly string[];
  readonly jobs: readonly string[];
  /** `viommu.NAME=VALUE` words. */
  readonly parameters?: Readonly<Record<string, string | number>>;
  /** With our kernel module and its programs (test/guests/module). */
  readonly module?: boolean;
  readonly machine?: Partial<QemuMachine>;
  /** Socket of a vhost-user backend whose disk is there instead of the virtio-blk one. */
  readonly vhostUserBlk?: string;
  /** Milliseconds for everything; default five minutes. */
  readonly totalMs?: number;
}

/** The initramfs and, behind it, the archive with our module: the kernel unpacks both. */
function withModule(kernel: KernelPaths, directory: string): string {
  if (kernel.module === undefined)
    throw new Error(`no module is built for Linux ${kernel.release}: npm run setup`);
  const whole = join(directory, 'initramfs');
  writeFileSync(whole, Buffer.concat([readFileSync(kernel.initramfs), readFileSync(kernel.module)]));
  return whole;
}

function vhostUserArguments(socket: string | undefined): string[] {
  if (socket === undefined) return [];
  return [
    '-chardev',
    `socket,id=vhost,path=${socket}`,
    '-device',
    'vhost-user-blk-pci,chardev=vhost,num-queues=1',
  ];
}

/** A guest with its disks, in a directory that {@link Guest.dispose} removes. */
export class Guest {
  readonly run: GuestRun;
  readonly #directory: string;
  readonly #progress: Progress;
  readonly #ended = endWithFile(() => this.dispose());

  private constructor(run: GuestRun, directory: string, progress: Progress) {
    this.run = run;
    this.#directory = directory;
    this.#progress = progress;
  }

  static boot(options: GuestOptions): Guest {
    const arch = options.arch ?? 'amd64';
    const { qemu, bridge, kernels, firmware } = prepared(arch);
    const directory = mkdtempSync(join(tmpdir(), 'viommu-guest-'));
    for (const disk of ['nvme', 'virtio']) {
      writeFileSync(join(directory, disk), '');
      truncateSync(join(directory, disk), 128 * MIB);
    }
    const kernel = kernels[options.series];
    const iommu: GuestIommu = {
      kind: 'viommu',
      socket: options.socket,
      choice: { ...options.choice, name: options.name },
    };
    const parameters = Object.entries(options.parameters ?? {}).map(
      ([key, value]) => `viommu.${key}=${value}`,
    );
    const args = machineArguments({
      ...MACHINE_DEFAULTS,
      arch,
      iommu,
      ...(options.acpi === true && firmware !== undefined ? { firmware } : {}),
      kernel: kernel.image,
      initramfs: options.module === true ? withModule(kernel, directory) : kernel.initramfs,
      nvme: join(directory, 'nvme'),
      ...(options.vhostUserBlk === undefined ? { virtioBlk: join(directory, 'virtio') } : {}),
      network: true,
      testDevice: true,
      ...options.machine,
      extra: [...(options.machine?.extra ?? []), ...vhostUserArguments(options.vhostUserBlk)],
      append: [...options.append, `viommu.run=${options.jobs.join(',')}`, ...parameters],
    });
    const run = GuestRun.start({
      program: qemu,
      args,
      env: { ...process.env, LD_PRELOAD: bridge },
      quietMs: 90_000,
      totalMs: options.totalMs ?? 300_000,
      now: () => performance.now(),
    });
    const progress = new Progress(`${options.socket}.ctl`, options.name, () => run.atWork());
    return new Guest(run, directory, progress);
  }

  /**
   * Waits for QEMU's end; throws with the console's last lines unless the guest's jobs all went
   * well.
   */
  async done(): Promise<GuestEnd> {
    const end = await this.run.end;
    const status = this.run.value('DONE', 'status');
    if (end.exitCode !== 0 || end.killed !== undefined || status !== '0') {
      throw new Error(
        this.run.describe(
          `the guest failed: ${end.killed ?? `exit ${end.exitCode}, status ${status}`}; counters: ${this.#progress.counters}`,
        ),
      );
    }
    return end;
  }

  /** DMA faults that the guest's kernel logged. */
  kernelFaults(): KernelFault[] {
    return parseKernelFaults(this.run.textOf('faults'));
  }

  /** MD5 of the first `bytes` of a disk, as they lie on the host. */
  async diskSum(disk: 'nvme' | 'virtio', bytes: number): Promise<string> {
    const hash = createHash('md5');
    for await (const chunk of createReadStream(join(this.#directory, disk), { end: bytes - 1 })) {
      hash.update(chunk as Buffer);
    }
    return hash.digest('hex');
  }

  async dispose(): Promise<void> {
    this.#progress.stop();
    await this.run.kill('test is over');
    rmSync(this.#directory, { recursive: true, force: true });
    this.#ended();
  }
}
