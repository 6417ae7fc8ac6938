import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { plan, type Strategy } from '../../src/assignment/planner.js';
import {
  type AssignmentRequest,
  DEVICE_KINDS,
  DEVICE_NAMES,
  type DeviceKind,
  fullHost,
  HOST_KINDS,
  HOST_NAMES,
  type HostKind,
  MODES,
  nativeGuest,
} from '../../src/assignment/request.js';
import { COLUMN_NAMES, COLUMNS, type Column } from '../../src/assignment/table.js';
import { SimHost } from '../../src/host/sim/sim-host.js';
import { Daemon } from '../support/daemon.js';
import { dmaRead, dmaWrite, leftovers } from '../support/host-rig.js';
import { BypassGuest } from './bypass.js';
import type { CellGuest } from './guest.js';
import { makeWiredGuest, type WiredGuest } from './wired.js';

/**
 * Every cell of the table, run: two guests on one host (mdevs on one parent device), each a VM of
 * its own at a daemon that was told what is assigned. They drive their IOMMUs as drivers do, and
 * simulated devices do DMA through what that comes to on the host. Without a vIOMMU there is no
 * daemon: the monitor maps.
 */

const HOST_RID = 0x0108;
const BASE = 0x4000_0000;
const PAGE = 4096;
const BUFFER = 0x10_0000;

/** What was run, for the table that is printed at the end. */
const ran = new Map<string, Map<string, string[]>>();

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
  return Array.from({ length: words }, (_, index) => guest.ram.load32(gpa + index * 4) >>> 0);
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
    guest.ram.store32(buffer + index * 4, word);
  });
  expect(dmaRead(guest.device, base + PAGE, 1024, pasid)).toEqual(back);
}

/** Unmapped means gone, remapped means the new page; both at once. */
function changeMappings(guest: CellGuest, pasid: number, base: number, buffer: number): void {
  guest.ram.store32(buffer, 0x1111);
  guest.ram.store32(buffer + PAGE, 0x2222);
  guest.map(pasid, base, buffer);
  expect(dmaRead(guest.device, base, 1, pasid)).toEqual([0x1111]);
  guest.unmap(pasid, base);
  expect(dmaRead(guest.device, base, 1, pasid)).toBeUndefined();
  guest.map(pasid, base, buffer + PAGE);
  expect(dmaRead(guest.device, base, 1, pasid)).toEqual([0x2222]);
  guest.unmap(pasid, base);
}

const TRANSLATION_FAULTS = ['SFS.2', 'SSS.2', 'F_TRANSLATION'];
const PASID_FAULTS = ['SPT.2', 'SPD.2', 'C_BAD_CD', 'C_BAD_SUBSTREAMID'];

/**
 * Refused, and told to the guest whose device it was, in its unit's own terms; the other one hears
 * nothing.
 */
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

/** The strategies that a cell allows in these modes. */
function strategies(
  kind: HostKind,
  device: DeviceKind,
  column: Column,
  modes: readonly AssignmentRequest['mode'][],
): Strategy[] {
  return modes.map((mode) => plan(requestOf(kind, device, column, mode))).filter((planned) => planned.ok);
}

/** What a cell's guests are made of. */
interface Cell {
  readonly kind: HostKind;
  readonly device: DeviceKind;
  readonly column: Column;
  readonly strategy: Strategy;
}

/** Guests of one cell: VFs, or mdevs of one parent. */
class Guests {
  readonly #cell: Cell;
  readonly #socket: string | undefined;
  readonly host: SimHost;
  #count = 0;

  constructor(cell: Cell, socket: string | undefined) {
    this.#cell = cell;
    this.#socket = socket;
    const { kind, device } = cell;
    this.host = new SimHost({ kind, tableBytes: 2 ** 24 });
    if (device === 'mdev') this.host.addParent(HOST_RID);
  }

  make(): CellGuest {
    const { kind, device, column, strategy } = this.#cell;
    const index = this.#count++;
    const making = {
      host: this.host,
      kind,
      deviceKind: device,
      name: `guest ${index}`,
      hostRid: device === 'mdev' ? HOST_RID : HOST_RID + index,
      strategy,
      pasids: column === 'pasid',
    };
    return this.#socket === undefined ? new BypassGuest(making) : makeWiredGuest(making, this.#socket);
  }
}

/** DMA of requests without PASID, two guests at a time. */
function ownRequests(host: SimHost, a: CellGuest, b: CellGuest, done: string[]): void {
  [a, b].forEach((guest, index) => {
    moveBytes(guest, -1, BASE, BUFFER, 7 + index);
  });
  done.push('DMA');
  for (const guest of [a, b]) changeMappings(guest, -1, BASE + 0x10_0000, BUFFER + 0x1_0000);
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

/** The same with PASIDs that the guests create and destroy. */
function withPasids(a: CellGuest, b: CellGuest, shared: boolean, done: string[]): void {
  const mine = a.createPasid();
  const theirs = b.createPasid();
  moveBytes(a, mine, BASE, BUFFER + 0x2_0000, 17);
  moveBytes(b, theirs, BASE, BUFFER + 0x2_0000, 18);
  changeMappings(a, mine, BASE + 0x10_0000, BUFFER + 0x3_0000);
  stray(a, b, mine, BASE + 0x20_0000, TRANSLATION_FAULTS);
  const second = a.createPasid();
  a.map(second, BASE, BUFFER + 0x4_0000);
  a.ram.store32(BUFFER + 0x4_0000, 0x4444);
  expect(dmaRead(a.device, BASE, 1, second)).toEqual([0x4444]);
  done.push('PASIDs');
  if (shared) {
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

/** What of a guest is left on the host. */
function leftOf({ side }: CellGuest): Readonly<Record<string, number>> {
  return Object.fromEntries(Object.entries(side.kernel.leftovers()).filter(([, count]) => count !== 0));
}

/**
 * Two guests do all that the cell allows; then one is unplugged, and the other one vanishes from
 * the middle of it.
 */
function scenario(cell: Cell, guests: Guests, done: string[]): void {
  const { host } = guests;
  const { kind, column, strategy } = cell;
  const [a, b] = [guests.make(), guests.make()];
  // vt-d2 nests with PASID only: requests without are the guest's memory as it is.
  const own = !(kind === 'vtd2' && strategy.choice === 'nest');
  if (own) ownRequests(host, a, b, done);
  if (column === 'pasid') withPasids(a, b, strategy.pv !== 'none', done);
  const alive = (): void => {
    // No memory but its own, whatever a guest without translation reaches.
    expect(dmaRead(b.device, BASE, 1, own ? -1 : 1)).toBeDefined();
  };
  a.reset();
  alive();
  done.push('reset');
  a.unplug();
  expect(dmaRead(a.device, BASE, 1)).toBeUndefined();
  expect(leftOf(a)).toEqual({});
  alive();
  a.close();
  alive();
  done.push('unplug');
  expect(leftOf(b)).not.toEqual({});
  b.close();
  expect(dmaRead(b.device, BASE, 1)).toBeUndefined();
  clean(host);
  done.push('vanish', 'nothing left');
}

function clean(host: SimHost): void {
  expect(host.violations).toEqual([]);
  expect(leftovers(host)).toEqual({});
}

/** Something is mapped, with a PASID where there are any. */
function settleIn(guest: CellGuest, { kind, column, strategy }: Cell): void {
  if (!(kind === 'vtd2' && strategy.choice === 'nest')) moveBytes(guest, -1, BASE, BUFFER, 23);
  if (column === 'pasid') moveBytes(guest, guest.createPasid(), BASE, BUFFER + 0x2_0000, 24);
}

function noteRun({ kind, device, column, strategy: { choice, pv } }: Cell, done: readonly string[]): void {
  const key = cellKey(kind, device, column);
  const name = `${choice}${pv === 'none' ? '' : ' + PV'}`;
  const ways = ran.get(key) ?? new Map<string, string[]>();
  ran.set(key, ways);
  ways.set(name, [...(ways.get(name) ?? []), ...done]);
}

for (const kind of HOST_KINDS) {
  for (const device of DEVICE_KINDS) {
    describe(`${HOST_NAMES[kind]}, ${DEVICE_NAMES[device]}, ${COLUMN_NAMES.none}`, () => {
      it('moves the right bytes, refuses all others, and leaves nothing', () => {
        const [strategy] = strategies(kind, device, 'none', ['auto']);
        const cell: Cell = { kind, device, column: 'none', strategy };
        const done: string[] = [];
        scenario(cell, new Guests(cell, undefined), done);
        noteRun(cell, done);
      });
    });
    for (const mode of MODES) {
      const cells = (['no-pasid', 'pasid'] as const).flatMap((column) =>
        strategies(kind, device, column, [mode]).map(
          (strategy): Cell => ({ kind, device, column, strategy }),
        ),
      );
      if (cells.length === 0) continue;
      describe(`a daemon for ${HOST_NAMES[kind]}, ${DEVICE_NAMES[device]}, mode ${mode}`, () => {
        let daemon: Daemon;
        beforeAll(async () => {
          daemon = await Daemon.start(['--host', kind, '--device', device, '--mode', mode]);
        });
        afterAll(() => daemon.dispose());

        for (const cell of cells) {
          const name = `${COLUMN_NAMES[cell.column]}: ${cell.strategy.choice}`;
          if (mode === 'auto') {
            it(`chooses for ${name}`, () => {
              const guests = new Guests(cell, daemon.socket);
              const guest = guests.make();
              settleIn(guest, cell);
              guest.close();
              clean(guests.host);
            });
            continue;
          }
          it(`${name}: moves the right bytes, refuses all others, and leaves nothing`, () => {
            const done: string[] = [];
            scenario(cell, new Guests(cell, daemon.socket), done);
            noteRun(cell, done);
          });
        }

        it('leaves nothing when it is stopped under its guests', async () => {
          // Whatever guests did until now, their hosts have done all that they were asked for.
          expect(daemon.log().filter(({ msg }) => msg.startsWith('the host refused'))).toEqual([]);
          const running = cells.flatMap((cell) => {
            const guests = new Guests(cell, daemon.socket);
            return [0, 1].map(() => {
              const guest = guests.make() as WiredGuest;
              settleIn(guest, cell);
              return { cell, guest, host: guests.host };
            });
          });
          const stopped = daemon.stop();
          for (const { guest } of running) expect(guest.machine.ended()).toBe('STOPPED');
          expect(await stopped).toBe(0);
          for (const { guest, host } of running) {
            expect(dmaRead(guest.device, BASE, 1)).toBeUndefined();
            clean(host);
            guest.close();
          }
          if (mode !== 'auto') for (const cell of cells) noteRun(cell, ['daemon stopped']);
        });
      });
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
  const lines = ['', 'The table, each cell with what was run (through daemons, but for the first column):'];
  for (const kind of HOST_KINDS) {
    for (const device of DEVICE_KINDS) {
      lines.push('', `${DEVICE_NAMES[device]}, ${HOST_NAMES[kind]}`);
      for (const column of COLUMNS) {
        const ways = [...(ran.get(cellKey(kind, device, column)) ?? [['NOT', ['RUN']] as const])];
        const cell = ways.map(([name, done]) => `${name}: ${done.join(', ')}`);
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
