/**
 * The peer's side of host objects. It carries out the daemon's HOST_… requests on a simulated host,
 * as the QEMU bridge does on iommufd, and sends the host's events and page requests to the daemon.
 */

import { CONTAINERS, DEVICE_KINDS } from '../assignment/request.js';
import { PAGE_OFFSET, pageHi, pageLo, pageOf } from '../base/page.js';
import { join } from '../base/u64.js';
import { HostError } from '../host/host-errors.js';
import { decodeTable, EVENT_TYPE, INVALIDATE_TYPE, toBytes, toWords } from '../host/kernel-structures.js';
import { ALL_PAGES, type HostDone, HostInvalidations, type HostOutcome, MapChanges } from '../host/port.js';
import type { SimDevice } from '../host/sim/sim-device.js';
import type { SimGuest } from '../host/sim/sim-guest.js';
import type { SimHost } from '../host/sim/sim-host.js';
import type { Client } from '../wire/client.js';
import { MESSAGE } from '../wire/frame.js';
import { hostResult } from '../wire/host-results.js';
import type * as M from '../wire/messages.js';

const OPERATION_WORDS = 7;
const RANGE_WORDS = 6;
/** All that a simulated host can do. */
const ABILITIES = 0x3f;

export class AssignedHost {
  readonly #client: Client;
  constructor(
    readonly host: SimHost,
    readonly guest: SimGuest,
    client: Client,
  ) {
    this.#client = client;
    guest.listen({
      fault: ({ device, pasid, format, record }) =>
        client.post(MESSAGE.HOST_EVENT, {
          space: 0,
          device: device + 1,
          pasid: pasid + 1,
          type: format === 'smmuv3' ? EVENT_TYPE.SMMUV3 : EVENT_TYPE.VTD_FAULT,
          record: toBytes(record),
          lost: false,
        }),
      refusedPasid: ({ device, pasid, access, lo, hi }) =>
        client.post(MESSAGE.HOST_PASID_REFUSED, { device, pasid: pasid + 1, access, lo, hi }),
      pageRequest: (request) =>
        client.post(MESSAGE.HOST_PAGE_REQUEST, { ...request, pasid: request.pasid + 1 }),
    });
  }

  /** Announces a device to the daemon. Its handle on the wire is the host's number. */
  announce(device: SimDevice): M.HostDeviceReply {
    const { type, info } = this.host.driver.hardwareInfo();
    const { container, pasidBits } = this.guest.capabilities(device.number);
    const { ranges } = this.guest.limits(device.number);
    const reply = this.#client.request(MESSAGE.HOST_DEVICE, {
      device: device.number,
      kind: DEVICE_KINDS.indexOf(device.kind),
      container: (CONTAINERS.indexOf(container) + 1) % CONTAINERS.length,
      abilities: ABILITIES,
      infoType: type,
      info,
      pasidBits,
      ranges: ranges.flatMap(({ first, last }) => [
        pageLo(first),
        pageHi(first),
        (pageLo(last) | PAGE_OFFSET) >>> 0,
        pageHi(last),
      ]),
      mappings: 0,
      batches: false,
    });
    return { ...reply };
  }

  /** One operation, carried out to its end. */
  operation(type: number, message: object): M.HostReply {
    try {
      return this.#outcome((done) => this.#ask(type, message, done));
    } catch (error) {
      if (!(error instanceof HostError)) throw error;
      return { code: hostResult(error.code), text: error.message, done: 0, value: 0 };
    }
  }

  respond({ device, pasid, group, code }: M.HostRespond): void {
    this.guest.respond(device, pasid - 1, group, code);
  }

  /** Sends the events and page requests that the devices' DMA has caused. */
  deliver(): void {
    this.guest.deliver();
  }

  #outcome(ask: (done: HostDone) => void): M.HostReply {
    let ended: HostOutcome | undefined;
    ask((outcome) => {
      ended = outcome;
    });
    while (ended === undefined && this.guest.step());
    if (ended === undefined) throw new Error('simulated host: an operation did not end');
    const { code, text, done, value } = ended as HostOutcome;
    return { code: hostResult(code), text, done, value };
  }

  #ask(type: number, message: object, done: HostDone): void {
    const { guest } = this;
    switch (type) {
      case MESSAGE.HOST_SPACE_CREATE: {
        const { space, device, parent } = message as M.HostSpaceCreate;
        guest.createSpace(space, device, parent, done);
        return;
      }
      case MESSAGE.HOST_SPACE_DESTROY:
        guest.destroySpace((message as M.HostSpaceDestroy).space, done);
        return;
      case MESSAGE.HOST_MAP: {
        const { space, ops } = message as M.HostMap;
        guest.change(space, changesOf(ops), done);
        return;
      }
      case MESSAGE.HOST_ATTACH: {
        const { device, pasid, space } = message as M.HostAttach;
        guest.attach(device, pasid - 1, space, done);
        return;
      }
      case MESSAGE.HOST_ATTACH_TABLES: {
        const { device, pasid, parent, type: kind, data } = message as M.HostAttachTables;
        guest.attachNested(device, pasid - 1, parent, decodeTable(kind, data), done);
        return;
      }
      case MESSAGE.HOST_DETACH: {
        const { device, pasid } = message as M.HostDetach;
        guest.detach(device, pasid - 1, done);
        return;
      }
      case MESSAGE.HOST_IDENTIFY: {
        const { device, idLo } = message as M.HostIdentify;
        guest.identify(device, idLo, done);
        return;
      }
      case MESSAGE.HOST_INVALIDATE: {
        const { space } = message as M.HostInvalidate;
        guest.invalidate(space, invalidationsOf(message as M.HostInvalidate), done);
        return;
      }
      case MESSAGE.HOST_PASID_ALLOC:
        guest.allocatePasid((message as M.HostPasidAlloc).device, done);
        return;
      default: {
        const { device, pasid } = message as M.HostPasidFree;
        guest.freePasid(device, pasid, done);
      }
    }
  }
}

function changesOf(ops: ArrayLike<number>): MapChanges {
  const changes = new MapChanges();
  for (let at = 0; at < ops.length; at += OPERATION_WORDS) {
    const rights = ops[at];
    const first = pageOf(ops[at + 1], ops[at + 2]);
    const pages = pageOf(ops[at + 3], ops[at + 4]) - first + 1;
    if (rights === 0) changes.unmap(first, pages);
    else changes.map(first, pageOf(ops[at + 5], ops[at + 6]), pages, rights);
  }
  return changes;
}

function invalidationsOf({ type, targets, entries }: M.HostInvalidate): HostInvalidations {
  const out = new HostInvalidations();
  const words = toWords(entries);
  if (type === INVALIDATE_TYPE.SMMUV3) {
    for (let at = 0; at < words.length; at += 4) {
      out.command(words[at], words[at + 1], words[at + 2], words[at + 3]);
    }
    return out;
  }
  let at = 0;
  for (let index = 0; index < targets.length; index += 3) {
    for (let count = 0; count < targets[index + 2]; count++, at += RANGE_WORDS) {
      const all = join(words[at + 2], words[at + 3]) >= ALL_PAGES;
      const pages = all ? ALL_PAGES : words[at + 2];
      out.range(targets[index], targets[index + 1] - 1, words[at], words[at + 1], pages);
    }
  }
  return out;
}
