// Speaks to daemons' control sockets for a thread that blocks (completion-watch.ts).
import { parentPort, workerData } from 'node:worker_threads';

const { ControlClient } = await import(workerData.client);
const RETRIES = 100;
/** A connection for each machine: checks last as long as it does. */
const clients = new Map();

async function ask({ control, vm, from }) {
  if (!clients.has(vm)) clients.set(vm, await ControlClient.connect(control));
  const client = clients.get(vm);
  for (let tries = 0; ; tries++) {
    try {
      return await client.request('completions', { vm, from });
    } catch (error) {
      // A machine is known by its name a moment after it has been greeted.
      if (!String(error.message).includes('no virtual machine') || tries === RETRIES) throw error;
      await new Promise((wake) => setTimeout(wake, 5));
    }
  }
}

async function answer(question) {
  if (question.control !== undefined) return { answer: await ask(question) };
  clients.get(question.vm)?.close();
  clients.delete(question.vm);
  return {};
}

parentPort.on('message', async ({ question, port, done }) => {
  port.postMessage(await answer(question).catch((error) => ({ error: String(error?.message ?? error) })));
  Atomics.store(done, 0, 1);
  Atomics.notify(done, 0);
});
