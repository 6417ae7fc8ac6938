/**
 * Entry point of a session's thread: one loop, and answers for the main thread between two inputs.
 * The thread may be started before there is a session, and waits for {@link WorkerStart} as its
 * first message.
 */
import { type MessagePort, parentPort, receiveMessageOnPort } from 'node:worker_threads';
import { CodedError } from '../base/errors.js';
import { clearWake } from '../base/native.js';
import { plainFields, plainText } from '../base/text.js';
import * as builtIn from '../device/models.js';
import type { ViommuEvent } from '../events/viommu-events.js';
import { differences } from '../shadow/check.js';
import { SessionLoop } from './loop.js';
import type { ModelFactory } from './ports.js';
import { reportOf } from './report.js';
import type { Session } from './session.js';
import { type FromWorker, SHARED_WORD, type ToWorker, type WorkerStart } from './worker-messages.js';

const port = parentPort as MessagePort;
let shared: Int32Array = new Int32Array(SHARED_WORD.COUNT);

function send(message: FromWorker): void {
  port.postMessage(message);
}

/**
 * A guest can make faults faster than a main thread can log them: more than this are not queued.
 */
const MOST_UNHEARD = 4096;
let eventsSent = 0;
let eventsDropped = 0;

/** Tells the main thread of an event, unless too many wait to be heard. */
function sendEvent(event: ViommuEvent): void {
  if (((eventsSent - Atomics.load(shared, SHARED_WORD.HEARD)) | 0) >= MOST_UNHEARD) {
    eventsDropped++;
    return;
  }
  if (eventsDropped > 0) {
    const message = 'events came faster than they were heard; some are left out';
    send({ kind: 'log', level: 'warn', message, fields: { dropped: eventsDropped } });
    eventsDropped = 0;
  }
  eventsSent = (eventsSent + 1) | 0;
  send({ kind: 'event', event: plainFields(event) });
}

type Answer = Extract<FromWorker, { kind: 'reply' }>['value'];

function answerOf(session: Session, request: ToWorker): Answer {
  const { model } = session;
  switch (request.method) {
    case 'dump':
      return model?.dumper.dump(request.options) ?? [];
    case 'report':
      return reportOf(session);
    case 'diff':
      if (model === undefined) return { devices: 0, mappings: 0, differences: [], more: false };
      return differences(session.shadowing.shadow, model, session.ports.memory, request.rid, request.most);
    case 'watchCompletions':
      session.watchCompletions(request.on);
      return session.shadowing.checked(0);
    case 'completions':
      return session.shadowing.checked(request.from);
  }
}

function answer(loop: SessionLoop, request: ToWorker): void {
  const { session } = loop;
  const { id } = request;
  try {
    const value = answerOf(session, request);
    send({ kind: 'reply', id, value });
  } catch (error) {
    // A dump that fails is a defect of the dump; the machine goes on.
    const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
    send({ kind: 'failed', id, reason: 'INTERNAL', text });
  }
}

async function modelsOf(start: WorkerStart): Promise<ModelFactory> {
  if (start.models === undefined) return builtIn;
  const module = (await import(start.models)) as { readonly models: ModelFactory };
  return module.models;
}

/** What the main thread asked and did not get yet. */
let asked: ToWorker[] = [];

function answerAsked(loop: SessionLoop, midway: boolean): void {
  for (let next = receiveMessageOnPort(port); next !== undefined; next = receiveMessageOnPort(port)) {
    asked.push(next.message as ToWorker);
  }
  // A dump reads the guest's tables, which it cannot while a walk of its own waits for them.
  const now = midway ? asked.filter((request) => request.method === 'report') : asked;
  asked = midway ? asked.filter((request) => request.method !== 'report') : [];
  for (const request of now) answer(loop, request);
}

async function serve(start: WorkerStart): Promise<void> {
  shared = new Int32Array(start.shared);
  const factory = await modelsOf(start);
  const loop: SessionLoop = new SessionLoop(start.fd, start.wakeFd, factory, start, {
    log: (level, message, fields = {}) => send({ kind: 'log', level, message, fields: plainFields(fields) }),
    event: sendEvent,
    wake: (midway) => {
      clearWake(start.wakeFd);
      answerAsked(loop, midway);
      const stopped = Atomics.load(shared, SHARED_WORD.STOP) !== 0;
      return stopped ? new CodedError('STOPPED', 'the daemon ends this session') : undefined;
    },
  });
  const reason = loop.run();
  // What ends a session may quote its peer.
  const text = plainText(reason.message);
  send({ kind: 'closed', reason: reason.reason, text, report: loop.lastReport });
}

let started = false;

async function hear(message: WorkerStart | ToWorker): Promise<void> {
  if ('method' in message) {
    asked.push(message);
  } else if (!started) {
    started = true;
    await serve(message);
    // Nothing keeps the thread any more.
    port.off('message', hear);
  }
}

port.on('message', hear);
