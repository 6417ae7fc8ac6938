import type { ServedTransfer } from './byte-server.js';
import { type KernelFault, parseKernelFaults } from './kernel-faults.js';
import type { GuestEnd, GuestRun } from './run.js';

/** What a guest run showed, judged. */
export interface GuestVerdict {
  /** Why the run is no success; empty when it is one. */
  readonly problems: readonly string[];
  readonly disks: readonly DiskResult[];
  readonly transfers: readonly NetResult[];
  /** DMA faults in the kernel's log. */
  readonly faults: readonly KernelFault[];
  /** Bytes that devices read or wrote for jobs whose sums agreed, both directions. */
  readonly bytesMoved: number;
}

interface DiskResult {
  readonly job: string;
  readonly disk: string;
  readonly bytes: number;
  readonly md5: string;
  readonly same: boolean;
  readonly writeSeconds: number;
  readonly readSeconds: number;
}

interface NetResult {
  readonly direction: string;
  readonly bytes: number;
  readonly md5: string;
  /** The guest's sum is the host's. */
  readonly same: boolean;
  readonly seconds: number;
}

const DISK_JOBS = ['nvme', 'virtio-blk'];

/**
 * Judges a run that has ended: every job done, every checksum equal (also between guest and host),
 * no fault, QEMU's exit code 0.
 * @param jobs names of the jobs that were asked for
 * @param served what the host's server saw
 */
export function judge(
  run: GuestRun,
  end: GuestEnd,
  jobs: readonly string[],
  served: readonly ServedTransfer[],
): GuestVerdict {
  const problems: string[] = [];
  if (end.killed !== undefined) problems.push(`the guest did not finish: ${end.killed}`);
  else if (end.exitCode !== 0) problems.push(`QEMU ended with ${end.signal ?? `exit code ${end.exitCode}`}`);
  for (const job of jobs) {
    const status = run.value(job, 'status');
    if (status === '0') continue;
    const reason = run.value(job, 'reason');
    problems.push(
      status === undefined ? `job ${job} did not end` : `job ${job} failed${reason ? `: ${reason}` : ''}`,
    );
  }
  const disks = DISK_JOBS.filter((job) => jobs.includes(job)).flatMap((job) => diskResults(run, job));
  for (const { job, same } of disks) if (!same) problems.push(`${job}: what was read back differs`);
  const transfers = netResults(run, served);
  for (const { direction, same } of transfers) {
    if (!same) problems.push(`network ${direction}: guest and host have different checksums`);
  }
  const faults = parseKernelFaults(run.textOf('faults'));
  const count = run.value('faults', 'count');
  if (count !== '0')
    problems.push(
      count === undefined
        ? 'the guest did not count its DMA faults'
        : `${count} DMA fault(s) in the guest's log`,
    );
  const bytesMoved =
    disks.reduce((sum, { bytes, same }) => sum + (same ? 2 * bytes : 0), 0) +
    transfers.reduce((sum, { bytes, same }) => sum + (same ? bytes : 0), 0);
  return { problems, disks, transfers, faults, bytesMoved };
}

function diskResults(run: GuestRun, job: string): DiskResult[] {
  return run
    .of(job)
    .filter(({ values }) => 'disk' in values)
    .map(({ values }) => ({
      job,
      disk: values['disk'] ?? '',
      bytes: Number(values['bytes']),
      md5: values['read'] ?? '',
      same: values['same'] === '1' && values['written'] === values['read'] && Number(values['bytes']) > 0,
      writeSeconds: Number(values['write_seconds']),
      readSeconds: Number(values['read_seconds']),
    }));
}

/**
 * Both sides' sums of a transfer must agree: the guest alone could agree with itself on wrong
 * bytes.
 */
function netResults(run: GuestRun, served: readonly ServedTransfer[]): NetResult[] {
  return run
    .of('net')
    .filter(({ values }) => 'direction' in values)
    .map(({ values }) => {
      const { direction = '', md5 = '' } = values;
      const bytes = Number(values['bytes']);
      const same = served.some(
        (one) => one.direction === direction && one.md5 === md5 && one.bytes === bytes,
      );
      return { direction, bytes, md5, same, seconds: Number(values['seconds']) };
    });
}
