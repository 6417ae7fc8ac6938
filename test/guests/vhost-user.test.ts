import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Daemon } from '../support/daemon.js';
import { Guest } from './support.js';
import { VhostUserDisk } from './vhost-user.js';
import { ViommuCommand, viommu, watchSummary } from './viommu.js';

/**
 * What traps stores to the tables of an assigned device is nothing that a vhost-user backend in the
 * same machine would notice: it maps guest RAM, and has room for few pieces of it.
 */

const TIMEOUT_MS = 300_000;
const MIB = 1 << 20;
/** More table pages, each by itself, than QEMU lets a vhost-user backend have pieces of RAM. */
const TABLES = 700;

let daemon: Daemon;
let disk: VhostUserDisk;

beforeAll(async () => {
  daemon = await Daemon.start();
  disk = await VhostUserDisk.start(64 * MIB);
});
afterAll(async () => {
  disk.dispose();
  await daemon.dispose();
});

describe('a Debian 6.12 arm64 guest with a vhost-user disk', () => {
  it(
    `has every byte right on it while an assigned device has ${TABLES} tables`,
    async () => {
      const name = 'vhost-user';
      const guest = Guest.boot({
        arch: 'arm64',
        series: '6.12',
        name,
        socket: daemon.socket,
        choice: {},
        append: [],
        jobs: ['vfio-tables'],
        parameters: { 'vfio-tables': TABLES, mib: 16 },
        module: true,
        vhostUserBlk: disk.socket,
        machine: {
          cpus: 2,
          network: false,
          testDevice: false,
          extra: ['-device', 'viommu-testdev,assigned=on'],
        },
        totalMs: TIMEOUT_MS,
      });
      let watch: ViommuCommand | undefined;
      try {
        // From before VFIO takes the device over.
        await guest.run.waitFor(/VIOMMU-GUEST: READY/);
        watch = new ViommuCommand(daemon, ['diff', '--watch', '--vm', name]);
        await guest.run.waitFor(/VIOMMU-GUEST: WAITING/);
        expect(Number(guest.run.value('vfio-tables', 'pages'))).toBe(TABLES);
        expect(await viommu(daemon, 'diff', '--vm', name)).toMatchObject({ code: 0 });
        guest.run.send('\n');
        await guest.run.waitFor(/VIOMMU-GUEST: vfio-tables state=done/);
        watch.interrupt();
        const { code, text } = await watch.end();
        const { completions, ...differences } = watchSummary(text);
        expect(differences, text).toEqual({ refused: 0, notInvalidated: 0, notFollowed: 0 });
        expect(code).toBe(0);
        // Each page that is taken away at the end is an invalidation of its own.
        expect(completions).toBeGreaterThanOrEqual(TABLES);
        guest.run.send('\n');
        expect((await guest.done()).stderr).toBe('');
        expect(guest.run.value('virtio-blk', 'same')).toBe('1');
        expect(disk.sum(16 * MIB)).toBe(guest.run.value('virtio-blk', 'written'));
        expect(guest.kernelFaults()).toEqual([]);
      } finally {
        watch?.interrupt();
        await guest.dispose();
      }
    },
    TIMEOUT_MS,
  );
});
