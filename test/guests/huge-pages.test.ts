import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { HUGE_PAGE, HugePages, hugePagesOrWhy } from '../../src/base/testing/huge-pages.js';
import { Daemon, eventually } from '../support/daemon.js';
import { titled } from '../support/titled.js';
import { Guest, type GuestOptions } from './support.js';
import { viommu } from './viommu.js';

/**
 * Debian guests whose RAM is in huge pages, as DPDK, vhost-user and libvirt's <hugepages/> have it.
 */

const TIMEOUT_MS = 600_000;
const MIB = 1 << 20;
const MEMORY_MIB = 512;
const DISK_MIB = 8;
/** Beside the guest's own. */
const SPARE = 8;

let reserved: HugePages | string;
let free = 0;
let daemon: Daemon;
let directory: string;
/** Why there is no file system of huge pages, where there is none. */
let unmounted = '';

beforeAll(async () => {
  daemon = await Daemon.start();
  reserved = hugePagesOrWhy((MEMORY_MIB * MIB) / HUGE_PAGE + SPARE);
  free = HugePages.free;
  directory = mkdtempSync(join(tmpdir(), 'viommu-hugetlbfs-'));
  const mount = spawnSync('mount', ['-t', 'hugetlbfs', '-o', 'pagesize=2M', 'none', directory]);
  if (mount.status !== 0) unmounted = `no hugetlbfs for this test: ${mount.error?.message ?? mount.stderr}`;
  if (unmounted !== '') console.log(unmounted);
});
afterAll(async () => {
  if (unmounted === '') spawnSync('umount', [directory]);
  rmSync(directory, { recursive: true, force: true });
  if (typeof reserved !== 'string') reserved.release();
  await daemon.dispose();
});

/** What has gone wrong or was left behind is in the log, or not free. */
afterEach(async () => {
  await eventually(() => HugePages.free === free, 'the huge pages to be free', 30_000);
  expect(daemon.running).toBe(true);
  expect(daemon.text()).not.toContain('cannot be mapped');
});

interface Case {
  readonly what: string;
  readonly arch: 'amd64' | 'arm64';
  readonly backend: () => string;
  readonly given: Partial<GuestOptions>;
}

const cases: readonly Case[] = [
  {
    what: 'amd64, memory-backend-memfd with hugetlb=on, legacy mode',
    arch: 'amd64',
    backend: () => 'memory-backend-memfd,hugetlb=on,hugetlbsize=2M,share=on',
    given: { append: ['intel_iommu=on'] },
  },
  {
    what: 'amd64, memory-backend-file in a hugetlbfs, scalable mode',
    arch: 'amd64',
    backend: () => `memory-backend-file,mem-path=${directory},share=on`,
    given: { append: ['intel_iommu=on,sm_on'], choice: { scalableMode: true } },
  },
  {
    what: 'arm64, memory-backend-memfd with hugetlb=on',
    arch: 'arm64',
    backend: () => 'memory-backend-memfd,hugetlb=on,hugetlbsize=2M,share=on',
    given: { append: ['iommu.strict=1'] },
  },
];

describe('a Debian guest in huge pages', () => {
  it.for(
    titled(
      cases,
      ({ what }) => `${what}: disks and network with right sums, and all pages free when it has gone`,
    ),
  )('%s', { timeout: TIMEOUT_MS }, async ([, { what, arch, backend, given }], context) => {
    const missing = typeof reserved === 'string' ? reserved : what.includes('hugetlbfs') ? unmounted : '';
    if (missing !== '') context.skip(missing);
    const name = `huge-${arch}`;
    const guest = Guest.boot({
      series: '6.12',
      arch,
      name,
      socket: daemon.socket,
      choice: {},
      append: [],
      jobs: ['dmesg', 'nvme', 'virtio-blk', 'net'],
      parameters: { mib: DISK_MIB, 'net-mib': 1 },
      machine: { memoryMib: MEMORY_MIB, memoryBackend: backend() },
      totalMs: TIMEOUT_MS - 60_000,
      ...given,
    });
    try {
      await guest.run.waitFor(/VIOMMU-GUEST: nvme/);
      expect(HugePages.free).toBe(SPARE);
      const report = JSON.parse((await viommu(daemon, 'report', '--vm', name)).text) as object;
      expect(report).toMatchObject({ report: { counters: { faults: 0 } } });
      await guest.done();
      for (const [job, disk] of [
        ['nvme', 'nvme'],
        ['virtio-blk', 'virtio'],
      ] as const) {
        expect(guest.run.value(job, 'read')).toBe(guest.run.value(job, 'written'));
        expect(await guest.diskSum(disk, DISK_MIB * MIB)).toBe(guest.run.value(job, 'written'));
      }
      expect(guest.kernelFaults()).toEqual([]);
    } finally {
      await guest.dispose();
    }
  });
});
