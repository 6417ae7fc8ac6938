import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Daemon } from '../support/daemon.js';
import { Guest } from './support.js';
import { ViommuCommand, viommu, watchSummary } from './viommu.js';

/**
 * A program in a real guest drives an assigned device through the guest's own VFIO: random ranges
 * are mapped and unmapped, every byte that is moved is compared, and what is not mapped any more
 * must not be reached.
 */

const MINUTES = Number(process.env['VIOMMU_MINUTES'] ?? '0.3');
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
  for (const { arch, mode, choice, append, cpus } of [
    {
      arch: 'amd64',
      mode: 'legacy',
      choice: { cachingMode: true, scalableMode: false },
      append: ['intel_iommu=on,sm_off'],
      cpus: 1,
    },
    // The device has no PASIDs, so the kernel clears PASIDE; it begins with pass-through, and is
    // blocked before VFIO maps.
    {
      arch: 'amd64',
      mode: 'scalable',
      choice: { cachingMode: true, scalableMode: true, firstStage: false },
      append: ['intel_iommu=on,sm_on', 'iommu.passthrough=1'],
      cpus: 2,
    },
    // No caching mode: the kernel's stores to its tables are trapped, while other processors go on.
    { arch: 'arm64', mode: 'SMMUv3', choice: {}, append: [], cpus: 4 },
  ] as const) {
    // The name is text of its own: in a title of `it.each`, strings would be quoted, and
    // `-t 'amd64, legacy'` find nothing.
    it(
      `${arch}, ${mode}, ${cpus} processors: every byte arrives, and nothing is reached that is unmapped`,
      async () => {
        const name = `vfio-${mode}-${cpus}`;
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
          // From before VFIO takes the device over: what its first domain mapped has to go then.
          await guest.run.waitFor(/VIOMMU-GUEST: READY/);
          watch = new ViommuCommand(daemon, ['diff', '--watch', '--vm', name]);
          await guest.run.waitFor(/VIOMMU-GUEST: vfio seed=/);
          await guest.run.waitFor(/VIOMMU-GUEST: WAITING/);
          expect(await viommu(daemon, 'diff', '--vm', name)).toMatchObject({ code: 0 });
          watch.interrupt();
          const { text } = await watch.end();
          const { completions, ...differences } = watchSummary(text);
          expect(differences, text).toEqual({ refused: 0, notInvalidated: 0, notFollowed: 0 });
          expect(completions).toBeGreaterThan(0);
          guest.run.send('\n');
          await guest.done();
          const counts = guest.run.of('vfio').findLast(({ values }) => values['state'] === 'done')?.values;
          for (const what of ['maps', 'unmaps', 'bytes', 'refused']) {
            expect(Number(counts?.[what]), what).toBeGreaterThan(0);
          }
          // What the kernel says of the IOMMU: nothing. The host refuses, and its faults are not
          // the guest's.
          expect(guest.kernelFaults()).toEqual([]);
          console.log(`${arch}, ${mode}, seed ${SEED}: ${JSON.stringify(counts)}, ${text.trim()}`);
        } finally {
          watch?.interrupt();
          await guest.dispose();
        }
      },
      TIMEOUT_MS,
    );
  }
});
