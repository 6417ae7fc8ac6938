/** MEM_ADD and MEM_REMOVE: what goes wrong with one region is its answer, not the connection's end. */
import { CodedError } from '../base/errors.js';
import { join } from '../base/u64.js';
import type { Iommu } from '../device/iommu.js';
import { UNMAPPABLE } from '../memory/mapped.js';
import { CODEC } from '../wire/codec.js';
import { FEATURE, type Frame } from '../wire/frame.js';
import type { MemAdd, MemRemove, Status } from '../wire/messages.js';
import { expectDescriptors } from './descriptors.js';
import type { Session } from './session.js';

/** Handler of MEM_ADD. */
export function addRegion(session: Session, frame: Frame, message: MemAdd): void {
  const needed = message.shared ? FEATURE.SHARED_MEMORY : FEATURE.REMOTE_MEMORY;
  if (((session.agreement?.features ?? 0) & needed) === 0) {
    throw new CodedError('NOT_NEGOTIATED', `MEM_ADD of ${message.shared ? 'shared' : 'remote'} memory`);
  }
  expectDescriptors(frame, message.shared ? 1 : 0);
  const region = {
    region: message.region,
    gpa: join(message.gpaLo, message.gpaHi),
    size: join(message.sizeLo, message.sizeHi),
    readonly: message.readonly,
  };
  session.reply(
    frame,
    CODEC.Status,
    statusOf(() => {
      const why = message.shared
        ? addShared(session, frame, region, join(message.offsetLo, message.offsetHi))
        : addRemote(session, region);
      session.regions++;
      const { gpa, size } = region;
      session.shadowing.shadow.ramAdded(region.region, gpa, size, region.readonly, session.model as Iommu);
      session.assigned.ramAdded(region.region, gpa, size, region.readonly);
      const shared = message.shared && why === '';
      session.ports.event({ kind: 'regionAdded', region: region.region, gpa, size, shared });
      return why;
    }),
  );
}

/** Handler of MEM_REMOVE: answered when no host object has the region any more. */
export function removeRegion(session: Session, frame: Frame, message: MemRemove): void {
  const status = statusOf(() => {
    session.ports.memory.remove(message.region);
    session.shadowing.shadow.ramRemoved(message.region, session.model as Iommu);
    session.assigned.ramRemoved(message.region);
    session.regions--;
    session.remoteRegions.delete(message.region);
    session.ports.event({ kind: 'regionRemoved', region: message.region });
    return '';
  });
  session.replyWhenHostIsDone(frame, CODEC.Status, status);
}

type Placed = {
  readonly region: number;
  readonly gpa: number;
  readonly size: number;
  readonly readonly: boolean;
};

function addRemote(session: Session, region: Placed): string {
  session.ports.memory.addRemote(region);
  session.remoteRegions.add(region.region);
  return '';
}

/**
 * Maps a region's file. One that cannot be mapped is guest memory all the same: then it is reached by messages, where the peer
 * serves them, and this returns why.
 */
function addShared(session: Session, frame: Frame, region: Placed, offset: number): string {
  try {
    addMapped(session, frame, region, offset);
    return '';
  } catch (error) {
    const served = ((session.agreement?.features ?? 0) & FEATURE.REMOTE_MEMORY) !== 0;
    if (!(error instanceof CodedError) || !UNMAPPABLE.includes(error.reason) || !served) throw error;
    addRemote(session, region);
    if (!session.unmappable.has(error.reason)) {
      session.unmappable.add(error.reason);
      session.ports.log('warn', 'guest memory cannot be mapped; it is asked for by messages, which is slow', {
        ...{ region: region.region, gpa: region.gpa, size: region.size },
        ...{ reason: error.reason, text: error.message },
      });
    }
    return `reached by messages: ${error.message}`;
  }
}

function addMapped(session: Session, frame: Frame, region: Placed, offset: number): void {
  const { ports } = session;
  // The frame keeps the descriptor, and whoever received the frame closes it: a mapping needs only the file.
  const fd = frame.descriptors[0] as number;
  const sealed = ports.memory.addMapped({ ...region, offset, fd, fileBytes: ports.fileBytes(fd) });
  if (!sealed && session.unsealedRegions++ === 0) {
    ports.log('warn', 'guest memory is in a file that may shrink: if it does, this daemon dies', {
      region: region.region,
    });
  }
}

/** @param work returns what there is to say of it, if it went well */
function statusOf(work: () => string): Status {
  try {
    return { code: 0, text: work() };
  } catch (error) {
    if (error instanceof CodedError && error.severity === 'request')
      return { code: error.code, text: error.message };
    throw error;
  }
}
