/** A shadow without a session: tables in an array, and a host that says what it was asked for. */
import { ANY } from '../../src/base/ids.js';
import { PAGE_BYTES, pageHi, pageLo, pageOf } from '../../src/base/page.js';
import { THROUGH } from '../../src/device/tables.js';
import type { ShadowEvent } from '../../src/events/viommu-events.js';
import { ArrayMemory } from '../../src/memory/array.js';
import type { DeviceSpace } from '../../src/shadow/device-space.js';
import { OPERATION_WORDS } from '../../src/shadow/map-operations.js';
import { LAST_PAGE } from '../../src/shadow/pages.js';
import { Shadow, type ShadowedModel } from '../../src/shadow/shadow.js';
import type { PageTableFormat } from '../../src/spec/pagetable/format.js';
import { vtdFirstStage, vtdSecondStage } from '../../src/spec/pagetable/vtd.js';

const CAPS = {
  hostAddressWidth: 48,
  secondStage2M: true,
  secondStage1G: true,
  firstStage1G: true,
  snoopControl: true,
  transientMapping: false,
};
const SECOND = vtdSecondStage(CAPS, { levels: 4, inputBits: 48, accessedDirty: false });
export const DIRTY = vtdSecondStage(CAPS, { levels: 4, inputBits: 48, accessedDirty: true });
export const FIRST = vtdFirstStage(CAPS, { levels: 4, writeProtect: false, extendedAccessed: false });

const MIB = 2 ** 20;
const TABLES = 16 * MIB;
/** Address of RAM for data. It has no memory behind it, because tests never read data. */
export const DATA = 2 ** 32;
export const ROOT = 0x1000;
export const RW = 3;
/** Words of one page of a TRACK. */
const TRACK_WORDS = 2;

/** One operation as text: `map 0x1000+0x1000 to 0x… rw`. */
function describeOperation(words: Uint32Array, at: number): string {
  const first = pageOf(words[at + 1], words[at + 2]);
  const pages = pageOf(words[at + 3], words[at + 4]) - first + 1;
  const range = `${first.toString(16)}+${pages.toString(16)}`;
  return words[at] === 0
    ? `unmap ${range}`
    : `map ${range} to ${pageOf(words[at + 5], words[at + 6]).toString(16)} ${words[at]}`;
}

/** The pages of a TRACK: `+` and the page for one that begins, `-` for one that ends. */
function describeTrack(words: Uint32Array): string[] {
  const pages: string[] = [];
  for (let at = 0; at < words.length; at += TRACK_WORDS) {
    pages.push(`${words[at] % 2 === 1 ? '+' : '-'}${pageOf(words[at], words[at + 1]).toString(16)}`);
  }
  return pages;
}

/** A guest with one set of tables, and a host that says what it was asked for. */
export class Bench {
  readonly memory = new ArrayMemory([{ base: 0, bytes: TABLES }]);
  readonly events: ShadowEvent[] = [];
  readonly shadow: Shadow;
  /** Pages of the TRACKs since the test emptied this. */
  readonly tracks: string[] = [];
  through: number = THROUGH.TABLES;
  format: PageTableFormat = SECOND;
  root = ROOT;
  /** Error of an operation, by its text. */
  refuse: (operation: string) => number = () => 0;
  #next = 0x2000;

  readonly model: ShadowedModel = {
    spaces: {
      tables: (_rid, _pasid, out) => {
        out.through = this.through;
        out.reach = 48;
        out.count = this.through === THROUGH.TABLES ? 1 : 0;
        out.formats[0] = this.format;
        out.roots[0] = this.root;
        out.addressed = true;
        out.space = 1;
        out.holeFirst = 0xfee00;
        out.holeLast = 0xfeeff;
      },
    },
  };

  constructor(tables = 65536) {
    this.shadow = new Shadow(this.memory, (event) => this.events.push(event), tables * PAGE_BYTES);
    this.shadow.ramAdded(1, DATA, 2 ** 34, false, this.model);
  }

  attach(device = 1): string[] {
    this.shadow.attach(device, 8 * device, this.model);
    this.shadow.listen(device, 0, LAST_PAGE);
    return this.settle();
  }

  space(device = 1): DeviceSpace {
    return this.shadow.deviceSpace(device) as DeviceSpace;
  }

  /** Everything that the host is asked for until nothing is pending. */
  settle(): string[] {
    const asked: string[] = [];
    for (let round = 0; this.shadow.pending > 0; round++) {
      if (round > 10_000) throw new Error('no end');
      this.shadow.work();
      for (let track = this.shadow.takeTrack(); track !== undefined; track = this.shadow.takeTrack()) {
        this.tracks.push(...describeTrack(track.words));
        this.shadow.trackAnswered(track.id);
      }
      for (let batch = this.shadow.take(); batch !== undefined; batch = this.shadow.take()) {
        const failures: number[] = [];
        for (let n = 0; n < batch.count; n++) {
          const text = describeOperation(batch.words, n * OPERATION_WORDS);
          const error = this.refuse(text);
          asked.push(error === 0 ? text : `${text} refused`);
          if (error !== 0) failures.push(n, error);
        }
        this.shadow.answered(batch.id, failures);
      }
    }
    return asked;
  }

  invalidate(first = 0, pages = 0): string[] {
    const scope = { space: 1, sub: ANY, rid: ANY, pasid: ANY };
    const address = { lo: pageLo(first), hi: pageHi(first) };
    this.shadow.markStale(
      { ...scope, ...address, log2Size: pages === 0 ? 64 : 12 + Math.log2(pages) },
      this.model,
    );
    return this.settle();
  }

  /** Maps pages, with the tables that are missing; `level` 2 and 3: large ones. */
  map(page: number, out: number, pages = 1, rights = RW, level = 1): void {
    const size = 2 ** (9 * (level - 1));
    for (let n = 0; n < pages; n += size) {
      const value = BigInt((out + n) * PAGE_BYTES) + BigInt(rights) + (level > 1 ? 1n << 7n : 0n);
      this.memory.poke(this.entry(page + n, level), value);
    }
  }

  unmap(page: number, pages = 1): void {
    for (let n = 0; n < pages; n++) this.memory.poke(this.entry(page + n), 0n);
  }

  /** Address of the entry of a level for a page. */
  entry(page: number, level = 1): number {
    let table = this.root;
    for (let at = 4; ; at--) {
      const entry = table + (Math.floor(page / 2 ** (9 * (at - 1))) % 512) * 8;
      if (at === level) return entry;
      const value = this.memory.peek(entry) as bigint;
      if (value === 0n) {
        this.memory.poke(entry, BigInt(this.#next) + 7n);
        this.#next += PAGE_BYTES;
      }
      table = Number((this.memory.peek(entry) as bigint) & 0xffff_f000n);
    }
  }
}

export const OUT = DATA / PAGE_BYTES;
export const out = (page: number): string => (OUT + page).toString(16);
