/** What a session says of itself: for `viommu list`, reports and metrics. */

import { PAGE_BYTES } from '../base/page.js';
import { join } from '../base/u64.js';
import { type ModelCounters, zeroCounters } from '../device/counters.js';
import type { NestingReport } from '../nesting/nesting.js';
import type { DeviceCounters } from '../shadow/device-space.js';
import { CONTROL, SHARED } from '../wire/frame.js';
import type { AssignedReport } from './assigned.js';
import type { InterruptReport } from './interrupt-requests.js';
import type { Session } from './session.js';

/** Counters that the bridge keeps in the control page. */
interface BridgeCounters {
  /** Translations answered inside the monitor. */
  readonly hits: number;
  /** Those that it found by walking tables itself. */
  readonly walks: number;
  /** Translations asked for. */
  readonly misses: number;
  readonly staleFills: number;
  readonly droppedEntries: number;
  readonly refused: number;
  /** Interrupts remapped inside the monitor, asked for, and blocked. */
  readonly interruptHits: number;
  readonly interruptsAsked: number;
  readonly interruptsBlocked: number;
  readonly writesSent: number;
  readonly writesHandled: number;
}

interface DeviceReport {
  readonly device: number;
  readonly rid: number;
  readonly name: string;
  /** `NOTIFY` bits of the wire. */
  readonly notify: number;
}

/** What shadowing one device takes. */
interface ShadowReport {
  readonly device: number;
  readonly rid: number;
  /** Mappings in force, and what they cover. */
  readonly mappings: number;
  readonly bytes: number;
  /** Mappings that the host refused, as many as are remembered. */
  readonly failed: number;
  readonly counters: DeviceCounters;
}

export interface SessionReport {
  readonly session: string;
  /** Empty before HELLO, as are all names. */
  readonly vm: string;
  readonly peer: string;
  readonly model: string;
  readonly options: Readonly<Record<string, string>>;
  readonly features: number;
  readonly regions: number;
  /** Regions that are not mapped but asked for by messages, which is slow. */
  readonly remoteRegions: number;
  readonly devices: readonly DeviceReport[];
  readonly epoch: number;
  readonly invalidationsSent: number;
  /** Invalidations that needed no message, and those merged because the peer was slow. */
  readonly invalidationsSuppressed: number;
  readonly invalidationsMerged: number;
  /**
   * ATS invalidation requests sent to devices: 0 with ATS switched on in one means that the guest
   * forgets them.
   */
  readonly deviceTlbInvalidations: number;
  readonly pendingAcks: number;
  readonly interrupts: InterruptReport;
  readonly shadow: readonly ShadowReport[];
  /** Looks at tables or differences for shadowing. */
  readonly shadowPasses: number;
  /** Devices with objects of the host, and how each is served. */
  readonly assigned: readonly AssignedReport[];
  readonly nesting: NestingReport;
  readonly frontFrames: number;
  readonly backendFrames: number;
  readonly counters: ModelCounters;
  /** Of `counters.commands`, those that the peer has carried out itself. */
  readonly commandsByPeer: number;
  readonly bridge: BridgeCounters;
}

const NO_COUNTERS: ModelCounters = zeroCounters();

export function reportOf(session: Session): SessionReport {
  const { agreement, invalidations, devices } = session;
  return {
    session: session.settings.session,
    vm: agreement?.vm ?? '',
    peer: agreement?.peer ?? '',
    model: agreement?.modelName ?? '',
    options: agreement?.options ?? {},
    features: agreement?.features ?? 0,
    regions: session.memory.regions,
    remoteRegions: session.memory.remote.size,
    devices: Array.from(devices.all(), ({ device, rid, name, flags }) => ({
      device,
      rid,
      name,
      notify: flags,
    })),
    epoch: invalidations.epoch,
    invalidationsSent: invalidations.sent,
    invalidationsSuppressed: invalidations.suppressed,
    invalidationsMerged: invalidations.merged,
    deviceTlbInvalidations: session.deviceTlbs.sent,
    pendingAcks: session.completions.pending,
    interrupts: session.interrupts.report,
    shadow: Array.from(session.shadowing.shadow.devices, (space) => ({
      device: space.device,
      rid: space.rid,
      mappings: space.held.count,
      bytes: space.held.pages * PAGE_BYTES,
      failed: space.failed.count,
      counters: { ...space.counters },
    })),
    shadowPasses: session.shadowing.shadow.passes,
    assigned: session.assigned.report,
    nesting: session.assigned.nesting.report,
    frontFrames: session.frames[0] as number,
    backendFrames: session.frames[1] as number,
    commandsByPeer: session.peerCommands.taken,
    counters: { ...(session.model?.counters ?? NO_COUNTERS) },
    bridge: bridgeCounters(session.page?.control ?? NO_CONTROL),
  };
}

const NO_CONTROL = new Uint32Array(SHARED.SAVED / 4);

function bridgeCounters(control: Uint32Array): BridgeCounters {
  const word = (index: number): number => Atomics.load(control, index);
  return {
    hits: join(word(CONTROL.HITS_LO), word(CONTROL.HITS_HI)),
    walks: join(word(CONTROL.PEER_WALKS_LO), word(CONTROL.PEER_WALKS_HI)),
    misses: join(word(CONTROL.MISSES_LO), word(CONTROL.MISSES_HI)),
    staleFills: word(CONTROL.STALE_FILLS),
    droppedEntries: word(CONTROL.INVALIDATED),
    refused: word(CONTROL.REFUSED),
    interruptHits: join(word(CONTROL.INTERRUPT_HITS_LO), word(CONTROL.INTERRUPT_HITS_HI)),
    interruptsAsked: word(CONTROL.INTERRUPTS_ASKED),
    interruptsBlocked: word(CONTROL.INTERRUPTS_BLOCKED),
    writesSent: word(CONTROL.SENT),
    writesHandled: word(CONTROL.HANDLED),
  };
}
