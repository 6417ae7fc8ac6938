import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import type { LogThreshold } from '../observe/log.js';
import type { SimDemoOptions } from '../sim/sim-report.js';
import type { Arch } from './arch.js';
import { type CliContext, CliError, EXIT, type LogChoice, messageOf, signalExitCode } from './context.js';
import type { Daemon, SessionEnd } from './daemon.js';
import { demoFlavour } from './demo-arch.js';
import { DemoGuest, type DemoGuestOptions } from './demo-guest.js';
import { guestReport, simReport } from './demo-report.js';
import { privateDir } from './runtime-dir.js';
import { type CachePolicyName, logFor, type Services, startDaemon } from './services.js';

interface DemoOptions extends Partial<LogChoice>, DemoGuestOptions {
  readonly sim?: boolean;
  readonly cachePolicy: CachePolicyName;
}

const ENDING = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** Signals from the first moment on: one ends the demo in an orderly way, a second one at once. */
class Interruption {
  readonly end: () => void;
  /** Called on the first signal, or at once when it has come already. */
  #act: (name: NodeJS.Signals) => void = () => undefined;
  name: NodeJS.Signals | undefined;

  constructor(context: CliContext) {
    this.end = context.onSignals(ENDING, (name) => {
      if (this.name !== undefined) context.exitNow(signalExitCode(name));
      this.name = name;
      this.#act(name);
    });
  }

  onFirst(act: (name: NodeJS.Signals) => void): void {
    this.#act = act;
    if (this.name !== undefined) act(this.name);
  }
}

/**
 * `viommu demo`: a Debian guest under stock QEMU on the external IOMMU, or with `--sim` a simulated
 * machine. Exit code 0 when every byte arrived and nothing faulted; otherwise the reasons stand on
 * stderr.
 */
export async function demo(context: CliContext, services: Services, options: DemoOptions): Promise<number> {
  const interruption = new Interruption(context);
  const dir = privateDir(context);
  const ends: SessionEnd[] = [];
  let daemon: Daemon | undefined;
  try {
    daemon = await startDaemon(context, services, {
      socket: join(dir, 'socket'),
      policy: options.cachePolicy,
      command: 'demo',
      log: logFor(context, { logLevel: quietLevel(options), logJson: options.logJson === true }),
    });
    daemon.onClosed((end) => ends.push(end));
    const run = options.sim === true ? simulate : guest;
    const code = await run({ context, services, options, daemon, ends, interruption });
    return interruption.name === undefined ? code : signalExitCode(interruption.name);
  } finally {
    await daemon?.stop();
    rmSync(dir, { recursive: true, force: true });
    interruption.end();
  }
}

interface Scene {
  readonly context: CliContext;
  readonly services: Services;
  readonly options: DemoOptions;
  readonly daemon: Daemon;
  readonly ends: readonly SessionEnd[];
  readonly interruption: Interruption;
}

/** The simulated machine provokes faults and says so itself. */
function quietLevel({ sim, logLevel }: DemoOptions): LogThreshold {
  return logLevel ?? (sim === true ? 'error' : 'warn');
}

async function simulate(scene: Scene): Promise<number> {
  const { context, services, options, daemon, ends, interruption } = scene;
  interruption.onFirst(() => void daemon.stop()); // the machine loses its connection and ends
  const started = context.now();
  const { arch, unit } = demoFlavour(options);
  context.stdout.write(`viommu demo: a simulated machine on the external ${unit}, over a real socket\n\n`);
  try {
    const report = await services.simulate(daemon.socket, simulated(arch, options), (line) =>
      context.stdout.write(`  ${line}\n`),
    );
    await daemon.stop();
    context.stdout.write(`\n${simReport(report, ends[0]?.report, context.now() - started).join('\n')}\n`);
    return report.unexpectedFaults === 0 ? EXIT.OK : EXIT.FAILED;
  } catch (error) {
    if (interruption.name !== undefined) return EXIT.FAILED;
    throw new CliError(`the simulated machine failed: ${messageOf(error)}`);
  }
}

function simulated(arch: Arch, options: DemoOptions): SimDemoOptions {
  if (arch === 'arm64') return { model: 'smmuv3', options: { ats: 'on' } };
  const modes = options.mode === undefined ? {} : { modes: [options.mode] };
  return { ...modes, options: { 'caching-mode': options.cachingMode === true ? 'on' : 'off' } };
}

async function guest({ context, options, daemon, ends, interruption }: Scene): Promise<number> {
  // Not in the runtime directory: that is often a small file system in memory.
  const scratch = mkdtempSync(join(context.env['TMPDIR'] ?? tmpdir(), 'viommu-demo-'));
  try {
    const running = new DemoGuest(context, { ...options, ...absolute(options) }, scratch);
    interruption.onFirst((name) => void running.kill(`stopped by ${name}`));
    const outcome = await running.run(daemon);
    await daemon.stop();
    if (interruption.name !== undefined) return EXIT.FAILED;
    const { lines, problems } = guestReport(outcome, ends[0]);
    context.stdout.write(`\n${lines.join('\n')}\n`);
    if (problems.length === 0) return EXIT.OK;
    context.stderr.write(`\n${running.describe(`viommu demo failed:\n  ${problems.join('\n  ')}`)}\n`);
    return EXIT.FAILED;
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

function absolute(options: DemoOptions): Partial<DemoOptions> {
  return options.keepLog === undefined ? {} : { keepLog: resolve(options.keepLog) };
}
