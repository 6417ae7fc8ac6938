import { resolve } from 'node:path';
import type { AssignmentSettings } from '../assignment/offer.js';
import { checkAssignment } from './assignment-options.js';
import { type CliContext, EXIT, type LogChoice } from './context.js';
import { runtimeDir } from './runtime-dir.js';
import { type CachePolicyName, logFor, type Services, startDaemon } from './services.js';

interface ServeOptions extends LogChoice, AssignmentSettings {
  readonly socket?: string;
  readonly control?: string;
  readonly cachePolicy: CachePolicyName;
}

/** Where `viommu serve` listens by default. */
export function defaultSocket(context: CliContext): string {
  return `${runtimeDir(context)}/viommu.sock`;
}

/**
 * `viommu serve`: the daemon alone, until SIGTERM or SIGINT; a second signal does not wait for
 * sessions to end. Exit code 0 after a clean shutdown.
 */
export async function serve(context: CliContext, services: Services, options: ServeOptions): Promise<number> {
  const assignment = checkAssignment(options);
  const log = logFor(context, options);
  const socket = resolve(options.socket ?? defaultSocket(context));
  const control = options.control === undefined ? undefined : resolve(options.control);
  let stopping: (() => void) | undefined;
  const stop = new Promise<void>((done) => {
    stopping = done;
  });
  let signals = 0;
  const off = context.onSignals(['SIGTERM', 'SIGINT', 'SIGHUP'], (name) => {
    signals++;
    if (signals > 1) context.exitNow(EXIT.FAILED);
    log.info({ signal: name }, 'stopping');
    stopping?.();
  });
  try {
    const daemon = await startDaemon(context, services, {
      socket,
      control,
      policy: options.cachePolicy,
      assignment,
      command: 'serve',
      log,
    });
    await stop;
    await daemon.stop();
    log.info('stopped');
    return EXIT.OK;
  } finally {
    off();
  }
}
