import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ByteServer } from '../../src/cli/guest/byte-server.js';
import { Daemon } from '../support/daemon.js';
import { titled } from '../support/titled.js';
import { Guest, type Series } from './support.js';
import { shareInQemu } from './viommu.js';

/**
 * Unmodified Debian kernels on the external VT-d: disks and network through it with checksums, no
 * fault of their own, and two deliberate stray DMAs, the same one twice, of which each must appear
 * once in the guest's log as what it is.
 */

const MIB = 1 << 20;
const DISK_BYTES = 32 * MIB;
const NET_MIB = 8;
const STRAY = 0xdead0000;
/** Much more than a guest needs, even on a machine that does other things. */
const TIMEOUT_MS = 320_000;

interface Mode {
  readonly name: string;
  readonly scalable: boolean;
  readonly words: readonly string[];
  /** Fault reasons of a read and of a write where nothing is mapped. */
  readonly read: number;
  readonly write: number;
}

const MODES: readonly Mode[] = [
  // LGN: the second stage's entry lacks the right that the request needs.
  { name: 'legacy', scalable: false, words: ['intel_iommu=on,sm_off'], read: 0x06, write: 0x05 },
  // SFS.2: Linux gives devices a first stage in scalable mode; its entry is not present.
  { name: 'scalable', scalable: true, words: ['intel_iommu=on,sm_on'], read: 0x71, write: 0x71 },
];

let daemon: Daemon;
let server: ByteServer;

beforeAll(async () => {
  daemon = await Daemon.start();
  server = await ByteServer.open();
});

afterAll(async () => {
  await server.close();
  await daemon.dispose();
});

describe.each(['6.1', '6.12'] as const)('Debian %s', (series: Series) => {
  describe.each(titled(MODES, ({ name }) => `${name} mode`))('%s', (_title, mode) => {
    it.each(
      titled(
        [
          { policy: 'strict', direction: 'read' as const },
          { policy: 'lazy', direction: 'write' as const },
        ],
        ({ policy, direction }) => `${policy} invalidation: disks, network, stray ${direction}`,
      ),
    )(
      '%s',
      async (_title, { policy, direction }) => {
        const before = server.transfers.length;
        // One of the two kernels has the daemon complete every invalidation.
        const queues = series === '6.1' ? 'off' : 'on';
        const name = `${series}-${mode.name}-${policy}`;
        const guest = Guest.boot({
          series,
          name,
          socket: daemon.socket,
          choice: { scalableMode: mode.scalable, properties: { queues } },
          append: [...mode.words, `iommu.strict=${policy === 'strict' ? 1 : 0}`],
          jobs: ['dmesg', 'nvme', 'virtio-blk', 'net', 'stray'],
          parameters: {
            mib: DISK_BYTES / MIB,
            port: server.port,
            'net-mib': NET_MIB,
            stray: `0x${STRAY.toString(16)},0x${STRAY.toString(16)}`,
            // QEMU makes it in sixteen pieces.
            length: 64,
            'stray-direction': direction,
          },
        });
        try {
          await guest.done();
          const { run } = guest;

          const said = run.textOf('dmesg').join('\n');
          expect(said).toContain('DMAR: Intel(R) Virtualization Technology for Directed I/O');
          expect(said).toContain(`DMA domain TLB invalidation policy: ${policy} mode`);

          for (const [job, disk] of [
            ['nvme', 'nvme'],
            ['virtio-blk', 'virtio'],
          ] as const) {
            expect(run.value(job, 'bytes')).toBe(String(DISK_BYTES));
            expect(run.value(job, 'read')).toBe(run.value(job, 'written'));
            expect(await guest.diskSum(disk, DISK_BYTES)).toBe(run.value(job, 'written'));
          }

          const transfers = server.transfers.slice(before);
          expect(transfers.map(({ direction: way, bytes }) => [way, bytes])).toEqual([
            ['down', NET_MIB * MIB],
            ['up', NET_MIB * MIB],
          ]);
          const moved = run.of('net').filter(({ values }) => 'direction' in values);
          expect(moved.map(({ values }) => values['md5'])).toEqual(transfers.map(({ md5 }) => md5));

          const device = run.value('stray', 'device') ?? '';
          const faults = guest.kernelFaults();
          expect(faults).toHaveLength(2);
          for (const fault of faults) {
            expect(fault).toMatchObject({
              operation: direction,
              device: device.replace(/^0000:/, ''),
              reason: mode[direction],
            });
            expect(Number(fault.address)).toBe(STRAY);
          }
          expect(run.value('stray', 'fault')).toBe(`0x${STRAY.toString(16)}`);
        } finally {
          await guest.dispose();
        }
        const share = await shareInQemu(daemon, name);
        if (queues === 'off') expect(share).toBe(0);
        // Lazy invalidations name domains or everything.
        else if (policy === 'strict') expect(share).toBeGreaterThan(0.9);
      },
      TIMEOUT_MS,
    );
  });
});
