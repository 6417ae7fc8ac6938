/**
 * Where the tables of a mirror lie in guest memory: the way back from a page to the tables on it.
 */

import { pageAt } from '../base/page.js';
import type { TableWatcher } from './tracking.js';

const NONE: readonly number[] = [];

export class TableHomes {
  readonly #watcher: TableWatcher;
  /**
   * Numbers of the tables that lie on a page, wholly or in part. One table that is linked twice is
   * two.
   */
  readonly #nodes = new Map<number, number[]>();
  readonly #addresses = new Map<number, readonly [address: number, bytes: number]>();

  constructor(watcher: TableWatcher) {
    this.#watcher = watcher;
  }

  add(node: number, address: number, bytes: number): void {
    this.#addresses.set(node, [address, bytes]);
    this.#watcher.linked(address, bytes);
    for (let page = pageAt(address); page <= pageAt(address + bytes - 1); page++) {
      const nodes = this.#nodes.get(page);
      if (nodes === undefined) this.#nodes.set(page, [node]);
      else nodes.push(node);
    }
  }

  remove(node: number): void {
    const [address, bytes] = this.#addresses.get(node) ?? [0, 0];
    this.#addresses.delete(node);
    this.#watcher.unlinked(address, bytes);
    for (let page = pageAt(address); page <= pageAt(address + bytes - 1); page++) {
      const nodes = this.#nodes.get(page) ?? [];
      nodes.splice(nodes.indexOf(node), 1);
      if (nodes.length === 0) this.#nodes.delete(page);
    }
  }

  at(page: number): readonly number[] {
    return this.#nodes.get(page) ?? NONE;
  }

  clear(): void {
    for (const [address, bytes] of this.#addresses.values()) this.#watcher.unlinked(address, bytes);
    this.#addresses.clear();
    this.#nodes.clear();
  }
}
