/**
 * Everything that observers can hear of, as one typed union. A session's thread sends events to the
 * main thread, which hands them to its listeners (`Daemon.onEvent`, the control channel, the
 * log). Observers come and go without changing one byte of what the engine does.
 */
import type { ModelEvent } from '../device/iommu.js';

/** What happens to a session rather than inside its model. */
type SessionEvent =
  | { readonly kind: 'hello'; readonly vm: string; readonly model: string; readonly peer: string }
  | {
      readonly kind: 'regionAdded';
      readonly region: number;
      readonly gpa: number;
      readonly size: number;
      readonly shared: boolean;
    }
  | { readonly kind: 'regionRemoved'; readonly region: number }
  | { readonly kind: 'deviceAdded'; readonly device: number; readonly rid: number; readonly name: string }
  | { readonly kind: 'deviceRemoved'; readonly device: number }
  | { readonly kind: 'reset' };

/** What a host refuses, and what shadowing can't or had to do. */
export type ShadowEvent =
  | {
      readonly kind: 'hostRefused';
      readonly device: number;
      readonly rid: number;
      /** Of the first operation refused. */
      readonly unmap: boolean;
      readonly lo: number;
      readonly hi: number;
      readonly bytes: number;
      /** Error number of the host. */
      readonly error: number;
      /** Operations refused in this batch, and blocks of this device that are refused now. */
      readonly count: number;
      readonly failed: number;
    }
  | { readonly kind: 'hostAccepted'; readonly device: number; readonly rid: number }
  | { readonly kind: 'hostSplit'; readonly device: number; readonly rid: number; readonly count: number }
  /** The guest has more than is shadowed: what is beyond is not mapped. */
  | {
      readonly kind: 'shadowLimit';
      readonly device: number;
      readonly rid: number;
      readonly what: 'tables' | 'mappings';
    }
  /**
   * The guest has chosen tables for a device to which mappings come unannounced: these are not
   * mapped.
   */
  | { readonly kind: 'shadowSilent'; readonly device: number; readonly rid: number };

export type ViommuEvent = ModelEvent | SessionEvent | ShadowEvent;
