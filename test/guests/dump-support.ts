import { expect } from 'vitest';
import type { DumpNode } from '../../src/device/iommu.js';
import type { Guest } from './support.js';

/**
 * What `viommu dump` shows beside what the guest itself says: registers as it reads them, page
 * tables as it made them.
 */

const PAGE = 4096;

/** What the guest's kernel has mapped at one page of I/O virtual addresses. */
interface Announced {
  /** In how many domains: the tracepoints do not name them. */
  count: number;
  /** Where it was mapped to since nothing was. */
  readonly addresses: Set<number>;
}

/** One address space of the dump: its name, and page by page where it leads. */
interface Space {
  readonly root: string;
  readonly pages: ReadonlyMap<number, number>;
}

function children(node: DumpNode): readonly DumpNode[] {
  return node.children ?? [];
}

/** Every node below, itself included. */
export function all(node: DumpNode): DumpNode[] {
  return [node, ...children(node).flatMap(all)];
}

/** The distinct page tables of a dump; requesters of one domain share theirs. */
function spaces(nodes: readonly DumpNode[]): Space[] {
  const found = new Map<string, Space>();
  for (const node of nodes.flatMap(all)) {
    const name = /^(?:(?:first|second)-stage|VMSAv8-64) .* at (0x[0-9a-f]+)/.exec(node.label);
    if (name === null || found.has(name[1] as string)) continue;
    expect(node.note, 'nothing is left out').toBeUndefined();
    const pages = new Map<number, number>();
    for (const leaf of children(node)) {
      const [first = '', last = ''] = leaf.label.split('-');
      const to = Number(leaf.fields?.['to']);
      for (let at = Number(first); at < Number(last); at += PAGE) pages.set(at, to + (at - Number(first)));
    }
    found.set(name[1] as string, { root: name[1] as string, pages });
  }
  return [...found.values()];
}

/**
 * Replays the guest's map and unmap events, page by page: what one call maps, another may unmap in
 * part.
 */
function announcedPages(guest: Guest): Map<number, Announced> {
  const pages = new Map<number, Announced>();
  for (const { values } of guest.run.of('maps')) {
    if (!('iova' in values)) continue;
    for (let at = 0; at < Number(values['size']); at += PAGE) {
      const iova = Number(values['iova']) + at;
      const page = pages.get(iova) ?? { count: 0, addresses: new Set() };
      if (values['paddr'] === '-') {
        page.count--;
      } else {
        page.count++;
        page.addresses.add(Number(values['paddr']) + at);
      }
      if (page.count === 0) pages.delete(iova);
      else pages.set(iova, page);
    }
  }
  return pages;
}

export function registerValue(nodes: readonly DumpNode[], name: string): bigint | undefined {
  const raw = nodes.flatMap(all).find(({ label }) => label === name)?.raw;
  return raw === undefined ? undefined : BigInt(raw);
}

/** A register's declaration, as far as this needs it. */
interface DeclaredRegister {
  readonly name: string;
  readonly offset: number;
  readonly width: number;
}

/**
 * Every register that both the dump and the guest's `regs` job show has the same value.
 * @param moving registers that change without an access to them
 */
export function expectSameRegisters(
  guest: Guest,
  nodes: readonly DumpNode[],
  declared: readonly DeclaredRegister[],
  moving: ReadonlySet<string>,
): void {
  const words = new Map(
    guest.run.of('regs').flatMap(({ values }) => {
      const { offset, value } = values;
      return offset === undefined || value === undefined ? [] : [[Number(offset), BigInt(value)] as const];
    }),
  );
  const compared = declared.filter(({ name, offset }) => {
    const shown = registerValue(nodes, name);
    return shown !== undefined && !moving.has(name) && words.has(offset);
  });
  expect(compared.length).toBeGreaterThan(12);
  for (const { name, offset, width } of compared) {
    const high = width === 64 ? (words.get(offset + 4) ?? 0n) : 0n;
    expect([name, (high << 32n) | (words.get(offset) ?? 0n)]).toEqual([name, registerValue(nodes, name)]);
  }
}

/** Devices that the guest put into a group, as `0000:00:01.0`. */
export function groupedDevices(guest: Guest): string[] {
  return guest.run.of('regs').flatMap(({ values }) => values['device'] ?? []);
}

/**
 * The dump's page tables are those that the kernel's iommu:map and iommu:unmap tracepoints tell of.
 */
export function expectSameTables(guest: Guest, nodes: readonly DumpNode[]): void {
  expect(guest.run.value('maps', 'overrun')).toBe('0');
  const announced = announcedPages(guest);
  expect(announced.size).toBeGreaterThan(200);
  const shown = new Map<number, number>();
  for (const { root, pages } of spaces(nodes)) {
    for (const [iova, to] of pages) {
      shown.set(iova, (shown.get(iova) ?? 0) + 1);
      const wanted = announced.get(iova);
      expect(wanted?.addresses.has(to), `${root}: ${iova.toString(16)} -> ${to.toString(16)}`).toBe(true);
    }
  }
  const counts = [...announced].map(([iova, { count }]): [number, number] => [iova, count]);
  const ascending = (a: [number, number], b: [number, number]): number => a[0] - b[0];
  expect([...shown].toSorted(ascending)).toEqual(counts.toSorted(ascending));
}
