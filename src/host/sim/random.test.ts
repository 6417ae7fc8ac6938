import { describe, expect, it } from 'vitest';
import { dmaRead, leftovers, RigGuest, rig } from '../../../test/support/host-rig.js';
import { CONTAINERS, HOST_KINDS } from '../../assignment/request.js';
import type { SimDevice } from './sim-device.js';

/**
 * Two guests, VFs and mdevs, operations at random; after each one every device reaches exactly what
 * a plain model says: maps from page to guest page, one for each space, and which space an endpoint
 * is attached to.
 */

const PAGES = 24;
const FIRST_RID = 0x0500;
const PARENT_RID = 0x0600;

interface Endpoint {
  readonly guest: ModelGuest;
  readonly device: SimDevice;
  readonly pasid: number;
  space: number | undefined;
}

interface ModelGuest {
  readonly rig: RigGuest;
  readonly tag: number;
  readonly spaces: Map<number, Map<number, number>>;
}

function generator(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

const COMBINATIONS = HOST_KINDS.flatMap((kind) => CONTAINERS.map((container) => [kind, container] as const));

describe.each(COMBINATIONS)('random operations: %s, %s', (kind, container) => {
  it('give devices exactly what is mapped', () => {
    const random = generator(kind.length * 1000 + container.length);
    const { host, guest } = rig(kind, container);
    const guests: ModelGuest[] = [guest, new RigGuest(host, 'other', container)].map((rigged, index) => {
      // Every page of a guest's memory says whose it is and which.
      for (let page = 0; page < PAGES; page++) rigged.memory.store32(page * 4096, (index + 1) * 1000 + page);
      return { rig: rigged, tag: (index + 1) * 1000, spaces: new Map() };
    });
    const mdevs = container !== 'type1-nesting' || kind === 'vtd3';
    if (mdevs) host.addParent(PARENT_RID);
    const endpoints: Endpoint[] = [];
    for (const [index, who] of guests.entries()) {
      const vf = host.addVf(FIRST_RID + index, who.rig.port);
      endpoints.push({ guest: who, device: vf, pasid: -1, space: undefined });
      // A vt-d3 or SMMUv3 VF can have host tables for a PASID beside its own.
      if (container === 'iommufd')
        endpoints.push({ guest: who, device: vf, pasid: 70 + index, space: undefined });
      if (!mdevs) continue;
      for (let count = 0; count < 2; count++) {
        endpoints.push({
          guest: who,
          device: host.addMdev(PARENT_RID, who.rig.port),
          pasid: -1,
          space: undefined,
        });
      }
      for (let space = 0; space < 3; space++) {
        who.rig.space(space, vf);
        who.spaces.set(space, new Map());
      }
    }
    if (!mdevs) {
      for (const who of guests) {
        for (let space = 0; space < 3; space++) {
          who.rig.space(space, [...who.rig.port.devices.values()][0]);
          who.spaces.set(space, new Map());
        }
      }
    }

    const check = (): void => {
      for (const { guest: who, device, pasid, space } of endpoints) {
        for (let probe = 0; probe < 4; probe++) {
          const page = random(PAGES);
          const at = space === undefined ? undefined : who.spaces.get(space)?.get(page);
          expect(dmaRead(device, page * 4096, 1, pasid)?.[0]).toBe(
            at === undefined ? undefined : who.tag + at,
          );
        }
      }
      expect(host.violations).toEqual([]);
    };

    for (let step = 0; step < 250; step++) {
      const who = guests[random(2)];
      const space = random(3);
      const map = who.spaces.get(space) as Map<number, number>;
      const endpoint = endpoints[random(endpoints.length)];
      switch (random(5)) {
        case 0:
        case 1: {
          const page = random(PAGES);
          const target = random(PAGES);
          const outcome = who.rig.map(space, page, target, 1, 1 + random(2) * 2);
          expect(outcome.code).toBe(map.has(page) ? 'OVERLAP' : 'OK');
          if (outcome.code === 'OK') map.set(page, target);
          break;
        }
        case 2: {
          const page = random(PAGES);
          const pages = 1 + random(PAGES);
          expect(who.rig.unmap(space, page, pages).code).toBe('OK');
          for (let at = page; at < page + pages; at++) map.delete(at);
          break;
        }
        case 3: {
          const outcome = endpoint.guest.rig.attach(endpoint.device, space, endpoint.pasid);
          expect(outcome.code).toBe('OK');
          endpoint.space = space;
          break;
        }
        default: {
          const outcome = endpoint.guest.rig.detach(endpoint.device, endpoint.pasid);
          expect(outcome.code).toBe(endpoint.space === undefined ? 'NOT_ATTACHED' : 'OK');
          endpoint.space = undefined;
        }
      }
      check();
    }
    for (const who of guests) host.removeGuest(who.rig.port);
    if (mdevs) host.removeParent(PARENT_RID);
    expect(leftovers(host)).toEqual({});
  });
});
