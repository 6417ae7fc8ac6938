/** What the main thread and a session's thread tell each other. */

import type { AssignmentSettings } from '../assignment/offer.js';
import type { ErrorName } from '../base/errors.js';
import type { DumpNode, DumpOptions } from '../device/iommu.js';
import type { ViommuEvent } from '../events/viommu-events.js';
import type { AuditAnswer } from '../shadow/audit/audit.js';
import type { DiffAnswer } from '../shadow/check.js';
import type { LogFields, LogLevel } from './ports.js';
import type { SessionReport } from './report.js';

/** Words of {@link WorkerStart.shared}. */
export const SHARED_WORD = {
  /** 1 when the thread must end, whatever else it was told. */
  STOP: 0,
  /** Events that the main thread has heard, modulo 2^32. */
  HEARD: 1,
  COUNT: 2,
} as const;

/** First message to the thread. */
export interface WorkerStart {
  readonly fd: number;
  readonly wakeFd: number;
  /** Words shared by both threads; see {@link SHARED_WORD}. */
  readonly shared: SharedArrayBuffer;
  readonly session: string;
  readonly modelDefaults: Readonly<Record<string, string>>;
  readonly assignment: AssignmentSettings | undefined;
  readonly requireSealed: boolean;
  /** Module that exports `models`, a `ModelFactory`, instead of the built-in ones; for tests. */
  readonly models?: string | undefined;
}

export type ToWorker =
  | { readonly id: number; readonly method: 'dump'; readonly options: DumpOptions }
  | { readonly id: number; readonly method: 'report' }
  | { readonly id: number; readonly method: 'diff'; readonly rid: number | undefined; readonly most: number }
  | { readonly id: number; readonly method: 'watchCompletions'; readonly on: boolean }
  | { readonly id: number; readonly method: 'completions'; readonly from: number };

export type FromWorker =
  | {
      readonly kind: 'reply';
      readonly id: number;
      readonly value: readonly DumpNode[] | SessionReport | DiffAnswer | AuditAnswer;
    }
  | { readonly kind: 'failed'; readonly id: number; readonly reason: ErrorName; readonly text: string }
  | { readonly kind: 'log'; readonly level: LogLevel; readonly message: string; readonly fields: LogFields }
  | { readonly kind: 'event'; readonly event: ViommuEvent }
  | {
      readonly kind: 'closed';
      readonly reason: ErrorName;
      readonly text: string;
      readonly report: SessionReport;
    };
