import { openSync, writeSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { HOST_KINDS } from '../../src/assignment/request.js';
import { CompletionWatch } from '../support/completion-watch.js';
import { Daemon } from '../support/daemon.js';
import { DriverFuzzer } from './driver.js';
import { FramesFuzzer } from './frames.js';
import { type Fuzzer, runFuzzer } from './fuzzer.js';
import { FORCED_MODES, IsolationFuzzer } from './isolation.js';
import { MmioFuzzer } from './mmio.js';
import { ShadowFuzzer } from './shadow.js';
import { ShadowRaceFuzzer } from './shadow-race.js';
import { SmmuDriverFuzzer } from './smmu-driver.js';
import { SmmuMmioFuzzer } from './smmu-mmio.js';
import { SmmuShadowFuzzer } from './smmu-shadow.js';
import { SmmuTablesFuzzer } from './smmu-tables.js';
import { SocketFuzzer } from './socket.js';
import { TablesFuzzer } from './tables.js';

// `node test/fuzz/run.mjs` sets these; without them each fuzzer runs for a few seconds.
const minutes = Number(process.env['VIOMMU_FUZZ_MINUTES'] ?? '0');
const cases = process.env['VIOMMU_FUZZ_CASES'];
const seed = Number(process.env['VIOMMU_FUZZ_SEED'] ?? Math.floor(Math.random() * 2 ** 32));
const only = process.env['VIOMMU_FUZZ_ONLY'] ?? '';
/** Where the case that runs is noted, so that one that hangs can be named. */
const noteFile = process.env['VIOMMU_FUZZ_NOTE'];
const note = noteFile === undefined ? -1 : openSync(noteFile, 'w');
const SHORT_MS = 3000;
const milliseconds = minutes > 0 ? minutes * 60_000 : SHORT_MS;

function fuzz(fuzzer: Fuzzer): void {
  const limit = cases === undefined ? { milliseconds } : { cases: Number(cases) };
  const beginCase = (at: number): void => {
    if (note >= 0) writeSync(note, `${fuzzer.name} ${at}`.padEnd(40), 0);
  };
  // Written at once: a fuzzer never lets the event loop run, and console.log would come only at the
  // end.
  const done = runFuzzer(fuzzer, seed, limit, (line) => writeSync(1, `${line}\n`), beginCase);
  const seconds = done.seconds.toFixed(1);
  console.log(`${fuzzer.name}: ${done.cases} cases from seed ${seed}, ${seconds} s`, fuzzer.facts?.() ?? '');
  expect(done.cases).toBeGreaterThan(0);
}

const wanted = (name: string): boolean => only === '' || only === name;
const timeout = milliseconds + 120_000;

describe(`fuzz, seed ${seed}`, () => {
  for (const fuzzer of [
    new FramesFuzzer(),
    new MmioFuzzer(),
    new TablesFuzzer(),
    new DriverFuzzer(),
    new ShadowFuzzer(),
    new ShadowRaceFuzzer(),
    new SmmuMmioFuzzer(),
    new SmmuTablesFuzzer(),
    new SmmuDriverFuzzer(),
    new SmmuShadowFuzzer(),
  ]) {
    it.runIf(wanted(fuzzer.name))(fuzzer.name, () => fuzz(fuzzer), timeout);
  }
});

describe.runIf(wanted('socket'))(`fuzz over a socket, seed ${seed}`, () => {
  let daemon: Daemon;
  beforeAll(async () => {
    daemon = await Daemon.start(['--log-level', 'error']);
  });
  afterAll(() => daemon.dispose());
  it(
    'socket',
    () => {
      const fuzzer = new SocketFuzzer(daemon.socket);
      try {
        fuzz(fuzzer);
        expect(daemon.running).toBe(true);
        expect(daemon.text()).not.toContain('internal error');
      } finally {
        fuzzer.close();
      }
    },
    timeout,
  );
});

describe.runIf(wanted('isolation'))(`fuzz of two guests at a daemon, seed ${seed}`, () => {
  /** By kind of host and mode. */
  const daemons = new Map<string, Daemon>();
  const watch = new CompletionWatch();
  beforeAll(async () => {
    const started = HOST_KINDS.flatMap((kind) =>
      FORCED_MODES.map(async (mode) => {
        const args = ['--host', kind, '--mode', mode, '--log-level', 'error'];
        daemons.set(`${kind} ${mode}`, await Daemon.start(args));
      }),
    );
    await Promise.all(started);
  });
  afterAll(async () => {
    await watch.close();
    await Promise.all([...daemons.values()].map((daemon) => daemon.dispose()));
  });
  it(
    'isolation',
    () => {
      const fuzzer = new IsolationFuzzer(
        (kind, mode) => (daemons.get(`${kind} ${mode}`) as Daemon).socket,
        watch,
      );
      fuzz(fuzzer);
      for (const daemon of daemons.values()) {
        expect(daemon.running).toBe(true);
        expect(daemon.text()).not.toContain('internal error');
        expect(daemon.text()).not.toContain('a check of completions failed');
      }
    },
    timeout,
  );
});
