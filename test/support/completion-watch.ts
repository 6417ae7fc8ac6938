import { dirname } from 'node:path';
import { pathToFileURL } from 'node:url';
import { MessageChannel, receiveMessageOnPort, Worker } from 'node:worker_threads';
import type { CompletionReply } from '../../src/cli/control-protocol.js';
import { MAIN } from './daemon.js';

const PATIENCE_MS = 30_000;

interface Said {
  readonly answer?: CompletionReply;
  readonly error?: string;
}

/**
 * What `viommu diff --watch` asks of a daemon, for tests that never let their event loop run: a
 * thread of its own speaks to the control socket.
 */
export class CompletionWatch {
  readonly #worker: Worker;

  constructor() {
    const client = `${pathToFileURL(dirname(MAIN)).href}/cli/control-client.js`;
    this.#worker = new Worker(new URL('./completion-worker.mjs', import.meta.url), {
      workerData: { client },
    });
    this.#worker.unref();
  }

  /**
   * Has a machine's completions checked from the first call on, and returns the findings.
   * @param from index of the first difference to return
   */
  ask(socket: string, vm: string, from = 0): CompletionReply {
    const { answer, error } = this.#question({ control: `${socket}.ctl`, vm, from });
    if (answer === undefined) throw new Error(`completions of ${vm}: ${error}`);
    return answer;
  }

  /** Ends the checks of that machine. */
  leave(vm: string): void {
    this.#question({ vm });
  }

  async close(): Promise<void> {
    await this.#worker.terminate();
  }

  #question(question: { control?: string; vm: string; from?: number }): Said {
    const done = new Int32Array(new SharedArrayBuffer(4));
    const { port1, port2 } = new MessageChannel();
    this.#worker.postMessage({ question, port: port2, done }, [port2]);
    Atomics.wait(done, 0, 0, PATIENCE_MS);
    const said = receiveMessageOnPort(port1) as { message: Said } | undefined;
    port1.close();
    if (said === undefined) throw new Error(`no answer about ${question.vm}`);
    return said.message;
  }
}
