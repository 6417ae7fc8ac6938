import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { DeviceChoice } from '../../src/cli/qemu-arguments.js';
import { Daemon } from '../support/daemon.js';
import { Guest } from './support.js';
import { viommu } from './viommu.js';

/**
 * Devices with ATS in a group with their root port, where Linux 6.12 loses a device's invalidations
 * (docs/findings.md). viommu-testdev has a device TLB that keeps what it was told: stale entries
 * show as accesses that reach what is unmapped.
 */

const TIMEOUT_MS = 320_000;
const SEED = process.env['VIOMMU_SEED'] ?? String(Math.floor(Math.random() * 2 ** 31));
const STALE = 'the device reads what is unmapped';

let daemon: Daemon;

beforeAll(async () => {
  daemon = await Daemon.start();
});
afterAll(async () => {
  await daemon.dispose();
});

/** A network card and viommu-testdev, each with ATS, behind root ports. */
const DEVICES = [
  ...['-device', 'pcie-root-port,id=rp0,chassis=1', '-netdev', 'user,id=net1'],
  ...['-device', 'virtio-net-pci,netdev=net1,bus=rp0,iommu_platform=on,disable-legacy=on,ats=on'],
  ...['-device', 'pcie-root-port,id=rp1,chassis=2', '-device', 'viommu-testdev,bus=rp1'],
];

function boot(name: string, choice: DeviceChoice): Guest {
  return Guest.boot({
    ...{ arch: 'arm64', series: '6.12', name, socket: daemon.socket, choice, module: true },
    append: ['iommu.strict=1'],
    jobs: ['net', 'dma', 'ats'],
    parameters: { 'net-driver': 'virtio_net', 'dma-seconds': 1, 'dma-seed': SEED },
    machine: { testDevice: false, network: false, extra: DEVICES },
  });
}

/** Functions with ATS: whether it is on, and whether they have a group of their own. */
const found = (guest: Guest) =>
  guest.run
    .of('ats')
    .filter(({ values }) => values['device'] !== undefined)
    .map(({ values }) => [values['driver'], values['enabled'], values['alone']]);

describe(`Debian's 6.12 on arm64, device tree, devices with ATS behind root ports, seed ${SEED}`, () => {
  it(
    'leaves ATS off with the default options of a unit: nothing unmapped is reached',
    async () => {
      const guest = boot('ats-default', {});
      try {
        await guest.run.waitFor(/VIOMMU-GUEST: WAITING/);
        const { report } = JSON.parse((await viommu(daemon, 'report', '--vm', 'ats-default')).text);
        guest.run.send('\n');
        await guest.done();
        expect(found(guest)).toEqual([
          ['virtio-pci', '0', '0'],
          ['viommu-testdev', '0', '0'],
        ]);
        expect(report.deviceTlbInvalidations).toBe(0);
        expect(guest.run.value('net', 'ping')).toBe('ok');
        const done = guest.run.of('dma').findLast(({ values }) => values['state'] === 'done')?.values;
        expect(Number(done?.['unmaps'])).toBeGreaterThan(0);
        expect(done?.['stale']).toBe('0');
        expect(guest.run.value('dma', 'ahead')).toBe('0');
      } finally {
        await guest.dispose();
      }
    },
    TIMEOUT_MS,
  );

  it(
    'switches it on with ats=on; what is unmapped is reached exactly where no invalidation has come',
    async () => {
      const guest = boot('ats-on', { properties: { ats: 'on' } });
      try {
        // It may fail: that is the finding.
        const ended = guest.run.end.then(() => 'ended');
        const waits = guest.run.waitFor(/VIOMMU-GUEST: WAITING/).catch(() => 'ended');
        const failed = guest.run.waitFor(/VIOMMU-GUEST: dma status=1/).catch(() => 'ended');
        await Promise.race([ended, waits, failed]);
        guest.run.send('\n');
        await guest.run.end;
        expect(found(guest)).toEqual([
          ['virtio-pci', '1', '0'],
          ['viommu-testdev', '1', '0'],
        ]);
        expect(guest.run.value('net', 'ping')).toBe('ok');
        expect(Number(guest.run.value('dma', 'ahead'))).toBeGreaterThan(0);
        const invalidations = Number(guest.run.value('dma', 'invalidations'));
        const reason = guest.run.value('dma', 'reason');
        if (reason === undefined) {
          expect(invalidations).toBeGreaterThan(Number(guest.run.value('dma', 'unmaps')));
        } else {
          // One, from when ATS was switched on.
          expect(invalidations).toBe(1);
          expect(reason).toContain(STALE);
        }
        console.log(
          `Linux ${guest.run.value('boot', 'release')}, ats=on: ${invalidations} invalidations, ` +
            `${reason ?? 'nothing stale'}${reason === undefined ? ' (update docs/findings.md)' : ''}`,
        );
      } finally {
        await guest.dispose();
      }
    },
    TIMEOUT_MS,
  );
});
