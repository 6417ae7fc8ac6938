/**
 * MEM_ADD and MEM_REMOVE: what goes wrong with one region is its answer, not the connection's end.
 */
import { CodedError, type ErrorName } from '../base/errors.js';
import { join } from '../base/u64.js';
import type { Iommu } from '../device/iommu.js';
import { UNMAPPABLE } from '../memory/mapped.js';
import type { Region } from '../memory/regions.js';
import type { Shadow } from '../shadow/shadow.js';
import { CODEC } from '../wire/codec.js';
import { FEATURE, type Frame } from '../wire/frame.js';
import type { MemAdd, MemRemove, Status } from '../wire/messages.js';
import type { AssignedDevices } from './assigned.js';
import type { Connection } from './connection.js';
import { expectDescriptors } from './descriptor-count.js';
import type { HostAnswers } from './host-answers.js';
import type { SessionPorts } from './ports.js';

export class MemoryTable {
  readonly #connection: Connection;
  readonly #ports: Pick<SessionPorts, 'memory' | 'fileBytes' | 'log' | 'event'>;
  readonly #shadow: Shadow;
  readonly #assigned: AssignedDevices;
  readonly #answers: HostAnswers;
  regions = 0;
  /** Of these, those that are reached by messages. */
  readonly remote = new Set<number>();
  /** A file that may shrink was named in the log, which is done once. */
  #unsealed = false;
  /** Why files could not be mapped; each reason is logged once. */
  readonly #unmappable = new Set<ErrorName>();

  constructor(
    connection: Connection,
    ports: Pick<SessionPorts, 'memory' | 'fileBytes' | 'log' | 'event'>,
    shadow: Shadow,
    assigned: AssignedDevices,
    answers: HostAnswers,
  ) {
    this.#connection = connection;
    this.#ports = ports;
    this.#shadow = shadow;
    this.#assigned = assigned;
    this.#answers = answers;
  }

  /** Handler of MEM_ADD. */
  add(frame: Frame, message: MemAdd): void {
    const connection = this.#connection;
    const ports = this.#ports;
    const needed = message.shared ? FEATURE.SHARED_MEMORY : FEATURE.REMOTE_MEMORY;
    if ((connection.features & needed) === 0) {
      throw new CodedError('NOT_NEGOTIATED', `MEM_ADD of ${message.shared ? 'shared' : 'remote'} memory`);
    }
    expectDescriptors(frame, message.shared ? 1 : 0);
    const placed = {
      region: message.region,
      gpa: join(message.gpaLo, message.gpaHi),
      size: join(message.sizeLo, message.sizeHi),
      readonly: message.readonly,
    };
    const status = statusOf(() => {
      const why = message.shared
        ? this.#addShared(frame, placed, join(message.offsetLo, message.offsetHi))
        : this.#addRemote(placed);
      this.regions++;
      const { region, gpa, size, readonly } = placed;
      this.#shadow.ramAdded(region, gpa, size, readonly, connection.model as Iommu);
      this.#assigned.ramAdded(region, gpa, size, readonly);
      const shared = message.shared && why === '';
      ports.event({ kind: 'regionAdded', region, gpa, size, shared });
      return why;
    });
    connection.reply(frame, CODEC.Status, status);
  }

  /** Handler of MEM_REMOVE: answered when no host object has the region any more. */
  remove(frame: Frame, { region }: MemRemove): void {
    const status = statusOf(() => {
      this.#ports.memory.remove(region);
      this.#shadow.ramRemoved(region, this.#connection.model as Iommu);
      this.#assigned.ramRemoved(region);
      this.regions--;
      this.remote.delete(region);
      this.#ports.event({ kind: 'regionRemoved', region });
      return '';
    });
    this.#answers.replyWhenDone(frame, CODEC.Status, status);
  }

  #addRemote(placed: Region): string {
    this.#ports.memory.addRemote(placed);
    this.remote.add(placed.region);
    return '';
  }

  /**
   * Maps a region's file. One that cannot be mapped is guest memory all the same: it is reached by
   * messages, where the peer serves them, and this returns why.
   */
  #addShared(frame: Frame, placed: Region, offset: number): string {
    try {
      this.#addMapped(frame, placed, offset);
      return '';
    } catch (error) {
      const served = (this.#connection.features & FEATURE.REMOTE_MEMORY) !== 0;
      if (!(error instanceof CodedError) || !UNMAPPABLE.includes(error.reason) || !served) throw error;
      this.#addRemote(placed);
      if (!this.#unmappable.has(error.reason)) {
        this.#unmappable.add(error.reason);
        const { region, gpa, size } = placed;
        const text = 'guest memory cannot be mapped; it is asked for by messages, which is slow';
        this.#ports.log('warn', text, { region, gpa, size, reason: error.reason, text: error.message });
      }
      return `reached by messages: ${error.message}`;
    }
  }

  #addMapped(frame: Frame, placed: Region, offset: number): void {
    const { memory, fileBytes, log } = this.#ports;
    // The frame keeps the descriptor, and its receiver closes it: a mapping needs only the file.
    const fd = frame.descriptors[0] as number;
    const sealed = memory.addMapped({ ...placed, offset, fd, fileBytes: fileBytes(fd) });
    if (sealed || this.#unsealed) return;
    this.#unsealed = true;
    const text = 'guest memory is in a file that may shrink: if it does, this daemon dies';
    log('warn', text, { region: placed.region });
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
