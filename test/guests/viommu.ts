import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { type Daemon, eventually, MAIN } from '../support/daemon.js';

/** A `viommu` command that looks at a daemon, in a process of its own as people run it. */
export class ViommuCommand {
  text = '';
  readonly #process: ChildProcess;
  readonly #closed: Promise<number>;

  constructor(daemon: Daemon, args: readonly string[]) {
    this.#process = spawn(process.execPath, [MAIN, ...args, '--control', `${daemon.socket}.ctl`], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    this.#process.stdout?.on('data', (chunk: Buffer) => {
      this.text += chunk.toString();
    });
    this.#closed = once(this.#process, 'close').then(([code]) => code as number);
  }

  /** What Ctrl-C does. */
  interrupt(): void {
    this.#process.kill('SIGINT');
  }

  async end(): Promise<{ code: number; text: string }> {
    return { code: await this.#closed, text: this.text };
  }
}

/** Runs one to its end. */
export async function viommu(daemon: Daemon, ...args: string[]): Promise<{ code: number; text: string }> {
  return await new ViommuCommand(daemon, args).end();
}

/**
 * Which share of a machine's commands QEMU completed itself, as the daemon's log says when the
 * machine has gone.
 */
export async function shareInQemu(daemon: Daemon, name: string): Promise<number> {
  const gone = (): ReturnType<Daemon['log']>[number] | undefined =>
    daemon.log().find(({ vm, commandsByPeer }) => vm === name && commandsByPeer !== undefined);
  const end = await eventually(gone, `the end of ${name}'s session`);
  return Number(end['commandsByPeer']) / Math.max(1, Number(end['commands']));
}

/** What `viommu diff --watch` printed at its end. */
interface WatchSummary {
  readonly completions: number;
  readonly refused: number;
  readonly notInvalidated: number;
  readonly notFollowed: number;
}

/**
 * Reads the last line of `viommu diff --watch`; throws with all it printed when that is no summary.
 */
export function watchSummary(text: string): WatchSummary {
  const last = text.trimEnd().split('\n').at(-1) ?? '';
  const found =
    /^(\d+) completions checked: (?:no difference|\d+ differences: (\d+) refused, (\d+) not invalidated, (\d+) not followed)$/.exec(
      last,
    );
  if (found === null) throw new Error(`no summary of viommu diff --watch: ${text}`);
  const [completions, refused, notInvalidated, notFollowed] = found
    .slice(1)
    .map((count) => Number(count ?? 0));
  return {
    completions: completions ?? 0,
    refused: refused ?? 0,
    notInvalidated: notInvalidated ?? 0,
    notFollowed: notFollowed ?? 0,
  };
}
