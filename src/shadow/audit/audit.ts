/**
 * Checks every completion from outside: before the guest hears that its invalidations are done, its
 * tables are read once more and compared with what its hosts have mapped. For tests and for
 * debugging; costs nothing while it is off.
 *
 * It takes nothing from what the shadow was told. What the guest asked for is read from its
 * commands (`guest-commands.ts`), and each device's tables are looked at as a whole, too. So it
 * finds an invalidation that a model did not announce, or announced with the wrong tag, and one
 * that the guest forgot; and it tells these apart:
 *
 * - *not followed*: the guest has asked for these pages, tables say the same since before that, and
 *   the host says something else. Or the host has changed what tables have not. Or, where stores to
 *   tables are trapped, it differs from one completion to the next.
 * - *not invalidated*: the guest has changed its tables, and has not asked for these pages
 *   {@link PATIENCE} looks later.
 * - *refused*: the host would not map it.
 *
 * What tables said of a page has to be the same before and behind: another processor may be
 * changing it, and invalidate it later.
 *
 * It may be at work on a machine that people depend on: what it reads is bounded, and what is too
 * much has no verdict.
 */
import { noTables, THROUGH } from '../../device/tables.js';
import type { GuestMemory } from '../../memory/guest-memory.js';
import { CAUSE, type Cause, differenceOf, type HostDifference } from '../check.js';
import { visitPieces } from '../compare.js';
import type { DeviceSpace } from '../device-space.js';
import { PageRanges } from '../ranges.js';
import type { Shadow, ShadowedModel } from '../shadow.js';
import { BoundedMemory, TooMuch } from './bounded-memory.js';
import {
  type Age,
  type Ask,
  agreed,
  collect,
  DeviceAudit,
  differs,
  type Piece,
  type Pieces,
  pieceAt,
  sameWanted,
} from './device-audit.js';
import type { Asked, GuestCommands } from './guest-commands.js';

/** Different differences that are remembered. */
const MOST_KEPT = 1000;
/** Looks at everything after which a guest counts as having forgotten an invalidation. */
const PATIENCE = 8;
/** Reads of guest memory that one input may cost in the long run, and at once. */
const READS_PER_INPUT = 4096;
const MOST_READS = 1 << 20;
/** Pieces of one look. */
const MOST_PIECES = 1 << 18;
/** Reads to look at everything that one completion may cost on average: the guest waits for it. */
const READS_PER_COMPLETION = 64;
/** Inputs that go by without a look when one was too much. */
const PAUSE = MOST_READS / READS_PER_INPUT;
/** Doorbells whose invalidations are not complete. */
const MOST_ASKS = 64;

/** What the checks have found so far. */
export interface AuditAnswer {
  /** Completions that were checked. */
  readonly completions: number;
  /** Each once, from the one on that was asked for. */
  readonly differences: readonly HostDifference[];
  /** There were more than are remembered. */
  readonly more: boolean;
}

export class Audit {
  readonly #shadow: Shadow;
  readonly #model: ShadowedModel;
  readonly #memory: GuestMemory;
  readonly #commands: GuestCommands;
  #completions = 0;
  /** Invalidations and stores that have reached the unit. */
  #inputs = 0;
  #promised = false;
  #restarts: number;
  /** Commands that were done at the last completion. */
  #done: number;
  /** Reads that may be spent now, and inputs until any may. */
  #credit = MOST_READS;
  #pause = 0;
  readonly #reading: BoundedMemory;
  readonly #devices = new WeakMap<DeviceSpace, DeviceAudit>();
  readonly #found: HostDifference[] = [];
  readonly #known = new Set<string>();
  #more = false;

  constructor(shadow: Shadow, model: ShadowedModel, memory: GuestMemory, commands: GuestCommands) {
    this.#shadow = shadow;
    this.#model = model;
    this.#memory = memory;
    this.#commands = commands;
    this.#reading = new BoundedMemory(memory);
    this.#restarts = commands.restarts;
    this.#done = commands.done;
    // An entry that is about to go has its tags noted before it does.
    for (const space of shadow.devices) this.#everything(space, this.#auditOf(space));
  }

  /** The guest is about to write a register. */
  asking(offset: number, size: number, lo: number, hi: number): void {
    const asked = this.#commands.written(offset, size, lo, hi);
    if (this.#restarts !== this.#commands.restarts) {
      this.#restarts = this.#commands.restarts;
      for (const space of this.#shadow.devices) this.#auditOf(space).asks = [];
    }
    if (asked.length === 0) return;
    this.#inputs++;
    this.#promised = true;
    this.#earn();
    for (const space of this.#shadow.devices) this.#askedOf(space, asked);
  }

  /** A store to a table was trapped. */
  stored(): void {
    this.#inputs++;
  }

  /** A completion is about to be published. */
  completing(): void {
    const { done } = this.#commands;
    // Whatever the host has answered brings us here; the guest hears of commands that are done.
    if (!this.#promised && done === this.#done) return;
    this.#done = done;
    this.#earn();
    for (const space of this.#shadow.devices) {
      const audit = this.#auditOf(space);
      const due = audit.asks.filter(({ order }) => order <= done);
      if (due.length > 0) {
        audit.asks = audit.asks.filter(({ order }) => order > done);
        this.#due(space, due);
      }
      if (audit.rest-- <= 0) this.#everything(space, audit);
    }
    this.#completions++;
    this.#promised = false;
  }

  /** @param from index of the first difference to be told */
  answer(from: number): AuditAnswer {
    return { completions: this.#completions, differences: this.#found.slice(from), more: this.#more };
  }

  #auditOf(space: DeviceSpace): DeviceAudit {
    let audit = this.#devices.get(space);
    if (audit === undefined) {
      audit = new DeviceAudit();
      this.#devices.set(space, audit);
    }
    audit.note(this.#commands.tags(space.rid, space.pasid));
    return audit;
  }

  /** All that one doorbell asks of a device is looked at together. */
  #askedOf(space: DeviceSpace, asked: readonly Asked[]): void {
    const audit = this.#auditOf(space);
    const pages = new PageRanges(Number.POSITIVE_INFINITY);
    let order = -1;
    let afresh = false;
    for (const one of asked) {
      if (!audit.concerned(one, space.rid)) continue;
      audit.forget(one);
      pages.add(one.first, one.last);
      order = Math.max(order, one.order);
      afresh ||= one.afresh;
    }
    if (order < 0) return;
    audit.asked.addAll(pages);
    const before = this.#look(space, pages);
    if (before === undefined) return;
    if (audit.asks.length === MOST_ASKS) audit.asks.shift();
    audit.asks.push({ order, pages, afresh, before });
  }

  #earn(): void {
    this.#credit = Math.min(MOST_READS, this.#credit + READS_PER_INPUT);
    if (this.#pause > 0) this.#pause--;
  }

  /** Tables and host on these pages; undefined: that is too much to look at now. */
  #look(space: DeviceSpace, pages: PageRanges): Pieces | undefined {
    // Beyond our own limits nothing is mapped, and that is said.
    if (this.#pause > 0 || space.incomplete || (space.guest?.missing ?? 0) > 0) return undefined;
    const pieces: Piece[] = [];
    const reading = this.#reading;
    reading.allow(this.#credit);
    try {
      visitPieces(this.#shadow.ram, space, this.#tables(space), reading, pages, collect(pieces, MOST_PIECES));
    } catch (error) {
      if (!(error instanceof TooMuch)) throw error;
      this.#pause = PAUSE;
      return undefined;
    } finally {
      this.#credit -= Math.min(this.#credit, reading.reads);
    }
    return pieces;
  }

  #tables(space: DeviceSpace): ReturnType<typeof noTables> {
    const tables = noTables();
    this.#model.spaces.tables?.(space.rid, space.pasid, tables);
    return tables;
  }

  /**
   * Invalidations are complete: host and tables must agree where tables have not changed since they
   * were asked for.
   */
  #due(space: DeviceSpace, due: readonly Ask[]): void {
    const pages = new PageRanges(Number.POSITIVE_INFINITY);
    for (const ask of due) pages.addAll(ask.pages);
    for (const piece of this.#look(space, pages) ?? []) {
      if (!differs(piece) || this.#refused(space, piece)) continue;
      const settled = due.some(
        ({ pages: of, before, afresh }) =>
          of.contains(piece.first) && (afresh || sameWanted(piece, pieceAt(before, piece.first))),
      );
      if (settled) this.#note(space, piece, CAUSE.NOT_FOLLOWED);
    }
  }

  #everything(space: DeviceSpace, audit: DeviceAudit): void {
    const credit = this.#credit;
    const pieces = this.#look(space, space.listened);
    const { ages } = audit;
    const before = new Map(ages);
    ages.clear();
    audit.rest = Math.floor((credit - this.#credit) / READS_PER_COMPLETION);
    for (const piece of pieces ?? []) {
      if (!differs(piece)) continue;
      if (this.#refused(space, piece)) {
        this.#note(space, piece, CAUSE.REFUSED);
        continue;
      }
      const key = keyOf(piece);
      const age: Age = before.get(key) ?? { looks: 0, inputs: this.#inputs };
      age.looks++;
      ages.set(key, age);
      if (this.#ours(space, audit, piece, age)) this.#note(space, piece, CAUSE.NOT_FOLLOWED);
      else if (age.looks >= PATIENCE) this.#note(space, piece, CAUSE.NOT_INVALIDATED);
    }
    audit.looked = pieces;
    audit.asked.clear();
  }

  /** A difference that the guest has had no part in. */
  #ours(space: DeviceSpace, { asked, looked }: DeviceAudit, piece: Piece, age: Age): boolean {
    if (this.#shadow.tracking && space.guest?.through === THROUGH.TABLES) {
      // Another processor's store may be under way; it comes before what that processor does next.
      return age.looks > 1 && age.inputs < this.#inputs;
    }
    if (looked === undefined || asked.contains(piece.first)) return false;
    const was = pieceAt(looked, piece.first);
    return agreed(was) && sameWanted(piece, was);
  }

  #refused(space: DeviceSpace, { first }: Piece): boolean {
    return space.failed.seek(first) && space.failed.first <= first;
  }

  #note(space: DeviceSpace, piece: Piece, cause: Cause): void {
    const key = `${space.device} ${keyOf(piece)} ${cause}`;
    if (this.#known.has(key)) return;
    if (this.#found.length === MOST_KEPT) {
      this.#more = true;
      return;
    }
    const { first, last, wanted, wantedAccess, mapped, mappedAccess } = piece;
    const tables = this.#tables(space);
    const places = [wanted, wantedAccess, mapped, mappedAccess] as const;
    const difference = differenceOf(space, tables, this.#memory, first, last, ...places);
    if (difference === undefined) return;
    this.#known.add(key);
    this.#found.push({ ...difference, cause });
  }
}

function keyOf({ first, last, wanted, wantedAccess, mapped, mappedAccess }: Piece): string {
  return `${first} ${last} ${wanted} ${wantedAccess} ${mapped} ${mappedAccess}`;
}
