/** Codes of HostReply: `HostResult` of the contract, in the order of the port's own errors. */
import { HOST_ERRORS, type HostErrorName } from '../host/host-errors.js';
import type { HostOutcome } from '../host/port.js';

const NAMES = Object.keys(HOST_ERRORS) as HostErrorName[];

/** Number of an outcome's code. */
export function hostResult(code: HostOutcome['code']): number {
  return code === 'OK' ? 0 : NAMES.indexOf(code) + 1;
}

/** The code with a number; undefined for one that this version does not know. */
export function hostCode(result: number): HostOutcome['code'] | undefined {
  return result === 0 ? 'OK' : NAMES[result - 1];
}
