/** What a session's loop is told when it is made, and whom it tells what happens. */
import type { CodedError } from '../base/errors.js';
import type { ViommuEvent } from '../events/viommu-events.js';
import type { LogFields, LogLevel, SessionSettings } from './ports.js';

export interface LoopOptions extends SessionSettings {
  /** Refuse files that may shrink. */
  readonly requireSealed: boolean;
}

export interface LoopObserver {
  log(level: LogLevel, message: string, fields?: LogFields): void;
  event(event: ViommuEvent): void;
  /**
   * The main thread wants something. Returns an error if the session has to end. `midway`: the
   * engine waits for memory in the middle of an input, so it must not be asked for anything that
   * reads memory; a call without it follows.
   */
  wake(midway: boolean): CodedError | undefined;
}
