import { afterAll, describe, expect, it } from 'vitest';
import { plan, type Strategy } from '../../src/assignment/plan.js';
import {
  type AssignmentRequest,
  DEVICE_KINDS,
  DEVICE_NAMES,
  type DeviceKind,
  fullHost,
  HOST_KINDS,
  HOST_NAMES,
  type HostKind,
  nativeGuest,
} from '../../src/assignment/request.js';
import { COLUMN_NAMES, COLUMNS, type Column } from '../../src/assignment/table.js';
import { SimHost } from '../../src/host/sim/host.js';
import { dmaRead, dmaWrite, leftovers } from '../support/host-rig.js';
import { type CellGuest, makeGuest } from './guests.js';

/**
 * Every cell of the table, run: two guests on one host (mdevs on one parent device), each drives its IOMMU as a driver
 * does, and simulated devices do DMA through what that comes to on the host. The models are called directly.
 */

const HOST_RID = 0x0108;
const BASE = 0x4000_0000;
const PAGE = 4096;
const BUFFER = 0x10_0000;

/** What was run, for the table that is printed at the end. */
const ran = new Map<string, string[]>();

function cellKey(kind: HostKind, device: DeviceKind, column: Column): string {
  return `${kind} ${device} ${column}`;
}

function pattern(words: number, seed: number): number[] {
  let state = (seed ^ 0x9e3779b9) >>> 0 || 1;
  return Array.from({ length: words }, () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  });
}

function memoryWords(guest: CellGuest, gpa: number, words: number): number[] {
  const out = new Uint32Array(words);
  guest.memory.loadWords(gpa, out, words);
  return [...out];
}

/** Both ways through four scattered pages; every byte is looked at. */
function moveBytes(guest: CellGuest, pasid: number, base: number, buffer: number, seed: number): void {
  const pages = [2, 0, 3, 1];
  pages.forEach((page, index) => {
    guest.map(pasid, base + index * PAGE, buffer + page * PAGE);
  });
  const out = pattern(4 * 1024, seed);
  expect(dmaWrite(guest.device, base, out, pasid)).toBe(4 * PAGE);
  pages.forEach((page, index) => {
    expect(memoryWords(guest, buffer + page * PAGE, 1024)).toEqual(
      out.slice(index * 1024, (index + 1) * 1024),
    );
  });
  const back = pattern(1024, seed + 1);
  back.forEach((word, index) => {
    guest.memory.store32(buffer + index * 4, word);
  });
  expect(dmaRead(guest.device, base + PAGE, 1024, pasid)).toEqual(back);
}

/** Unmapped means gone, remapped means the new page; both at once. */
function changeMappings(guest: CellGuest, pasid: number, base: number, buffer: number): void {
  guest.memory.store32(buffer, 0x1111);
  guest.memory.store32(buffer + PAGE, 0x2222);
  guest.map(pasid, base, buffer);
  expect(dmaRead(guest.device, base, 1, pasid)).toEqual([0x1111]);
  guest.unmap(pasid, base);
  expect(dmaRead(guest.device, base, 1, pasid)).toBeUndefined();
  guest.map(pasid, base, buffer + PAGE);
  expect(dmaRead(guest.device, base, 1, pasid)).toEqual([0x2222]);
  guest.unmap(pasid, base);
}

const TRANSLATION_FAULTS = ['SFS.2', 'F_TRANSLATION'];
const PASID_FAULTS = ['SPT.2', 'SPD.2', 'C_BAD_CD', 'C_BAD_SUBSTREAMID'];

/** Refused, and told to the guest whose device it was, in its unit's own terms; the other one hears nothing. */
function stray(
  guest: CellGuest,
  other: CellGuest,
  pasid: number,
  address: number,
  names: readonly string[],
): void {
  guest.faults();
  other.faults();
  expect(dmaWrite(guest.device, address, [0xdead], pasid)).toBe(0);
  const faults = guest.faults();
  if (faults !== undefined) {
    expect(faults).toHaveLength(1);
    expect(names).toContain(faults[0]?.name);
    expect(faults[0]?.pasid).toBe(pasid);
  }
  expect(other.faults() ?? []).toEqual([]);
}

function requestOf(
  kind: HostKind,
  device: DeviceKind,
  column: Column,
  mode: AssignmentRequest['mode'],
): AssignmentRequest {
  return {
    device,
    guest: column === 'none' ? 'none' : nativeGuest(kind),
    pasids: column === 'pasid',
    mode,
    host: fullHost(kind, column === 'none' ? 'type1' : 'iommufd'),
  };
}

/** The strategies that a cell allows. */
function strategies(kind: HostKind, device: DeviceKind, column: Column): Strategy[] {
  const modes = column === 'none' ? (['auto'] as const) : (['shadow', 'nest'] as const);
  return modes.map((mode) => plan(requestOf(kind, device, column, mode))).filter((planned) => planned.ok);
}

for (const kind of HOST_KINDS) {
  for (const device of DEVICE_KINDS) {
    for (const column of COLUMNS) {
      for (const strategy of strategies(kind, device, column)) {
        const { choice, pv } = strategy;
        describe(`${HOST_NAMES[kind]}, ${DEVICE_NAMES[device]}, ${COLUMN_NAMES[column]}: ${choice}`, () => {
          it('moves the right bytes, refuses all others, and leaves nothing', () => {
            const done: string[] = [];
            const host = new SimHost({ kind, tableBytes: 2 ** 24 });
            if (device === 'mdev') host.addParent(HOST_RID);
            const guests = ['a', 'b'].map((name, index) => {
              const hostRid = device === 'mdev' ? HOST_RID : HOST_RID + index;
              return makeGuest({ host, kind, deviceKind: device, name, hostRid, strategy });
            });
            const [a, b] = guests;
            // vt-d2 nests with PASID only: requests without are the guest's memory as it is.
            const own = !(kind === 'vtd2' && choice === 'nest');

            if (own) {
              guests.forEach((guest, index) => {
                moveBytes(guest, -1, BASE, BUFFER, 7 + index);
              });
              done.push('DMA');
              for (const guest of guests) changeMappings(guest, -1, BASE + 0x10_0000, BUFFER + 0x1_0000);
              done.push('map/unmap/remap');
              stray(a, b, -1, BASE + 0x20_0000, TRANSLATION_FAULTS);
              done.push('stray');
              // Guest-physical and host-physical addresses are no device addresses.
              for (const address of [
                BUFFER,
                host.memory.windows[0].base + BUFFER,
                host.memory.windows[1].base + BUFFER,
              ]) {
                stray(a, b, -1, address, TRANSLATION_FAULTS);
              }
              done.push('foreign memory');
            }

            if (column === 'pasid') {
              const mine = a.createPasid();
              const theirs = b.createPasid();
              moveBytes(a, mine, BASE, BUFFER + 0x2_0000, 17);
              moveBytes(b, theirs, BASE, BUFFER + 0x2_0000, 18);
              changeMappings(a, mine, BASE + 0x10_0000, BUFFER + 0x3_0000);
              stray(a, b, mine, BASE + 0x20_0000, TRANSLATION_FAULTS);
              const second = a.createPasid();
              a.map(second, BASE, BUFFER + 0x4_0000);
              a.memory.store32(BUFFER + 0x4_0000, 0x4444);
              expect(dmaRead(a.device, BASE, 1, second)).toEqual([0x4444]);
              done.push('PASIDs');
              if (pv !== 'none') {
                expect(new Set([mine, theirs, second]).size).toBe(3);
                // The other guest's PASID is live on the same parent device, and out of reach.
                stray(a, b, theirs, BASE, PASID_FAULTS);
                expect(dmaRead(b.device, BASE, 1, theirs)).toBeDefined();
                done.push('PV');
              }
              stray(a, b, 200, BASE, PASID_FAULTS);
              a.destroyPasid(second);
              stray(a, b, second, BASE, PASID_FAULTS);
              expect(dmaRead(a.device, BASE, 1, mine)).toBeDefined();
              done.push('destroy');
            }

            a.reset();
            // Nobody's memory but its own, whatever a guest without translation reaches.
            expect(dmaRead(b.device, BASE, 1, own ? -1 : 1)).toBeDefined();
            a.close();
            expect(dmaRead(a.device, BASE, 1)).toBeUndefined();
            expect(dmaRead(b.device, BASE, 1, own ? -1 : 1)).toBeDefined();
            b.close();
            expect(host.violations).toEqual([]);
            expect(leftovers(host)).toEqual({});
            done.push('nothing left');

            const key = cellKey(kind, device, column);
            const name = `${choice}${pv === 'none' ? '' : ' + PV'}`;
            ran.set(key, [...(ran.get(key) ?? []), `${name}: ${done.join(', ')}`]);
          });
        });
      }
    }
  }
}

describe('the table', () => {
  it('has been run in every cell', () => {
    const cells = HOST_KINDS.flatMap((kind) =>
      DEVICE_KINDS.flatMap((device) => COLUMNS.map((column) => cellKey(kind, device, column))),
    );
    expect([...ran.keys()].sort()).toEqual(cells.sort());
  });
});

/** Each cell with what was run in it. */
function printed(): string {
  const lines = ['', 'The table, each cell with what was run (models called directly):'];
  for (const kind of HOST_KINDS) {
    for (const device of DEVICE_KINDS) {
      lines.push('', `${DEVICE_NAMES[device]}, ${HOST_NAMES[kind]}`);
      for (const column of COLUMNS) {
        const cell = ran.get(cellKey(kind, device, column)) ?? ['NOT RUN'];
        lines.push(
          ...cell.map((text, index) => `  ${(index === 0 ? COLUMN_NAMES[column] : '').padEnd(18)} ${text}`),
        );
      }
    }
  }
  return `${lines.join('\n')}\n`;
}

afterAll(() => {
  process.stdout.write(printed());
});
