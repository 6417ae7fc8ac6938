/** Running other programs, saying what goes on, and failing with one clear sentence. */
import { spawn, spawnSync } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { constants } from 'node:os';

/** A failure that the person in front of the terminal can act on: printed without a stack. */
export class SetupError extends Error {
  /**
   * @param {string} message one sentence, what is wrong and what to do
   * @param {number} [exitCode] exit status of the process
   */
  constructor(message, exitCode = 1) {
    super(message);
    this.name = 'SetupError';
    this.exitCode = exitCode;
  }
}

const PROGRESS_EVERY_MS = 5000;

/** Exit status after Ctrl-C, as shells have it. */
export const INTERRUPTED = 130;

/**
 * Environment for building against the system: its own tools only, because a user's own python,
 * meson or protoc in PATH is not what the installed packages go with.
 */
export const SYSTEM_ENVIRONMENT = {
  ...process.env,
  PATH: '/usr/sbin:/usr/bin:/sbin:/bin',
  PYTHONPATH: undefined,
  PYTHONHOME: undefined,
  CFLAGS: undefined,
  LDFLAGS: undefined,
};

/** One line to the person, on stderr so that stdout stays the program's own. */
export function say(text) {
  process.stderr.write(`setup: ${text}\n`);
}

/** Last lines of a log file, for error messages. */
function tail(path, lines = 15) {
  try {
    return readFileSync(path, 'utf8').trimEnd().split('\n').slice(-lines).join('\n');
  } catch {
    return '';
  }
}

/**
 * Runs a short command and returns its standard output.
 * @throws {SetupError} when it can't be started or fails, with what it printed
 */
export function capture(command, args, options = {}) {
  const result = spawnSync(command, args, {
    encoding: 'utf8',
    maxBuffer: 64 * 1024 * 1024,
    ...options,
  });
  if (result.error) {
    throw new SetupError(`${command} can't be started: ${result.error.message}`);
  }
  if (result.status !== 0) {
    const said = `${result.stderr ?? ''}`.trim().split('\n').slice(-5).join('\n');
    throw new SetupError(`${command} ${args.join(' ')} failed (${result.status}): ${said}`);
  }
  return result.stdout;
}

/** As `capture`, but returns undefined instead of failing. */
export function tryCapture(command, args, options = {}) {
  const result = spawnSync(command, args, { encoding: 'utf8', maxBuffer: 64 << 20, ...options });
  return result.status === 0 ? result.stdout : undefined;
}

/**
 * How long after a child that failed our own half of a Ctrl-C may come: both get it, in either
 * order.
 */
const SIGNAL_LAG_MS = 100;

/** Exit status of a command, and whether it was interrupted before it ended. */
function supervise(command, args, options, patient) {
  return new Promise((resolve, reject) => {
    let stopped = false;
    const child = spawn(command, args, options);
    const stop = (signal) => {
      stopped = true;
      if (patient) {
        say('finishing this step before stopping');
      } else {
        child.kill(signal);
      }
    };
    const settle = (how, value) => {
      process.off('SIGINT', stop);
      process.off('SIGTERM', stop);
      how(value);
    };
    process.on('SIGINT', stop);
    process.on('SIGTERM', stop);
    child.on('error', (error) => settle(reject, new SetupError(`${command}: ${error.message}`)));
    child.on('exit', (code, signal) => {
      const end = () => settle(resolve, { status: signal ?? code, stopped: stopped || signal === 'SIGINT' });
      setTimeout(end, code === 0 ? 0 : SIGNAL_LAG_MS);
    });
  });
}

/**
 * Runs a long command with its output in a log file, and prints what runs and for how long.
 * @param {string} what the step in words ("fetching the sources of QEMU 10.0.2")
 * @param {string} log path of the log file, appended to
 * @param {object} [options] of spawn; `patient`: an interrupt waits for the command instead of
 *   ending it
 * @throws {SetupError} when it fails, with the end of the log; after an interrupt, with exit
 *   code 130
 */
export async function runLogged(what, log, command, args, { patient = false, ...options } = {}) {
  const started = Date.now();
  const elapsed = () => `${Math.round((Date.now() - started) / 1000)} s`;
  say(`${what} …`);
  const ticker = setInterval(() => say(`${what} … ${elapsed()}`), PROGRESS_EVERY_MS);
  const fd = openSync(log, 'a');
  try {
    const stdio = { stdio: ['ignore', fd, fd], ...options };
    const { status, stopped } = await supervise(command, args, stdio, patient);
    if (stopped) {
      throw new SetupError('stopped; run the command again to go on from here.', INTERRUPTED);
    }
    if (status !== 0) {
      throw new SetupError(`${what} failed (${status}). The end of ${log}:\n${tail(log)}`);
    }
  } finally {
    clearInterval(ticker);
    closeSync(fd);
  }
  if (Date.now() - started > 2000) {
    say(`${what}: done in ${elapsed()}`);
  }
}

/**
 * Runs a command with the terminal as its own and passes its exit status back.
 * SIGINT reaches it from the terminal; this process waits for it to clean up.
 * @returns {Promise<number>} exit status, 128 + n when a signal ended it
 */
export function runForeground(command, args, options = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: 'inherit', ...options });
    const keep = () => {};
    const forward = (signal) => child.kill(signal);
    process.on('SIGINT', keep);
    process.on('SIGTERM', forward);
    child.on('error', (error) => reject(new SetupError(`${command}: ${error.message}`)));
    child.on('exit', (code, signal) => {
      process.off('SIGINT', keep);
      process.off('SIGTERM', forward);
      resolve(code ?? 128 + constants.signals[signal]);
    });
  });
}
