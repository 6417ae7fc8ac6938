/** What an address space maps, one translation after the other: the input of {@link RunReader}. */

import { ACCESS } from '../device/iommu.js';
import type { RamMap } from './ram-map.js';

/** Translations by rising input address. One object is reused. */
export interface LeafSource {
  /** Of the translation found: input pages, both included; first page of memory; ACCESS bits. */
  readonly first: number;
  readonly last: number;
  readonly out: number;
  readonly access: number;
  /**
   * Aims at the translations that touch [first, last]. The first may begin before, the last may end
   * behind.
   */
  start(first: number, last: number): void;
  /** Goes to the next; false at the end. */
  next(): boolean;
}

/** An address space that maps nothing. */
export const NOTHING: LeafSource = {
  first: 0,
  last: 0,
  out: 0,
  access: 0,
  start: () => {},
  next: () => false,
};

/** Every address is its own translation, up to a limit. */
export class Identity implements LeafSource {
  readonly #ram: RamMap;
  readonly #reach: number;
  first = 0;
  last = 0;
  out = 0;
  readonly access = ACCESS.READ | ACCESS.WRITE;
  #index = 0;
  #end = 0;

  /** @param reach pages that are passed through */
  constructor(ram: RamMap, reach: number) {
    this.#ram = ram;
    this.#reach = reach;
  }

  start(first: number, last: number): void {
    this.#index = this.#ram.from(first);
    this.#end = Math.min(last, this.#reach - 1);
  }

  next(): boolean {
    if (this.#index >= this.#ram.count || this.#ram.first(this.#index) > this.#end) return false;
    this.first = this.#ram.first(this.#index);
    this.last = Math.min(this.#ram.last(this.#index), this.#reach - 1);
    this.out = this.first;
    this.#index++;
    return true;
  }
}

/** Several sources by rising input address, one after the other. */
export class Chained implements LeafSource {
  readonly #sources: readonly LeafSource[];
  #at = 0;
  #first = 0;
  #last = 0;

  constructor(sources: readonly LeafSource[]) {
    this.#sources = sources;
  }

  get first(): number {
    return this.#sources[this.#at].first;
  }
  get last(): number {
    return this.#sources[this.#at].last;
  }
  get out(): number {
    return this.#sources[this.#at].out;
  }
  get access(): number {
    return this.#sources[this.#at].access;
  }

  start(first: number, last: number): void {
    this.#at = 0;
    this.#first = first;
    this.#last = last;
    this.#sources[0].start(first, last);
  }

  next(): boolean {
    while (!this.#sources[this.#at].next()) {
      if (this.#at + 1 === this.#sources.length) return false;
      this.#sources[++this.#at].start(this.#first, this.#last);
    }
    return true;
  }
}
