import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { runSimDemo } from './sim-demo.js';
import type { SimDemoOptions, SimReport } from './sim-report.js';

/** The worker's message to the thread that started it. */
type WorkerMessage =
  | { readonly kind: 'line'; readonly line: string }
  | { readonly kind: 'report'; readonly report: SimReport }
  | { readonly kind: 'failed'; readonly text: string };

interface Job {
  readonly simDemo: true;
  readonly socketPath: string;
  readonly options: SimDemoOptions;
}

/**
 * Runs {@link runSimDemo} in a thread of its own, so that a daemon in this process is not blocked.
 * Rejects with the error of the demo.
 */
export function startSimDemo(
  socketPath: string,
  options: SimDemoOptions,
  print: (line: string) => void,
): Promise<SimReport> {
  const job: Job = { simDemo: true, socketPath, options };
  return new Promise((resolve, reject) => {
    const worker = new Worker(new URL(import.meta.url), { workerData: job });
    worker.on('message', (message: WorkerMessage) => {
      if (message.kind === 'line') print(message.line);
      else if (message.kind === 'report') resolve(message.report);
      else reject(new Error(message.text));
    });
    worker.on('error', reject);
    worker.on('exit', (code) => reject(new Error(`the simulated VM ended with code ${code}`)));
  });
}

function isJob(data: unknown): data is Job {
  return typeof data === 'object' && data !== null && 'simDemo' in data;
}

function work(job: Job): void {
  const post = (message: WorkerMessage): void => parentPort?.postMessage(message);
  try {
    const report = runSimDemo(job.socketPath, job.options, (line) => post({ kind: 'line', line }));
    post({ kind: 'report', report });
  } catch (error) {
    post({ kind: 'failed', text: error instanceof Error ? error.message : String(error) });
  }
}

if (!isMainThread && isJob(workerData)) work(workerData);
