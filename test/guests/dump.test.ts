import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ControlClient } from '../../src/cli/control-client.js';
import type { DumpAnswer } from '../../src/cli/control-protocol.js';
import type { DumpNode } from '../../src/device/iommu.js';
import { BASE_REGISTERS } from '../../src/spec/vtd/registers.js';
import { Daemon } from '../support/daemon.js';
import { Guest } from './support.js';

/**
 * What `viommu dump` prints against what the guest itself says: registers as the guest reads them, capabilities
 * as its driver shows them, and page tables against the kernel's own iommu:map and iommu:unmap tracepoints.
 */

const TIMEOUT_MS = 320_000;
const PAGE = 4096;
/** Move on their own while nobody looks: the guest's flush timer submits descriptors. */
const VOLATILE = new Set(['IQH_REG', 'IQT_REG']);

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
function all(node: DumpNode): DumpNode[] {
  return [node, ...children(node).flatMap(all)];
}

/** The distinct page tables of a dump; requesters of one domain share theirs. */
function spaces(nodes: readonly DumpNode[]): Space[] {
  const found = new Map<string, Space>();
  for (const node of nodes.flatMap(all)) {
    const name = /^(?:first|second)-stage .* at (0x[0-9a-f]+)/.exec(node.label);
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

/** Replays the guest's map and unmap events, page by page: what one call maps, another may unmap in part. */
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

function registerValue(nodes: readonly DumpNode[], name: string): bigint | undefined {
  const raw = nodes.flatMap(all).find(({ label }) => label === name)?.raw;
  return raw === undefined ? undefined : BigInt(raw);
}

let daemon: Daemon;
let control: ControlClient;

beforeAll(async () => {
  daemon = await Daemon.start();
  control = await ControlClient.connect(`${daemon.socket}.ctl`);
});

afterAll(async () => {
  control.close();
  await daemon.dispose();
});

describe.each([
  { mode: 'legacy', scalable: false, word: 'sm_off' },
  { mode: 'scalable', scalable: true, word: 'sm_on' },
])('a dump of a Debian 6.12 guest in $mode mode', ({ mode, scalable, word }) => {
  let guest: Guest;
  let nodes: readonly DumpNode[];

  beforeAll(async () => {
    guest = Guest.boot({
      series: '6.12',
      name: `dump-${mode}`,
      socket: daemon.socket,
      choice: { scalableMode: scalable },
      append: [
        `intel_iommu=on,${word}`,
        'iommu.strict=1',
        'iomem=relaxed',
        // No traffic of its own while the host looks: a packet that comes in has its buffer mapped anew.
        'ipv6.disable=1',
        'trace_event=iommu:map,iommu:unmap',
        'trace_buf_size=16M',
      ],
      jobs: ['regs', 'net', 'nvme', 'maps'],
      parameters: { mib: 4 },
    });
    await guest.run.waitFor(/VIOMMU-GUEST: WAITING/);
    const answer = await control.request('dump', { vm: `dump-${mode}`, maxLeaves: 1_000_000 });
    nodes = (answer as DumpAnswer).nodes;
    guest.run.send('\n');
    await guest.done();
  }, TIMEOUT_MS);

  afterAll(async () => {
    await guest.dispose();
  });

  it('shows the registers that the guest reads', () => {
    const words = new Map(
      guest.run.of('regs').flatMap(({ values }) => {
        const { offset, value } = values;
        return offset === undefined || value === undefined ? [] : [[Number(offset), BigInt(value)] as const];
      }),
    );
    const compared = BASE_REGISTERS.filter(({ name, offset }) => {
      const shown = registerValue(nodes, name);
      return shown !== undefined && !VOLATILE.has(name) && words.has(offset);
    });
    expect(compared.length).toBeGreaterThan(12);
    for (const { name, offset, width } of compared) {
      const high = width === 64 ? (words.get(offset + 4) ?? 0n) : 0n;
      expect([name, (high << 32n) | (words.get(offset) ?? 0n)]).toEqual([name, registerValue(nodes, name)]);
    }
  });

  it('shows the capabilities that the guest driver found', () => {
    expect(BigInt(`0x${guest.run.value('regs', 'cap')}`)).toBe(registerValue(nodes, 'CAP_REG'));
    expect(BigInt(`0x${guest.run.value('regs', 'ecap')}`)).toBe(registerValue(nodes, 'ECAP_REG'));
    const [major = '', minor = ''] = (guest.run.value('regs', 'version') ?? '').split(':');
    expect(BigInt(Number(major) * 16 + Number(minor))).toBe(registerValue(nodes, 'VER_REG'));
  });

  it('shows a context for each device that the guest put into a group', () => {
    const devices = guest.run.of('regs').flatMap(({ values }) => values['device'] ?? []);
    expect(devices.length).toBeGreaterThan(3);
    const contexts = nodes
      .flatMap(all)
      .flatMap(({ label }) => /^context (\S+)/.exec(label)?.[1] ?? [])
      .map((name) => `0000:${name}`);
    expect(contexts.toSorted()).toEqual(devices.toSorted());
  });

  it('shows the page tables that the kernel says it made', () => {
    expect(guest.run.value('maps', 'overrun')).toBe('0');
    const announced = announcedPages(guest);
    expect(announced.size).toBeGreaterThan(300);
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
  });
});
