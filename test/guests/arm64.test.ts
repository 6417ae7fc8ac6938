import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ByteServer } from '../../src/cli/guest/byte-server.js';
import { EVENT } from '../../src/spec/smmuv3/events.js';
import { Daemon } from '../support/daemon.js';
import { titled } from '../support/titled.js';
import { Guest, type GuestOptions } from './support.js';
import { shareInQemu } from './viommu.js';

/**
 * Unmodified Debian arm64 kernels on the external SMMUv3, found in the device tree or in ACPI's
 * tables: disks and network through it with checksums, no event of their own, and two deliberate
 * stray DMAs, the same one twice, of which each must appear once in the guest's log as what it is.
 */

const MIB = 1 << 20;
const STRAY = 0xdead0000;
/** Much more than a guest needs, even on a machine that does other things. */
const TIMEOUT_MS = 600_000;

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

interface Case extends Pick<GuestOptions, 'series' | 'acpi'> {
  readonly policy: 'strict' | 'lazy';
  readonly stray: 'read' | 'write';
  readonly mib: number;
}

const cases: readonly Case[] = [
  { series: '6.12', acpi: false, policy: 'strict', stray: 'read', mib: 32 },
  { series: '6.12', acpi: true, policy: 'lazy', stray: 'write', mib: 32 },
  { series: '6.1', acpi: false, policy: 'lazy', stray: 'write', mib: 32 },
  { series: '6.1', acpi: true, policy: 'strict', stray: 'read', mib: 16 },
];

function boot(name: string, given: Partial<GuestOptions> & Pick<GuestOptions, 'series' | 'jobs'>): Guest {
  return Guest.boot({ arch: 'arm64', name, socket: daemon.socket, choice: {}, append: [], ...given });
}

describe('a Debian arm64 guest', () => {
  it.each(
    titled(
      cases,
      ({ series, acpi, policy, stray }) =>
        `${series}, acpi ${acpi}, ${policy} invalidation: disks, network, stray ${stray}`,
    ),
  )(
    '%s',
    async (_title, { series, acpi, policy, stray, mib }) => {
      const before = server.transfers.length;
      const name = `arm64-${series}-${acpi ? 'acpi' : 'dt'}`;
      // One of the two kernels has the daemon complete every invalidation.
      const queues = series === '6.1' ? 'off' : 'on';
      const guest = boot(name, {
        series,
        choice: { properties: { queues } },
        acpi: acpi === true,
        append: [`iommu.strict=${policy === 'strict' ? 1 : 0}`],
        jobs: ['dmesg', 'nvme', 'virtio-blk', 'net', 'stray'],
        parameters: {
          mib,
          port: server.port,
          'net-mib': 4,
          stray: `0x${STRAY.toString(16)},0x${STRAY.toString(16)}`,
          // QEMU makes it in sixteen pieces.
          length: 64,
          'stray-direction': stray,
        },
      });
      try {
        await guest.done();
        const { run } = guest;

        const said = run.textOf('dmesg').join('\n');
        expect(said).toMatch(
          acpi ? /arm-smmu-v3 arm-smmu-v3\.0\.auto: ias/ : /arm-smmu-v3 9050000\.smmuv3: ias/,
        );
        expect(said).toContain(`DMA domain TLB invalidation policy: ${policy} mode`);

        for (const [job, disk] of [
          ['nvme', 'nvme'],
          ['virtio-blk', 'virtio'],
        ] as const) {
          expect(run.value(job, 'bytes')).toBe(String(mib * MIB));
          expect(run.value(job, 'read')).toBe(run.value(job, 'written'));
          expect(await guest.diskSum(disk, mib * MIB)).toBe(run.value(job, 'written'));
        }

        const transfers = server.transfers.slice(before);
        expect(transfers.map(({ direction, bytes }) => [direction, bytes])).toEqual([
          ['down', 4 * MIB],
          ['up', 4 * MIB],
        ]);
        const moved = run.of('net').filter(({ values }) => 'direction' in values);
        expect(moved.map(({ values }) => values['md5'])).toEqual(transfers.map(({ md5 }) => md5));

        // An event for each, announced by the event queue's interrupt, and nothing else in the log.
        const device = (run.value('stray', 'device') ?? '').replace(/^0000:/, '');
        const event = {
          operation: stray,
          device,
          address: `0x${STRAY.toString(16)}`,
          reason: EVENT.F_TRANSLATION,
          text: 'F_TRANSLATION',
        };
        expect(guest.kernelFaults()).toEqual([event, event]);
        expect(run.value('faults', 'count')).toBe('2');
      } finally {
        await guest.dispose();
      }
      const share = await shareInQemu(daemon, name);
      if (queues === 'off') expect(share).toBe(0);
      else if (policy === 'strict') expect(share).toBeGreaterThan(0.9);
    },
    TIMEOUT_MS,
  );

  const variants: readonly { what: string; given: Partial<GuestOptions>; says: RegExp }[] = [
    {
      what: 'iommu.passthrough=1: streams that bypass',
      given: { append: ['iommu.passthrough=1'] },
      says: /Default domain type: Passthrough/,
    },
    {
      what: 'stage 2 alone, 44-bit addresses, two processors, RAM that the daemon cannot map',
      given: { choice: { stages: '2', oas: 44 }, machine: { cpus: 2, sharedMemory: false } },
      says: /ias 44-bit, oas 44-bit/,
    },
  ];
  it.each(titled(variants, ({ what }) => what))(
    '%s',
    async (_title, { given, says }) => {
      const guest = boot('arm64-variant', {
        series: '6.12',
        jobs: ['dmesg', 'nvme', 'virtio-blk', 'net'],
        parameters: { mib: 8 },
        ...given,
      });
      try {
        await guest.done();
        expect(guest.run.textOf('dmesg').join('\n')).toMatch(says);
        expect(guest.run.value('nvme', 'same')).toBe('1');
        expect(guest.run.value('virtio-blk', 'same')).toBe('1');
        expect(guest.run.value('faults', 'count')).toBe('0');
      } finally {
        await guest.dispose();
      }
    },
    TIMEOUT_MS,
  );
});
