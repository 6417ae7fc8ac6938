import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Daemon } from '../support/daemon.js';
import { Guest } from './support.js';
import { ViommuCommand, viommu, watchSummary } from './viommu.js';

/**
 * A real kernel configures the unit for an assigned device: its host has mapped what the kernel's
 * tables say.
 */

const TIMEOUT_MS = 320_000;
/** Beyond RAM, so no driver maps it. */
const STRAY = 0xdead0000;

let daemon: Daemon;

beforeAll(async () => {
  daemon = await Daemon.start();
});
afterAll(async () => {
  await daemon.dispose();
});

interface Shadow {
  readonly bytes: number;
  readonly failed: number;
}

describe('an assigned device in a Debian 6.12 guest', () => {
  for (const { name, arch, words, least, most } of [
    { name: 'translated', arch: 'amd64', words: ['intel_iommu=on,sm_off'], least: 0, most: 1 << 20 },
    // No caching mode: the kernel's stores to its tables are trapped.
    { name: 'SMMUv3', arch: 'arm64', words: [], least: 0, most: 1 << 20 },
    {
      name: 'pass-through',
      arch: 'amd64',
      words: ['intel_iommu=on,sm_on', 'iommu.passthrough=1'],
      least: 500 << 20,
      most: 520 << 20,
    },
  ] as const) {
    it(
      `${name}: no difference, and a stray DMA reaches nothing`,
      async () => {
        const guest = Guest.boot({
          arch,
          series: '6.12',
          name: `assigned-${name}`,
          socket: daemon.socket,
          choice: arch === 'arm64' ? {} : { cachingMode: true, scalableMode: name === 'pass-through' },
          append: words,
          jobs: ['nvme', 'wait', 'stray'],
          parameters: { mib: 8, stray: `0x${STRAY.toString(16)}` },
          machine: { testDevice: false, extra: ['-device', 'viommu-testdev,assigned=on'] },
        });
        let watch: ViommuCommand | undefined;
        try {
          await guest.run.waitFor(/VIOMMU-GUEST: READY/);
          watch = new ViommuCommand(daemon, ['diff', '--watch', '--vm', `assigned-${name}`]);
          await guest.run.waitFor(/VIOMMU-GUEST: WAITING/);
          const { code, text } = await viommu(daemon, 'diff', '--vm', `assigned-${name}`);
          expect(text).toMatch(/^no difference: 1 assigned devices/);
          expect(code).toBe(0);
          const report = JSON.parse((await viommu(daemon, 'report', '--vm', `assigned-${name}`)).text) as {
            report: { shadow: Shadow[] };
          };
          const [shadow] = report.report.shadow;
          expect(shadow?.failed).toBe(0);
          expect(shadow?.bytes).toBeGreaterThanOrEqual(least);
          expect(shadow?.bytes).toBeLessThanOrEqual(most);
          watch.interrupt();
          const summary = watchSummary((await watch.end()).text);
          expect(summary).toMatchObject({ refused: 0, notInvalidated: 0, notFollowed: 0 });
          guest.run.send('\n');
          await guest.done();
          expect(guest.run.value('nvme', 'same')).toBe('1');
          expect(guest.run.value('stray', 'device_status')).toBe('3');
          // The host refused it: the guest's IOMMU has recorded nothing.
          expect(guest.kernelFaults()).toEqual([]);
        } finally {
          watch?.interrupt();
          await guest.dispose();
        }
      },
      TIMEOUT_MS,
    );
  }
});
