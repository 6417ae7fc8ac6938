#!/usr/bin/env node
/**
 * The composition root: the only reader of the command line, the environment and the clock.
 * Everything else gets what it needs handed in.
 */
import { readFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { type CliContext, EXIT, outputOf } from './cli/context.js';
import { run } from './cli/program.js';
import type { Services } from './cli/services.js';
import { prepareSession, startSession } from './session/host.js';
import { startSimDemo } from './sim/demo-worker.js';
import { listen } from './wire/listener.js';

function packageVersion(): string {
  const text = readFileSync(new URL('../package.json', import.meta.url), 'utf8');
  return (JSON.parse(text) as { version: string }).version;
}

const context: CliContext = {
  env: process.env,
  now: () => Date.now(),
  stdout: outputOf(process.stdout),
  stderr: outputOf(process.stderr),
  pid: process.pid,
  uid: process.getuid?.() ?? 0,
  root: dirname(import.meta.dirname),
  version: packageVersion(),
  onSignals(names, handler) {
    for (const name of names) process.on(name, handler);
    return () => {
      for (const name of names) process.off(name, handler);
    };
  },
  exitNow: (code) => process.exit(code),
};

/** After a session, the next one's thread is made ready, unless the process ends anyway. */
const PREPARE_MS = 500;

const services: Services = {
  listen,
  sessions: (policy, assignment) => {
    prepareSession();
    return (fd, id, callbacks) =>
      startSession(fd, {
        session: id,
        modelDefaults: { 'cache-policy': policy },
        assignment,
        onLog: (level, message, fields) => callbacks.log(level, message, fields),
        onEvent: (event) => callbacks.event(event),
        onClosed: ({ reason, text, report }) => {
          setTimeout(prepareSession, PREPARE_MS).unref();
          callbacks.closed(reason, text, report);
        },
      });
  },
  simulate: startSimDemo,
};

let readerGone = false;

/**
 * A reader that went away (`viommu dump | head`) is no failure. A command that runs a machine
 * ends it as for SIGTERM.
 */
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') process.exit(EXIT.FAILED);
  if (readerGone) return;
  readerGone = true;
  if (!process.emit('SIGTERM', 'SIGTERM')) process.exit(EXIT.OK);
});

/**
 * A thread or socket that does not end must not keep the process: everything is said and cleaned up
 * by now.
 */
const LINGER_MS = 3000;

process.exitCode = await run(context, services, process.argv.slice(2));
setTimeout(() => process.exit(), LINGER_MS).unref();
