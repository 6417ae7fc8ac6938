import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Daemon } from '../support/daemon.js';
import { Guest } from './support.js';
import { ViommuCommand, viommu } from './viommu.js';

/**
 * A program in a real guest drives an assigned device through the guest's own VFIO: random ranges are mapped and unmapped,
 * every byte that is moved is compared, and what is not mapped any more must not be reached.
 */

const MINUTES = Number(process.env['VIOMMU_MINUTES'] ?? '0.5');
const SEED = process.env['VIOMMU_SEED'] ?? String(Math.floor(Math.random() * 2 ** 32));
const SECONDS = Math.round(MINUTES * 60);
const TIMEOUT_MS = 300_000 + SECONDS * 2000;

let daemon: Daemon;

beforeAll(async () => {
  daemon = await Daemon.start();
});
afterAll(async () => {
  await daemon.dispose();
});

describe(`VFIO in a Debian 6.12 guest, ${SECONDS} s with seed ${SEED}`, () => {
  it.each([
    {
      arch: 'amd64',
      choice: { cachingMode: true, scalableMode: false },
      append: ['intel_iommu=on,sm_off'],
      cpus: 1,
    },
    // No caching mode: the kernel's stores to its tables are trapped, while other processors go on.
    { arch: 'arm64', choice: {}, append: [], cpus: 4 },
  ] as const)(
    '$arch, $cpus processors: every byte arrives, and nothing is reached that is unmapped',
    async ({ arch, choice, append, cpus }) => {
      const name = `vfio-${arch}-${cpus}`;
      const guest = Guest.boot({
        arch,
        series: '6.12',
        name,
        socket: daemon.socket,
        choice,
        append,
        jobs: ['vfio'],
        parameters: { 'vfio-seconds': SECONDS, 'vfio-seed': SEED },
        module: true,
        machine: {
          memoryMib: 768,
          cpus,
          network: false,
          extra: ['-device', 'viommu-testdev,assigned=on'],
          testDevice: false,
        },
        totalMs: TIMEOUT_MS,
      });
      let watch: ViommuCommand | undefined;
      try {
        await guest.run.waitFor(/VIOMMU-GUEST: vfio seed=/);
        watch = new ViommuCommand(daemon, ['diff', '--watch', '--vm', name]);
        await guest.run.waitFor(/VIOMMU-GUEST: WAITING/);
        expect(await viommu(daemon, 'diff', '--vm', name)).toMatchObject({ code: 0 });
        watch.interrupt();
        const { code, text } = await watch.end();
        expect(text).toMatch(/^\d+ completions checked: no difference\n$/);
        expect(code).toBe(0);
        expect(Number.parseInt(text, 10)).toBeGreaterThan(0);
        guest.run.send('\n');
        await guest.done();
        const counts = guest.run.of('vfio').findLast(({ values }) => values['state'] === 'done')?.values;
        for (const what of ['maps', 'unmaps', 'bytes', 'refused']) {
          expect(Number(counts?.[what]), what).toBeGreaterThan(0);
        }
        // What the kernel says of the IOMMU: nothing. The host refuses, and its faults are not the guest's.
        expect(guest.kernelFaults()).toEqual([]);
        console.log(`${arch}, seed ${SEED}: ${JSON.stringify(counts)}, ${text.trim()}`);
      } finally {
        watch?.interrupt();
        await guest.dispose();
      }
    },
    TIMEOUT_MS,
  );
});
