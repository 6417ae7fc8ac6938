import { hex } from '../../src/base/u64.js';
import type { Audit } from '../../src/shadow/audit/audit.js';
import type { BlockSet } from '../../src/shadow/blocks.js';
import { CAUSE } from '../../src/shadow/check.js';
import type { DeviceSpace } from '../../src/shadow/device-space.js';
import type { SimContainer } from '../../src/sim/container.js';
import { must } from './fuzzer.js';

/** Memory address and access bits, by input page. */
export type Pages = Map<number, number>;

/** What a host has mapped. */
export function mappedBy(host: SimContainer): Pages {
  const mapped: Pages = new Map();
  for (const { first, last, gpa, access } of host.mappings.values()) {
    const page = Number(first >> 12n);
    const count = Number((last - first + 1n) >> 12n);
    for (let n = 0; n < count; n++) mapped.set(page + n, gpa + n * 4096 + access);
  }
  return mapped;
}

function pagesOf(blocks: BlockSet): Pages {
  const pages: Pages = new Map();
  let before = -1;
  for (let more = blocks.seek(0); more; more = blocks.next()) {
    const { first, log2, out, access } = blocks;
    must(first > before && first % 2 ** log2 === 0, () => `block at ${first} out of order`);
    before = blocks.last;
    for (let n = 0; n < 2 ** log2; n++) pages.set(first + n, (out + n) * 4096 + access);
  }
  return pages;
}

/**
 * The host has mapped what the shadow thinks, and that is what is wanted, less what was refused.
 */
export function checkDevice(space: DeviceSpace, host: SimContainer, wanted: Pages): void {
  const held = pagesOf(space.held);
  const failed = pagesOf(space.failed);
  same(mappedBy(host), held, () => `device ${space.device}: the host has mapped other than is thought`);
  if (space.incomplete) return;
  for (const [page, to] of failed) held.set(page, to);
  same(held, wanted, () => `device ${space.device} (rid ${space.rid}): not what the tables say`);
}

/**
 * The audit has seen no invalidation that a host did not follow, among differences from number
 * `from` on.
 */
export function checkAudit(audit: Audit, from = 0): void {
  const found = audit.answer(from).differences.find(({ cause }) => cause === CAUSE.NOT_FOLLOWED);
  must(found === undefined, () => `not followed: ${JSON.stringify(found)}`);
}

function same(found: Pages, wanted: Pages, what: () => string): void {
  for (const [page, to] of wanted) {
    must(found.get(page) === to, () => `${what()}: page ${hex(page)} is ${found.get(page)}, not ${to}`);
  }
  for (const page of found.keys())
    must(wanted.has(page), () => `${what()}: page ${hex(page)} too many, to ${found.get(page)}`);
}
