/** Entry point of a session's thread: one loop, and answers for the main thread between two inputs. */
import { type MessagePort, parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { CodedError } from '../base/errors.js';
import { clearWake } from '../base/native.js';
import * as builtIn from '../device/models.js';
import { SessionLoop } from './loop.js';
import type { FromWorker, ToWorker, WorkerStart } from './messages.js';
import type { ModelFactory } from './ports.js';
import { reportOf } from './report.js';

const start = workerData as WorkerStart;
const port = parentPort as MessagePort;
const stop = new Int32Array(start.stop);

function tell(message: FromWorker): void {
  port.postMessage(message);
}

function answer(loop: SessionLoop, request: ToWorker): void {
  const { session } = loop;
  const { id } = request;
  try {
    const value =
      request.method === 'dump' ? (session.model?.dump(request.options) ?? []) : reportOf(session);
    tell({ kind: 'reply', id, value });
  } catch (error) {
    // A dump that fails is a defect of the dump; the machine goes on.
    const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
    tell({ kind: 'failed', id, reason: 'INTERNAL', text });
  }
}

async function models(): Promise<ModelFactory> {
  if (start.models === undefined) return builtIn;
  const module = (await import(start.models)) as { readonly models: ModelFactory };
  return module.models;
}

const factory = await models();
const loop: SessionLoop = new SessionLoop(start.fd, start.wakeFd, factory, start, {
  log: (level, message, fields = {}) => tell({ kind: 'log', level, message, fields }),
  event: (event) => tell({ kind: 'event', event }),
  wake: () => {
    clearWake(start.wakeFd);
    for (;;) {
      const request = receiveMessageOnPort(port);
      if (request === undefined) break;
      answer(loop, request.message as ToWorker);
    }
    return Atomics.load(stop, 0) === 0
      ? undefined
      : new CodedError('STOPPED', 'the daemon ends this session');
  },
});
const reason = loop.run();
tell({ kind: 'closed', reason: reason.reason, text: reason.message, report: loop.lastReport });
