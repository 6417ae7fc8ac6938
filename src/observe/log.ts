import { type DestinationStream, type Logger, pino } from 'pino';

import { plainText } from '../base/text.js';

export type { Logger } from 'pino';

/** What is logged: this level and those behind it. */
export const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'] as const;
export type LogThreshold = (typeof LOG_LEVELS)[number];

interface LogOptions {
  readonly level: LogThreshold;
  /** One JSON object a line, for machines; otherwise one short line for people. */
  readonly json: boolean;
  /** Milliseconds since 1970, from the owner of the clock. */
  readonly now: () => number;
  /** Receives whole lines, newline included. */
  readonly write: (line: string) => void;
}

/** The daemon's log. Field `vm` names a session; every coded error carries `code`. */
export function createLog(options: LogOptions): Logger {
  const destination: DestinationStream = options.json
    ? { write: options.write }
    : { write: (line) => options.write(`${prettyLine(line)}\n`) };
  return pino(
    { level: options.level, base: null, timestamp: () => `,"time":${Math.trunc(options.now())}` },
    destination,
  );
}

const LEVEL_NAMES: Readonly<Record<number, string>> = {
  10: 'trace',
  20: 'debug',
  30: 'info ',
  40: 'warn ',
  50: 'error',
  60: 'fatal',
};

/**
 * `12:03:44.120Z info  [vm] message key=value`, from one of pino's JSON lines; other text
 * unchanged.
 */
export function prettyLine(line: string): string {
  let record: Record<string, unknown>;
  try {
    const parsed: unknown = JSON.parse(line);
    if (typeof parsed !== 'object' || parsed === null) return line.trimEnd();
    record = parsed as Record<string, unknown>;
  } catch {
    return line.trimEnd();
  }
  const { level, time, msg, vm, stack, ...rest } = record;
  const head = `${timeOfDay(Number(time))} ${LEVEL_NAMES[Number(level)] ?? String(level)}`;
  const who = vm === undefined ? '' : ` [${plainText(String(vm))}]`;
  const fields = Object.entries(rest).map(([key, value]) => ` ${key}=${plain(value)}`);
  const trace = typeof stack === 'string' ? `\n${stack.split('\n').map(plainText).join('\n')}` : '';
  return `${head}${who} ${plainText(String(msg ?? ''))}${fields.join('')}${trace}`;
}

function plain(value: unknown): string {
  return plainText(typeof value === 'string' ? value : JSON.stringify(value));
}

/** Time of day in UTC of milliseconds since 1970. */
export function timeOfDay(milliseconds: number): string {
  const day = ((milliseconds % 86_400_000) + 86_400_000) % 86_400_000;
  const two = (value: number): string => String(Math.floor(value)).padStart(2, '0');
  const fraction = String(Math.floor(day % 1000)).padStart(3, '0');
  return `${two(day / 3_600_000)}:${two((day / 60_000) % 60)}:${two((day / 1000) % 60)}.${fraction}Z`;
}
