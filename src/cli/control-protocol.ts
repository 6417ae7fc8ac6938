import { machineName } from '../base/text.js';
import type { DumpNode } from '../device/iommu.js';
import type { ViommuEvent } from '../events/viommu-events.js';
import type { SessionReport } from '../session/report.js';
import type { AuditAnswer } from '../shadow/audit/audit.js';
import type { DiffAnswer } from '../shadow/check.js';

/**
 * The control channel: WebSocket over an AF_UNIX socket beside the one that virtual machine
 * monitors use. The daemon greets with {@link Greeting}; then every text frame is one JSON object:
 * a {@link ControlRequest}, its {@link ControlReply}, or, after `watch`, a {@link ControlEvent}.
 * docs/protocol.md describes it for people.
 */
export const CONTROL_VERSION = 1;

/** Largest request. Replies may be larger: a dump is. */
export const MAX_REQUEST_BYTES = 65536;

/** Whether a person means this machine: by its name as it is shown, or as its creator wrote it. */
export function isNamed(machine: string, wanted: string): boolean {
  return machine === wanted || machine === machineName(wanted);
}

export interface Greeting {
  readonly viommu: typeof CONTROL_VERSION;
  readonly version: string;
  readonly pid: number;
}

export const CONTROL_METHODS = ['list', 'dump', 'report', 'diff', 'completions', 'watch'] as const;
export type ControlMethod = (typeof CONTROL_METHODS)[number];

export interface ControlRequest {
  readonly id: number;
  readonly method: ControlMethod;
  readonly params?: Readonly<Record<string, unknown>>;
}

export const CONTROL_ERRORS = {
  badRequest: 'not a JSON object with a numeric id and a method',
  unknownMethod: 'no method of that name',
  badParams: 'a parameter is missing or has the wrong type',
  noSuchVm: 'no virtual machine of that name is connected',
  ambiguousVm: 'several virtual machines are connected; name one',
  gone: 'the virtual machine disconnected before the answer',
  internal: 'the daemon failed to answer; its log says why',
} as const;
type ControlErrorCode = keyof typeof CONTROL_ERRORS;

interface ControlFailure {
  readonly code: ControlErrorCode;
  readonly message: string;
}

export type ControlReply =
  | { readonly id: number; readonly result: unknown }
  | { readonly id: number | null; readonly error: ControlFailure };

export interface ControlEvent {
  readonly vm: string;
  /** When the main thread received it, in milliseconds since 1970. */
  readonly time: number;
  readonly event: ViommuEvent | SessionChange;
}

interface SessionChange {
  readonly kind: 'disconnected';
  readonly detail: string;
}

/** One entry of `list`. */
export interface VmSummary {
  readonly vm: string;
  /** Milliseconds since 1970. */
  readonly since: number;
}

export interface DumpAnswer {
  readonly vm: string;
  readonly nodes: readonly DumpNode[];
}

export interface ReportAnswer {
  readonly vm: string;
  readonly report: SessionReport;
}

export interface DiffReply extends DiffAnswer {
  readonly vm: string;
}

export interface CompletionReply extends AuditAnswer {
  readonly vm: string;
}

/** An error that is sent to the client as it is. */
export class ControlError extends Error {
  readonly code: ControlErrorCode;

  constructor(code: ControlErrorCode, message: string = CONTROL_ERRORS[code]) {
    super(message);
    this.name = 'ControlError';
    this.code = code;
  }

  toFailure(): ControlFailure {
    return { code: this.code, message: this.message };
  }
}
