import { type ChildProcess, spawn } from 'node:child_process';
import { rmSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { Logger } from '../observe/log.js';
import {
  type CliContext,
  CliError,
  EXIT,
  errnoOf,
  type LogChoice,
  messageOf,
  signalExitCode,
} from './context.js';
import type { Daemon } from './daemon.js';
import { bridgePath, qemuPath } from './paths.js';
import { type DeviceChoice, findDevice, qemuArguments, shellLine } from './qemu-arguments.js';
import { privateDir, runningDaemons } from './runtime-dir.js';
import { defaultSocket } from './serve.js';
import { type CachePolicy, checkSocketPath, logFor, type Services, startDaemon } from './services.js';

export interface QemuOptions extends LogChoice, DeviceChoice {
  readonly qemu?: string;
  readonly bridge?: string;
  readonly attach?: string;
  readonly control?: string;
  readonly memory?: string;
  readonly print?: boolean;
  readonly report?: string;
  readonly cachePolicy: CachePolicy;
}

/** Signals that end QEMU in an orderly way; the second one of any kind ends it at once. */
const FORWARDED = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT'] as const;

/**
 * `viommu qemu [our options] -- <qemu arguments>`. Returns QEMU's exit code, 128 + n when signal n ended it,
 * and 125 to 127, as env(1), when QEMU was not started. Leaves no socket, directory or process behind.
 */
export async function qemu(
  context: CliContext,
  services: Services,
  options: QemuOptions,
  args: readonly string[],
): Promise<number> {
  const bridge = bridgePath(context, options.bridge);
  const program = qemuPath(context, options.qemu);
  if (options.print === true) return printLine(context, options, bridge, program, args);
  const log = logFor(context, options);
  const place = await daemonFor(context, services, options, args, log);
  try {
    const words = qemuArguments(args, place.socket, choiceOf(options), options.memory);
    const code = await runQemu(context, program, words, preloadEnvironment(context.env, bridge));
    await place.leave();
    if (options.report !== undefined) place.saveReport(options.report);
    return code;
  } finally {
    await place.leave();
  }
}

function choiceOf(options: QemuOptions): DeviceChoice {
  const { cachingMode, scalableMode, awBits, name } = options;
  return {
    ...(cachingMode === undefined ? {} : { cachingMode }),
    ...(scalableMode === undefined ? {} : { scalableMode }),
    ...(awBits === undefined ? {} : { awBits }),
    ...(name === undefined ? {} : { name }),
  };
}

/** The environment of QEMU alone: nothing else may load the bridge. */
export function preloadEnvironment(env: CliContext['env'], bridge: string): NodeJS.ProcessEnv {
  const before = env['LD_PRELOAD'];
  return { ...env, LD_PRELOAD: before === undefined || before === '' ? bridge : `${bridge}:${before}` };
}

/** The daemon that this machine talks to, ours or somebody else's. */
interface Place {
  readonly socket: string;
  saveReport(file: string): void;
  leave(): Promise<void>;
}

async function daemonFor(
  context: CliContext,
  services: Services,
  options: QemuOptions,
  args: readonly string[],
  log: Logger,
): Promise<Place> {
  if (options.attach !== undefined) return attached(options, resolve(options.attach));
  const named = findDevice(args)?.socket;
  const dir = named === undefined ? privateDir(context) : undefined;
  const remove = (): void => {
    if (dir !== undefined) rmSync(dir, { recursive: true, force: true });
  };
  try {
    const socket = dir === undefined ? resolve(named ?? '') : join(dir, 'socket');
    const control = options.control === undefined ? undefined : resolve(options.control);
    const daemon = await startDaemon(context, services, {
      socket,
      control,
      policy: options.cachePolicy,
      command: 'qemu',
      log,
    });
    const reports = new ReportKeeper(daemon);
    return {
      socket,
      saveReport: (file) => reports.save(file, log),
      leave: async () => {
        await daemon.stop();
        remove();
      },
    };
  } catch (error) {
    remove();
    throw new CliError(`the daemon did not start: ${messageOf(error)}`, EXIT.LAUNCH_FAILED);
  }
}

function attached(options: QemuOptions, socket: string): Place {
  if (options.report !== undefined) {
    throw new CliError('--report needs a daemon of its own: with --attach use "viommu report"', EXIT.USAGE);
  }
  return { socket: checkSocketPath(socket), saveReport: () => undefined, leave: async () => undefined };
}

/** Keeps the last report of each session, since a session that has ended cannot be asked. */
class ReportKeeper {
  readonly #last = new Map<string, unknown>();

  constructor(daemon: Daemon) {
    daemon.onClosed(({ vm, report }) => this.#last.set(vm, report));
  }

  save(file: string, log: Logger): void {
    try {
      writeFileSync(file, `${JSON.stringify(Object.fromEntries(this.#last), null, 2)}\n`);
    } catch (error) {
      log.error({ file }, `the report was not written: ${messageOf(error)}`);
    }
  }
}

/** Runs QEMU on our own stdin, stdout and stderr, and passes signals on; resolves with the exit code. */
export function runQemu(
  context: CliContext,
  program: string,
  args: readonly string[],
  env: NodeJS.ProcessEnv,
): Promise<number> {
  return new Promise((done, failed) => {
    const child: ChildProcess = spawn(program, args, { stdio: 'inherit', env });
    let signals = 0;
    const off = context.onSignals(FORWARDED, (name) => {
      signals++;
      child.kill(signals > 1 ? 'SIGKILL' : name);
    });
    child.once('error', (error) => {
      off();
      const missing = errnoOf(error) === 'ENOENT';
      const code = missing ? EXIT.NO_SUCH_PROGRAM : EXIT.NOT_EXECUTABLE;
      failed(new CliError(`${program} did not start: ${error.message}`, code));
    });
    child.once('exit', (code, signal) => {
      off();
      done(signal === null ? (code ?? EXIT.FAILED) : signalExitCode(signal));
    });
  });
}

async function printLine(
  context: CliContext,
  options: QemuOptions,
  bridge: string,
  program: string,
  args: readonly string[],
): Promise<number> {
  const serving = runningDaemons(context).find((note) => note.command === 'serve');
  const socket = resolve(
    options.attach ?? findDevice(args)?.socket ?? serving?.socket ?? defaultSocket(context),
  );
  const words = qemuArguments(args, socket, choiceOf(options), options.memory);
  context.stdout.write(`${shellLine([`LD_PRELOAD=${bridge}`, program, ...words])}\n`);
  if (serving?.socket !== socket) {
    context.stderr.write(`start the daemon first: ${shellLine(['viommu', 'serve', '--socket', socket])}\n`);
  }
  return EXIT.OK;
}
