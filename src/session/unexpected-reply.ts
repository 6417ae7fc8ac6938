/** The error for an answer that answers nothing. */
import { CodedError } from '../base/errors.js';
import { messageName } from '../wire/frame.js';

/** An answer that no request waits for. */
export function notWaitedFor(type: number, id: number): CodedError {
  return new CodedError('UNEXPECTED_REPLY', `a reply to ${messageName(type)}, ${id}, that is not waited for`);
}
