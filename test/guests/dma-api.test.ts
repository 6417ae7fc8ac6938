import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Daemon } from '../support/daemon.js';
import { Guest } from './support.js';
import { ViommuCommand, watchSummary } from './viommu.js';

/**
 * A driver in a real kernel maps and unmaps all the time through the DMA API, for an assigned
 * device.
 */

/** Silence and no work end a guest long before: this is for a guest that works for ever. */
const GUEST_MS = 900_000;
const TIMEOUT_MS = GUEST_MS + 20_000;
const SEED = process.env['VIOMMU_SEED'] ?? String(Math.floor(Math.random() * 2 ** 31));

let daemon: Daemon;

beforeAll(async () => {
  daemon = await Daemon.start();
});
afterAll(async () => {
  await daemon.dispose();
});

describe(`the DMA API of Debian's 6.12 with an assigned device, seed ${SEED}`, () => {
  const vtd = { choice: { cachingMode: true, scalableMode: false }, append: ['intel_iommu=on,sm_off'] };
  const scalable = {
    choice: { cachingMode: true, scalableMode: true, firstStage: false },
    append: ['intel_iommu=on,sm_on'],
  };
  for (const { arch, mode, domain, choice, append } of [
    { arch: 'amd64', mode: 'strict', domain: 'DMA', ...vtd },
    { arch: 'amd64', mode: 'lazy', domain: 'DMA-FQ', ...vtd },
    // Second-stage tables, because caching mode does not announce what comes to others.
    { arch: 'amd64', mode: 'scalable, strict', domain: 'DMA', ...scalable },
    { arch: 'arm64', mode: 'strict', domain: 'DMA', choice: {}, append: [] },
    { arch: 'arm64', mode: 'lazy', domain: 'DMA-FQ', choice: {}, append: [] },
    // Four tasks on four processors change one domain at once.
    { arch: 'amd64', mode: 'strict, 4 tasks', domain: 'DMA', ...vtd },
    { arch: 'arm64', mode: 'strict, 4 tasks', domain: 'DMA', choice: {}, append: [] },
  ] as const) {
    it(
      `${arch}, ${mode}: what is mapped is reached, what is unmapped is not`,
      async () => {
        const strict = mode !== 'lazy';
        const tasks = mode.endsWith('tasks') ? 4 : 1;
        const name = `dma-${arch}-${mode.replace(/, | /g, '-')}`;
        const guest = Guest.boot({
          arch,
          series: '6.12',
          name,
          socket: daemon.socket,
          choice,
          append: [...append, `iommu.strict=${strict ? 1 : 0}`],
          jobs: ['dma'],
          parameters: {
            'dma-mode': strict ? 'strict' : 'lazy',
            'dma-seconds': 10,
            'dma-seed': SEED,
            'dma-tasks': tasks,
          },
          module: true,
          totalMs: GUEST_MS,
          machine: {
            testDevice: false,
            network: false,
            extra: ['-smp', String(tasks), '-device', 'viommu-testdev,assigned=on'],
          },
        });
        let watch: ViommuCommand | undefined;
        try {
          await guest.run.waitFor(/VIOMMU-GUEST: dma seed=/);
          watch = new ViommuCommand(daemon, ['diff', '--watch', '--vm', name]);
          await guest.run.waitFor(/VIOMMU-GUEST: WAITING/);
          watch.interrupt();
          const { text } = await watch.end();
          const { completions, ...differences } = watchSummary(text);
          expect(differences, text).toMatchObject({ refused: 0, notFollowed: 0 });
          // A flush that is put off shows as what it is.
          if (strict) expect(differences.notInvalidated, text).toBe(0);
          expect(completions).toBeGreaterThan(0);
          guest.run.send('\n');
          await guest.done();
          expect(guest.run.value('dma', 'domain')).toBe(domain);
          const done = guest.run.of('dma').findLast(({ values }) => values['state'] === 'done')?.values;
          for (const what of ['maps', 'unmaps', 'coherent', 'lists', 'bytes', 'refused']) {
            expect(Number(done?.[what]), what).toBeGreaterThan(0);
          }
          const together = guest.run.of('dma').filter(({ values }) => values['state'] === 'task');
          expect(together.filter(({ values }) => Number(values['unmaps']) > 0)).toHaveLength(
            tasks > 1 ? tasks : 0,
          );
          // A flush that is put off is seen, and never in strict mode; nor where the store that
          // unmaps is trapped.
          if (strict || arch === 'arm64') expect(done?.['stale']).toBe('0');
          else expect(Number(done?.['stale'])).toBeGreaterThan(0);
          console.log(
            `${arch}, ${mode}, seed ${SEED}: ${JSON.stringify(done)}, ${text.trimEnd().split('\n').at(-1)}`,
          );
        } finally {
          watch?.interrupt();
          await guest.dispose();
        }
      },
      TIMEOUT_MS,
    );
  }
});
