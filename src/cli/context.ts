import { constants } from 'node:os';
import type { LogThreshold } from '../observe/log.js';

/** Where a command writes for people. */
export interface Output {
  write(text: string): void;
  readonly isTTY: boolean;
  /** Columns of the terminal; undefined when it is none. */
  readonly columns: number | undefined;
}

/**
 * Everything outside the process that a command may use. `main.ts` makes the real one, tests make
 * their own.
 */
export interface CliContext {
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Milliseconds since 1970. */
  readonly now: () => number;
  readonly stdout: Output;
  readonly stderr: Output;
  readonly pid: number;
  readonly uid: number;
  /** Directory of the package, below which the set-up notes what it prepared for it. */
  readonly root: string;
  /** Version of the package, for people and for the control channel. */
  readonly version: string;
  /** Calls `handler` for each of these signals until the returned function is called. */
  onSignals(names: readonly NodeJS.Signals[], handler: (name: NodeJS.Signals) => void): () => void;
  /** Ends the process at once, whatever is under way. */
  exitNow(code: number): void;
}

/**
 * Exit codes of `viommu` itself; `viommu qemu` passes QEMU's on and uses the three of env(1) for
 * its own.
 */
export const EXIT = {
  OK: 0,
  /** The command ran and failed; stderr says why. */
  FAILED: 1,
  /** The command line is wrong. */
  USAGE: 2,
  /** No daemon, or no virtual machine of that name. */
  NOT_FOUND: 3,
  /** `viommu qemu`: failed before QEMU was started. */
  LAUNCH_FAILED: 125,
  NOT_EXECUTABLE: 126,
  NO_SUCH_PROGRAM: 127,
} as const;

/**
 * Ends the command with a message and an exit code. It is the user's error, so no stack is printed.
 */
export class CliError extends Error {
  readonly exitCode: number;

  constructor(message: string, exitCode: number = EXIT.FAILED) {
    super(message);
    this.name = 'CliError';
    this.exitCode = exitCode;
  }
}

/** Options of every command that runs a daemon. */
export interface LogChoice {
  readonly logLevel: LogThreshold;
  readonly logJson: boolean;
}

/** 128 + n, as a shell reports the end by signal n. */
export function signalExitCode(signal: NodeJS.Signals): number {
  return 128 + (constants.signals[signal] ?? 0);
}

/** Text of an unknown thrown value. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** `code` of a failed system call (`ENOENT` …), or undefined. */
export function errnoOf(error: unknown): string | undefined {
  const code = (error as { code?: unknown } | null)?.code;
  return typeof code === 'string' ? code : undefined;
}

/** A context for output only, over a writable stream. */
export function outputOf(stream: NodeJS.WriteStream): Output {
  return {
    write: (text) => void stream.write(text),
    get isTTY() {
      return stream.isTTY === true;
    },
    get columns() {
      return stream.columns;
    },
  };
}
