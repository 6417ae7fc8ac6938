import { formatDifference } from '../observe/diff.js';
import { CAUSE, type Cause } from '../shadow/check.js';
import { type CliContext, EXIT } from './context.js';
import type { CompletionReply } from './control-protocol.js';
import { type InspectOptions, withClient } from './inspect.js';

/**
 * How often the daemon is asked for its findings. It checks every completion, however long this is.
 */
const ASK_MS = 200;

/**
 * `viommu diff --watch`: has the daemon compare guest tables and host mappings before every
 * completion, and prints each difference once, with its cause. Ends with a summary: on a signal,
 * when the machine disconnects, or with the daemon.
 */
export async function watchDiff(context: CliContext, options: InspectOptions): Promise<number> {
  return await withClient(context, options, async (client) => {
    const params = options.vm === undefined ? {} : { vm: options.vm };
    let last: CompletionReply | undefined;
    let printed = 0;
    const causes = new Map<Cause, number>(Object.values(CAUSE).map((cause) => [cause, 0]));
    const ask = async (): Promise<void> => {
      const answer = (await client.request('completions', { ...params, from: printed })) as CompletionReply;
      for (const difference of answer.differences) {
        const lines = formatDifference(difference).join('\n');
        context.stdout.write(`${options.json === true ? JSON.stringify(difference) : lines}\n`);
        const { cause } = difference;
        if (cause !== undefined) causes.set(cause, (causes.get(cause) ?? 0) + 1);
      }
      printed += answer.differences.length;
      last = answer;
    };
    await ask();
    let stop: () => void = () => undefined;
    const stopped = new Promise<void>((resolve) => {
      stop = resolve;
    });
    const off = context.onSignals(['SIGINT', 'SIGTERM'], () => stop());
    let over = false;
    void Promise.race([stopped, client.closed]).then(() => {
      over = true;
    });
    try {
      while (!over) {
        await Promise.race([stopped, client.closed, new Promise((resolve) => setTimeout(resolve, ASK_MS))]);
        await ask();
      }
    } catch {
      context.stderr.write('the machine or its daemon is gone\n');
    }
    off();
    const completions = last?.completions ?? 0;
    const more = last?.more === true ? ' and more' : '';
    const counts = [...causes].map(([cause, count]) => `${count} ${cause}`).join(', ');
    const found = printed === 0 ? 'no difference' : `${printed} differences${more}: ${counts}`;
    context.stdout.write(
      options.json === true
        ? `${JSON.stringify({ completions, differences: printed, more: last?.more === true, ...Object.fromEntries(causes) })}\n`
        : `${completions} completions checked: ${found}\n`,
    );
    return printed === 0 ? EXIT.OK : EXIT.FAILED;
  });
}
