import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ByteServer } from '../../src/cli/guest/byte-server.js';
import { Daemon, eventually } from '../support/daemon.js';
import { Guest, type Series } from './support.js';
import { viommu } from './viommu.js';

/**
 * Unmodified Debian kernels whose interrupts are remapped: disk and network with sums while each
 * interrupt moves from processor to processor, none lost, none blocked.
 */

const TIMEOUT_MS = 320_000;
const ROUNDS = 3;
const MIB = 8;

let daemon: Daemon;
let server: ByteServer;

beforeAll(async () => {
  daemon = await Daemon.start();
  server = await ByteServer.open();
});

afterAll(async () => {
  await server.close();
  await daemon.dispose();
});

interface Report {
  readonly interrupts: { readonly asked: number; readonly invalidationsSent: number };
  readonly bridge: { readonly interruptHits: number; readonly interruptsAsked: number };
}

/** What `viommu report` says of a machine that waits. */
async function reportOf(name: string): Promise<Report> {
  const { text } = await viommu(daemon, 'report', '--vm', name);
  return (JSON.parse(text) as { readonly report: Report }).report;
}

describe.each(['6.1', '6.12'] as const)('Debian %s', (series: Series) => {
  it.each([1, 4])(
    'remapped interrupts, %i processors',
    async (cpus) => {
      const name = `interrupts-${series}-${cpus}`;
      const guest = Guest.boot({
        series,
        name,
        socket: daemon.socket,
        choice: { properties: { intremap: 'on' } },
        append: ['intel_iommu=on', 'iommu.strict=1'],
        jobs: ['dmesg', 'interrupts', 'net', 'wait'],
        parameters: { mib: MIB, 'interrupt-rounds': ROUNDS, port: server.port, 'net-mib': 4 },
        machine: { cpus },
      });
      try {
        await guest.run.waitFor(/WAITING/);
        const { interrupts, bridge } = await reportOf(name);
        guest.run.send('\n');
        await guest.done();
        const { run } = guest;
        const said = run.textOf('dmesg').join('\n');
        expect(said).toMatch(/DMAR-IR: Enabled IRQ remapping in x2apic mode/);
        expect(guest.kernelFaults()).toEqual([]);

        const number = (key: string): number => Number(run.value('interrupts', key));
        expect(run.value('interrupts', 'same')).toBe('1');
        expect(number('plain')).toBe(0);
        expect(number('remapped')).toBeGreaterThan(0);
        expect(number('timeouts')).toBe(0);
        if (cpus > 1) {
          expect(number('moved')).toBeGreaterThan(10);
          expect(number('nvme_cpus')).toBeGreaterThan(1);
        }
        // Each one that the guest counted was delivered from what QEMU keeps, but the first ones.
        expect(bridge.interruptHits + bridge.interruptsAsked).toBeGreaterThanOrEqual(number('nvme'));
        expect(bridge.interruptsAsked).toBeLessThan(bridge.interruptHits / 2);
        expect(interrupts.invalidationsSent).toBeGreaterThan(0);
      } finally {
        await guest.dispose();
      }
      await eventually(() => daemon.log().find(({ vm }) => vm === name), 'the session', 10_000);
    },
    TIMEOUT_MS,
  );
});
