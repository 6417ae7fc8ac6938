#!/usr/bin/env node
/**
 * The composition root: the only reader of the command line, the environment and the clock. Everything else
 * gets what it needs handed in.
 */
import { readFileSync } from 'node:fs';
import { type CliContext, EXIT, outputOf } from './cli/context.js';
import { run } from './cli/program.js';
import type { Services } from './cli/services.js';

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
  version: packageVersion(),
  onSignals(names, handler) {
    for (const name of names) process.on(name, handler);
    return () => {
      for (const name of names) process.off(name, handler);
    };
  },
  exitNow: (code) => process.exit(code),
};

const services: Services = {
  listen: () => {
    throw new Error('not composed');
  },
  sessions: () => {
    throw new Error('not composed');
  },
};

// A reader that went away (`viommu dump | head`) is no failure of ours.
process.stdout.on('error', (error: NodeJS.ErrnoException) =>
  process.exit(error.code === 'EPIPE' ? 0 : EXIT.FAILED),
);

process.exitCode = await run(context, services, process.argv.slice(2));
