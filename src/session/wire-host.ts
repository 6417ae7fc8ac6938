/**
 * The host port over the wire: what shadowing and nesting ask of a host becomes HOST_… messages on
 * the backend channel, and their HostReplies are the completions. The peer carries them out in
 * order, so answers come in order. A list that does not fit into one frame goes in several, each
 * after the one before has succeeded. Nothing else is sent in between.
 */

import type { HostCapabilities } from '../assignment/request.js';
import { CodedError } from '../base/errors.js';
import { PAGE_OFFSET, pageHi, pageLo } from '../base/page.js';
import { HostError } from '../host/host-errors.js';
import {
  encodeTable,
  INVALIDATE_TYPE,
  INVALIDATE_WORDS,
  putVtdInvalidation,
  toBytes,
} from '../host/kernel-structures.js';
import type {
  HostDevice,
  HostDone,
  HostEvents,
  HostInvalidations,
  HostIommu,
  HostLimits,
  MapChanges,
  NestedTable,
  SpaceNumber,
} from '../host/port.js';
import { CODEC, type Codec } from '../wire/codec.js';
import { FLAG, MESSAGE } from '../wire/frame.js';
import { hostCode } from '../wire/host-results.js';
import type * as M from '../wire/messages.js';
import type { Outlet } from './ports.js';

/**
 * Entries of one frame, below its 64 KiB: operations of 28 bytes; commands of 16; invalidations of
 * 24, each with a target of 12.
 */
const MOST_OPERATIONS = 2048;
const MOST_COMMANDS = 4000;
const MOST_RANGES = 1800;
const OPERATION_WORDS = 7;

/** What the peer has said of a device. */
export interface AnnouncedDevice {
  readonly capabilities: HostCapabilities;
  readonly limits: HostLimits;
}

interface Operation {
  readonly type: number;
  readonly codec: Codec<object>;
  /** What is still to be sent, in order. */
  readonly parts: object[];
  readonly done: HostDone;
  /** Entries carried out by the parts before. */
  carriedOut: number;
  id: number;
}

export class WireHost implements HostIommu {
  /** Where faults, refusals and page requests of nested devices go. */
  events: HostEvents | undefined;
  /** HOST_… messages sent, for reports. */
  sent = 0;
  #backend: Outlet | undefined;
  readonly #devices = new Map<HostDevice, AnnouncedDevice>();
  /** StreamIDs by which the guest knows devices. */
  readonly #streams = new Map<number, HostDevice>();
  readonly #smmuSpaces = new Set<SpaceNumber>();
  /** Sent and not answered, in order. */
  readonly #waiting: Operation[] = [];
  /** Behind a list of several frames. */
  readonly #held: Operation[] = [];
  #nextId = 1;

  /** @param backend where messages go; undefined: the peer has no host objects */
  open(backend: Outlet | undefined): void {
    this.#backend = backend;
  }

  announce(device: HostDevice, announced: AnnouncedDevice): void {
    this.#devices.set(device, announced);
  }

  forget(device: HostDevice): void {
    this.#devices.delete(device);
    for (const [stream, found] of this.#streams) if (found === device) this.#streams.delete(stream);
  }

  /** The device that the guest knows by a StreamID. */
  deviceOf(streamId: number): HostDevice | undefined {
    return this.#streams.get(streamId);
  }

  capabilities(device: HostDevice): HostCapabilities {
    return this.#announced(device).capabilities;
  }

  limits(device: HostDevice): HostLimits {
    return this.#announced(device).limits;
  }

  listen(events: HostEvents): void {
    this.events = events;
  }

  createSpace(space: SpaceNumber, device: HostDevice, parent: boolean, done: HostDone): void {
    if (this.#devices.get(device)?.capabilities.kind === 'smmuv3') this.#smmuSpaces.add(space);
    this.#ask(MESSAGE.HOST_SPACE_CREATE, CODEC.HostSpaceCreate, { space, device, parent }, done);
  }

  destroySpace(space: SpaceNumber, done: HostDone): void {
    this.#smmuSpaces.delete(space);
    this.#ask(MESSAGE.HOST_SPACE_DESTROY, CODEC.HostSpaceDestroy, { space }, done);
  }

  change(space: SpaceNumber, changes: MapChanges, done: HostDone): void {
    const words = operationsOf(changes);
    const parts: M.HostMap[] = [];
    for (let at = 0; at === 0 || at < words.length; at += MOST_OPERATIONS * OPERATION_WORDS) {
      parts.push({ space, ops: words.subarray(at, at + MOST_OPERATIONS * OPERATION_WORDS) });
    }
    this.#askInParts(MESSAGE.HOST_MAP, CODEC.HostMap, parts, done);
  }

  attach(device: HostDevice, pasid: number, space: SpaceNumber, done: HostDone): void {
    this.#ask(MESSAGE.HOST_ATTACH, CODEC.HostAttach, { device, pasid: pasid + 1, space }, done);
  }

  attachNested(
    device: HostDevice,
    pasid: number,
    parent: SpaceNumber,
    table: NestedTable,
    done: HostDone,
  ): void {
    const { type, data } = encodeTable(table);
    const message = { device, pasid: pasid + 1, parent, type, data };
    this.#ask(MESSAGE.HOST_ATTACH_TABLES, CODEC.HostAttachTables, message, done);
  }

  detach(device: HostDevice, pasid: number, done: HostDone): void {
    this.#ask(MESSAGE.HOST_DETACH, CODEC.HostDetach, { device, pasid: pasid + 1 }, done);
  }

  identify(device: HostDevice, streamId: number, done: HostDone): void {
    for (const [stream, found] of this.#streams) if (found === device) this.#streams.delete(stream);
    this.#streams.set(streamId, device);
    this.#ask(MESSAGE.HOST_IDENTIFY, CODEC.HostIdentify, { device, idLo: streamId, idHi: 0 }, done);
  }

  invalidate(parent: SpaceNumber, invalidations: HostInvalidations, done: HostDone): void {
    const smmu = this.#smmuSpaces.has(parent);
    const most = smmu ? MOST_COMMANDS : MOST_RANGES;
    const parts: M.HostInvalidate[] = [];
    for (let from = 0; from === 0 || from < invalidations.count; from += most) {
      const count = Math.min(most, invalidations.count - from);
      parts.push(
        smmu ? commandsOf(parent, invalidations, from, count) : rangesOf(parent, invalidations, from, count),
      );
    }
    this.#askInParts(MESSAGE.HOST_INVALIDATE, CODEC.HostInvalidate, parts, done);
  }

  allocatePasid(device: HostDevice, done: HostDone): void {
    this.#ask(MESSAGE.HOST_PASID_ALLOC, CODEC.HostPasidAlloc, { device }, done);
  }

  freePasid(device: HostDevice, pasid: number, done: HostDone): void {
    this.#ask(MESSAGE.HOST_PASID_FREE, CODEC.HostPasidFree, { device, pasid }, done);
  }

  respond(device: HostDevice, pasid: number, group: number, code: number): void {
    const message = { device, pasid: pasid + 1, group, code };
    this.sent++;
    this.#backend?.put(MESSAGE.HOST_RESPOND, 0, 0, CODEC.HostRespond, message);
  }

  /** The peer answers. Throws `UNEXPECTED_REPLY`, `BAD_ARGUMENT`. */
  answered(type: number, id: number, reply: M.HostReply): void {
    const operation = this.#waiting[0];
    if (operation === undefined || operation.id !== id || operation.type !== type) {
      throw new CodedError('UNEXPECTED_REPLY', `an answer to host operation ${id} that is not the next one`);
    }
    const code = hostCode(reply.code);
    if (code === undefined) throw new CodedError('BAD_ARGUMENT', `host result ${reply.code}`);
    this.#waiting.shift();
    const done = operation.carriedOut + reply.done;
    if (code === 'OK' && operation.parts.length > 0) {
      operation.carriedOut = done;
      this.#send(operation);
      return;
    }
    this.#sendHeld();
    operation.done({ code, text: reply.text, done, value: reply.value });
  }

  #announced(device: HostDevice): AnnouncedDevice {
    const found = this.#devices.get(device);
    if (found === undefined) throw new HostError('NO_SUCH_DEVICE', String(device));
    return found;
  }

  #ask<T extends object>(type: number, codec: Codec<T>, message: T, done: HostDone): void {
    this.#askInParts(type, codec, [message], done);
  }

  #askInParts<T extends object>(type: number, codec: Codec<T>, parts: T[], done: HostDone): void {
    const operation = {
      type,
      codec: codec as unknown as Codec<object>,
      parts,
      done,
      carriedOut: 0,
      id: 0,
    };
    if (this.#held.length > 0 || this.#inParts()) this.#held.push(operation);
    else this.#send(operation);
  }

  /** A list that is not finished is the last thing that was sent. */
  #inParts(): boolean {
    const last = this.#waiting[this.#waiting.length - 1];
    return last !== undefined && last.parts.length > 0;
  }

  #sendHeld(): void {
    while (this.#held.length > 0 && !this.#inParts()) this.#send(this.#held.shift() as Operation);
  }

  #send(operation: Operation): void {
    operation.id = this.#nextId;
    this.#nextId = (this.#nextId + 1) >>> 0;
    this.sent++;
    this.#waiting.push(operation);
    const message = operation.parts.shift() as object;
    this.#backend?.put(operation.type, FLAG.NEED_REPLY, operation.id, operation.codec, message);
  }
}

/** Words of HOST_MAP: rights, first input address, last, guest-physical address. */
function operationsOf({ unmaps, unmapCount, maps, mapCount }: MapChanges): Uint32Array {
  const words = new Uint32Array((unmapCount + mapCount) * OPERATION_WORDS);
  for (let index = 0; index < unmapCount; index++) {
    putPages(words, index * OPERATION_WORDS, unmaps[index * 2], unmaps[index * 2 + 1]);
  }
  for (let index = 0; index < mapCount; index++) {
    const at = (unmapCount + index) * OPERATION_WORDS;
    const from = index * 4;
    putPages(words, at, maps[from], maps[from + 2]);
    words[at] = maps[from + 3];
    words[at + 5] = pageLo(maps[from + 1]);
    words[at + 6] = pageHi(maps[from + 1]);
  }
  return words;
}

function putPages(words: Uint32Array, at: number, page: number, pages: number): void {
  const last = page + pages - 1;
  words[at + 1] = pageLo(page);
  words[at + 2] = pageHi(page);
  words[at + 3] = pageLo(last) | PAGE_OFFSET;
  words[at + 4] = pageHi(last);
}

function commandsOf(
  space: number,
  { words }: HostInvalidations,
  from: number,
  count: number,
): M.HostInvalidate {
  const size = INVALIDATE_WORDS.SMMUV3;
  const entries = toBytes(words.subarray(from * size, (from + count) * size));
  return { space, type: INVALIDATE_TYPE.SMMUV3, size: size * 4, targets: [], entries };
}

/** Neighbours of one device and PASID are one target. */
function rangesOf(
  space: number,
  { words }: HostInvalidations,
  from: number,
  count: number,
): M.HostInvalidate {
  const size = INVALIDATE_WORDS.VTD * 4;
  const entries = new Uint8Array(count * size);
  const view = new DataView(entries.buffer);
  const targets: number[] = [];
  for (let index = 0; index < count; index++) {
    const at = (from + index) * 5;
    const last = targets.length - 3;
    if (last >= 0 && targets[last] === words[at] && targets[last + 1] === words[at + 1]) targets[last + 2]++;
    else targets.push(words[at], words[at + 1], 1);
    putVtdInvalidation(view, index * size, words[at + 2], words[at + 3], words[at + 4]);
  }
  return { space, type: INVALIDATE_TYPE.VTD, size, targets, entries };
}
