/**
 * Streams with their formats chosen: a translation finds here in one step what its descriptors say.
 * Nothing is kept that the configuration cache may not keep: any invalidation of that cache empties
 * this one.
 */
import type { SmmuConfig } from './config.js';
import { type Fault, OK } from './fault.js';
import type { SmmuFormats } from './formats.js';
import type { SmmuLookup } from './lookup.js';
import { Stream } from './stream.js';

const SLOTS = 256;
const EMPTY = -1;

export class Streams {
  readonly #lookup: SmmuLookup;
  /** What {@link resolve} found. */
  stream: Stream;
  readonly #slots: Stream[] = [];
  readonly #sids = new Int32Array(SLOTS).fill(EMPTY);
  readonly #ssids = new Int32Array(SLOTS);
  readonly #keeps: boolean;
  #generation = 0;

  constructor(config: SmmuConfig, formats: SmmuFormats, lookup: SmmuLookup) {
    this.#lookup = lookup;
    for (let slot = 0; slot < SLOTS; slot++) this.#slots.push(new Stream(formats.none));
    this.stream = this.#slots[0];
    // A hostile configuration cache forgets on its own: it has to be asked every time.
    this.#keeps = config.cachePolicy === 'faithful';
  }

  /** Power-on. */
  reset(): void {
    this.#sids.fill(EMPTY);
  }

  /** As {@link SmmuLookup.resolve}, with caches. `ssid` may be NO_PASID. */
  resolve(sid: number, ssid: number, fault: Fault): number {
    if (this.#generation !== this.#lookup.generation) {
      this.#generation = this.#lookup.generation;
      this.#sids.fill(EMPTY);
    }
    const slot = (sid ^ (sid >>> 8) ^ Math.imul(ssid + 1, 0x9d)) & (SLOTS - 1);
    const stream = this.#slots[slot];
    this.stream = stream;
    if (this.#sids[slot] === sid && this.#ssids[slot] === ssid) {
      fault.clear();
      fault.merge = stream.merge;
      return OK;
    }
    this.#sids[slot] = EMPTY;
    const outcome = this.#lookup.resolve(sid, ssid, true, stream, fault);
    if (outcome === OK && this.#keeps) {
      this.#sids[slot] = sid;
      this.#ssids[slot] = ssid;
    }
    return outcome;
  }
}
