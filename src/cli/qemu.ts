import { type ChildProcess, spawn } from 'node:child_process';
import { rmSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { AssignmentSettings } from '../assignment/offer.js';
import type { Logger } from '../observe/log.js';
import { ARCH, type Arch } from './arch.js';
import { checkAssignment } from './assignment-options.js';
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
import {
  archOf,
  type DeviceChoice,
  findDevice,
  type HugePageChoice,
  qemuArguments,
  shellLine,
} from './qemu-arguments.js';
import { privateDir, runningDaemons } from './runtime-dir.js';
import { defaultSocket } from './serve.js';
import { type CachePolicyName, checkSocketPath, logFor, type Services, startDaemon } from './services.js';

interface QemuOptions extends LogChoice, DeviceChoice, AssignmentSettings {
  readonly arch?: Arch;
  readonly qemu?: string;
  readonly bridge?: string;
  readonly attach?: string;
  readonly control?: string;
  readonly memory?: string;
  readonly hugePages?: HugePageChoice;
  readonly print?: boolean;
  readonly report?: string;
  readonly cachePolicy: CachePolicyName;
}

/** Signals that end QEMU in an orderly way; the second one of any kind ends it at once. */
const FORWARDED = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT'] as const;

/**
 * `viommu qemu [our options] -- <qemu arguments>`. Returns QEMU's exit code, 128 + n when signal n
 * ended it, and 125 to 127, as env(1), when QEMU was not started. Leaves no socket, directory or
 * process behind.
 */
export async function qemu(
  context: CliContext,
  services: Services,
  options: QemuOptions,
  args: readonly string[],
): Promise<number> {
  const arch = options.arch ?? archOf(args, options.qemu) ?? 'amd64';
  const device = findDevice(args);
  if (device !== undefined && device.arch !== arch) {
    throw new CliError(`-device ${ARCH[device.arch].device} does not go with --arch ${arch}`, EXIT.USAGE);
  }
  const bridge = bridgePath(context, arch, options.bridge);
  const program = qemuPath(context, arch, options.qemu);
  if (options.print === true) return printLine(context, options, arch, bridge, program, args);
  const log = logFor(context, options);
  const relay = new SignalRelay(context);
  try {
    return await withDaemon(context, services, options, args, log, async (socket) => {
      const words = qemuArguments(
        args,
        arch,
        socket,
        choiceOf(options, arch, args),
        options.memory,
        options.hugePages,
      );
      const code = await runQemu(relay, program, words, preloadEnvironment(context.env, bridge));
      // QEMU's own message for another machine type does not say what is wrong.
      const { machine, machineType } = ARCH[arch];
      if (code === EXIT.FAILED && !args.some((arg) => arg.includes(machineType))) {
        const advice = `add "-machine ${machine}" to the QEMU arguments`;
        context.stderr.write(`viommu: the machine has to be ${machineType}: ${advice}\n`);
      }
      return code;
    });
  } finally {
    relay.end();
  }
}

/**
 * A VT-d with assigned devices is in caching mode, so that the guest announces new mappings. It
 * nests in scalable mode only.
 */
function choiceOf(options: QemuOptions, arch: Arch, args: readonly string[]): DeviceChoice {
  const { name, firstStage, awBits, stages, granules, oas, ssidBits, host } = options;
  const assigned = host !== undefined && arch === 'amd64' && findDevice(args) === undefined;
  const { cachingMode = assigned || undefined, scalableMode = assigned || undefined } = options;
  const all = { name, cachingMode, scalableMode, firstStage, awBits, stages, granules, oas, ssidBits };
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined));
}

/** The environment of QEMU alone: nothing else may load the bridge. */
export function preloadEnvironment(env: CliContext['env'], bridge: string): NodeJS.ProcessEnv {
  const before = env['LD_PRELOAD'];
  return { ...env, LD_PRELOAD: before === undefined || before === '' ? bridge : `${bridge}:${before}` };
}

/** Runs `use` with the socket of a daemon: our own, or the one to attach to. */
async function withDaemon(
  context: CliContext,
  services: Services,
  options: QemuOptions,
  args: readonly string[],
  log: Logger,
  use: (socket: string) => Promise<number>,
): Promise<number> {
  if (options.attach !== undefined) {
    if (options.report !== undefined) {
      throw new CliError('--report needs a daemon of its own: with --attach use "viommu report"', EXIT.USAGE);
    }
    return await use(checkSocketPath(resolve(options.attach)));
  }
  const named = findDevice(args)?.socket;
  const dir = named === undefined ? privateDir(context) : undefined;
  try {
    const socket = dir === undefined ? resolve(named ?? '') : join(dir, 'socket');
    const daemon = await ownDaemon(context, services, options, socket, log);
    const reports = new ReportKeeper(daemon);
    try {
      return await use(socket);
    } finally {
      await daemon.stop();
      if (options.report !== undefined) reports.save(options.report, log);
    }
  } finally {
    if (dir !== undefined) rmSync(dir, { recursive: true, force: true });
  }
}

async function ownDaemon(
  context: CliContext,
  services: Services,
  options: QemuOptions,
  socket: string,
  log: Logger,
): Promise<Daemon> {
  const control = options.control === undefined ? undefined : resolve(options.control);
  const policy = options.cachePolicy;
  const assignment = checkAssignment(options);
  try {
    return await startDaemon(context, services, {
      socket,
      control,
      policy,
      assignment,
      command: 'qemu',
      log,
    });
  } catch (error) {
    throw new CliError(`the daemon did not start: ${messageOf(error)}`, EXIT.LAUNCH_FAILED);
  }
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

/** Passes signals on to QEMU. Those that come before QEMU runs are held until then. */
class SignalRelay {
  readonly #off: () => void;
  #child: ChildProcess | undefined;
  #count = 0;
  /** The first signal that came. */
  first: NodeJS.Signals | undefined;

  constructor(context: CliContext) {
    this.#off = context.onSignals(FORWARDED, (name) => {
      this.#count++;
      this.first ??= name;
      this.#child?.kill(this.#count > 1 ? 'SIGKILL' : name);
    });
  }

  attach(child: ChildProcess): void {
    this.#child = child;
  }

  end(): void {
    this.#off();
  }
}

/** Runs QEMU on our own stdin, stdout and stderr; resolves with the exit code. */
function runQemu(
  relay: SignalRelay,
  program: string,
  args: readonly string[],
  env: NodeJS.ProcessEnv,
): Promise<number> {
  if (relay.first !== undefined) return Promise.resolve(signalExitCode(relay.first));
  return new Promise((done, failed) => {
    const child = spawn(program, args, { stdio: 'inherit', env });
    relay.attach(child);
    child.once('error', (error) => {
      const missing = errnoOf(error) === 'ENOENT';
      const code = missing ? EXIT.NO_SUCH_PROGRAM : EXIT.NOT_EXECUTABLE;
      failed(new CliError(`${program} did not start: ${error.message}`, code));
    });
    child.once('exit', (code, signal) => {
      done(signal === null ? (code ?? EXIT.FAILED) : signalExitCode(signal));
    });
  });
}

async function printLine(
  context: CliContext,
  options: QemuOptions,
  arch: Arch,
  bridge: string,
  program: string,
  args: readonly string[],
): Promise<number> {
  const serving = runningDaemons(context).find((note) => note.command === 'serve');
  const socket = resolve(
    options.attach ?? findDevice(args)?.socket ?? serving?.socket ?? defaultSocket(context),
  );
  const words = qemuArguments(
    args,
    arch,
    socket,
    choiceOf(options, arch, args),
    options.memory,
    options.hugePages,
  );
  context.stdout.write(`${shellLine([`LD_PRELOAD=${bridge}`, program, ...words])}\n`);
  if (serving?.socket !== socket) {
    context.stderr.write(`start the daemon first: ${shellLine(['viommu', 'serve', '--socket', socket])}\n`);
  }
  return EXIT.OK;
}
