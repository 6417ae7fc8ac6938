import type { AssignmentSettings } from '../assignment/offer.js';
import { createLog, type Logger } from '../observe/log.js';
import type { SimDemoOptions, SimReport } from '../sim/sim-report.js';
import { type CliContext, CliError, EXIT, type LogChoice } from './context.js';
import { Daemon, type Listen, type StartSession } from './daemon.js';

/** How translation, configuration and PASID caches behave. ARCHITECTURE.md, Models */
export const CACHE_POLICIES = ['faithful', 'none', 'hostile'] as const;
export type CachePolicyName = (typeof CACHE_POLICIES)[number];

/** The parts that commands are made of. `main.ts` gives the real ones, tests their own. */
export interface Services {
  readonly listen: Listen;
  readonly sessions: (policy: CachePolicyName, assignment: AssignmentSettings) => StartSession;
  /** Runs the simulated machine against a socket, in a thread of its own. */
  readonly simulate: (
    socket: string,
    options: SimDemoOptions,
    print: (line: string) => void,
  ) => Promise<SimReport>;
}

export function logFor(context: CliContext, choice: LogChoice): Logger {
  return createLog({
    level: choice.logLevel,
    json: choice.logJson,
    now: context.now,
    write: (line) => context.stderr.write(line),
  });
}

/** Bytes that an AF_UNIX path may have; unix(7), less the terminating zero. */
const SOCKET_PATH_LIMIT = 107;

/** @throws {CliError} for a path that no socket can have. */
export function checkSocketPath(path: string): string {
  if (Buffer.byteLength(path) > SOCKET_PATH_LIMIT) {
    throw new CliError(
      `socket path is longer than ${SOCKET_PATH_LIMIT} bytes, which Unix sockets do not allow: ${path}`,
      EXIT.USAGE,
    );
  }
  return path;
}

/** Path of the control channel beside a socket. */
function controlPathOf(socket: string): string {
  return `${socket}.ctl`;
}

/** A daemon in this process. */
export function startDaemon(
  context: CliContext,
  services: Services,
  options: {
    socket: string;
    control?: string | undefined;
    policy: CachePolicyName;
    /** How assigned devices are served; default: mode `auto`. */
    assignment?: AssignmentSettings;
    command: string;
    log: Logger;
  },
): Promise<Daemon> {
  const control = options.control ?? controlPathOf(options.socket);
  return Daemon.start({
    context,
    log: options.log,
    socket: checkSocketPath(options.socket),
    control: checkSocketPath(control),
    command: options.command,
    listen: services.listen,
    startSession: services.sessions(options.policy, options.assignment ?? { mode: 'auto' }),
  });
}
