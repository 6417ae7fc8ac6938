import { mkdtempSync, rmSync } from 'node:fs';
import { createConnection, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { CMD } from '../../src/spec/smmuv3/commands.js';
import { Daemon, eventually } from '../support/daemon.js';
import { RelayedHost } from './relayed-host.js';
import { Guest } from './support.js';
import { viommu } from './viommu.js';

/**
 * A real kernel's SMMUv3 driver, nested on a simulated host whose TLB keeps what it holds when a
 * stream leaves its tables: what the driver invalidates before SMMUEN is forwarded, and after a
 * reset in the middle of DMA nothing is reached that only the kernel before it had mapped.
 */

const TIMEOUT_MS = 600_000;
const MEMORY_MIB = 512;
/** Where a virt machine's RAM ends. */
const MEMORY_END = 2 ** 30 + MEMORY_MIB * 2 ** 20;
/** 00:10.0 */
const RID = 0x80;
/** Pages that are mapped, and used, when the machine is reset. */
const LIVE = 8;

let directory: string;
let daemon: Daemon;
let host: RelayedHost | undefined;

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'viommu-nested-'));
  daemon = await Daemon.start();
});
afterAll(async () => {
  await host?.dispose();
  await daemon.dispose();
  rmSync(directory, { recursive: true, force: true });
});

/** A monitor's commands, one after the other. */
class Monitor {
  readonly #socket: Socket;
  #text = '';

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('data', (data: Buffer) => {
      this.#text += data.toString();
    });
  }

  static async connect(path: string): Promise<Monitor> {
    const socket = createConnection(path);
    await new Promise((resolve, reject) => socket.once('connect', resolve).once('error', reject));
    const monitor = new Monitor(socket);
    await monitor.command('qmp_capabilities');
    return monitor;
  }

  async command(execute: string): Promise<void> {
    this.#text = '';
    this.#socket.write(`${JSON.stringify({ execute })}\n`);
    await eventually(() => /"return"|"error"/.test(this.#text), `${execute}: ${this.#text}`, 20_000);
    expect(this.#text).not.toContain('"error"');
  }

  close(): void {
    this.#socket.destroy();
  }
}

describe('a Debian 6.12 arm64 guest whose device is nested', () => {
  it(
    'reaches after a reset nothing that was mapped before it',
    async () => {
      const socket = join(directory, 'daemon');
      host = await RelayedHost.start(socket, daemon.socket, RID, MEMORY_END);
      const { commands } = host;
      const guest = Guest.boot({
        arch: 'arm64',
        series: '6.12',
        name: 'nested',
        socket,
        choice: {},
        append: [],
        jobs: ['dma'],
        parameters: { 'dma-seconds': 6 },
        module: true,
        machine: {
          memoryMib: MEMORY_MIB,
          network: false,
          testDevice: false,
          extra: [
            ...['-device', 'viommu-testdev,addr=0x10', '-action', 'reboot=reset'],
            ...['-qmp', `unix:${join(directory, 'qmp')},server=on,wait=off`],
          ],
        },
        totalMs: TIMEOUT_MS,
      });
      let monitor: Monitor | undefined;
      try {
        await guest.run.waitFor(/VIOMMU-GUEST: dma domain=/);
        const report = JSON.parse((await viommu(daemon, 'report', '--vm', 'nested')).text).report;
        expect(report.assigned).toMatchObject([{ kind: 'vf', choice: 'nest' }]);
        // The driver's reset of the unit (CFGI_ALL, TLBI_NSNH_ALL), when nothing was bound.
        const before = commands.filter(({ bound }) => !bound).map(({ opcode }) => opcode);
        expect(before).toContain(CMD.CFGI_CD_ALL);
        expect(before).toContain(CMD.TLBI_NSNH_ALL);

        monitor = await Monitor.connect(join(directory, 'qmp'));
        let live: number[] = [];
        for (let tries = 0; live.length < LIVE; tries++) {
          if (tries === 400) throw new Error(guest.run.describe(`${live.length} pages are mapped`));
          await new Promise((wake) => setTimeout(wake, 20));
          await monitor.command('stop');
          live = host.reached(host.mapped());
          if (live.length < LIVE) await monitor.command('cont');
        }
        const asked = commands.length;
        let bindings = 0;
        const stale: number[] = [];
        host.bindingChanged = () => {
          const now = host?.mapped() ?? new Set();
          if (host?.bound !== true) return;
          bindings++;
          stale.push(...(host.reached(live) ?? []).filter((page) => !now.has(page)));
        };
        const lines = guest.run.lines.length;
        await monitor.command('system_reset');
        await monitor.command('cont');
        await eventually(
          () => guest.run.lines.slice(lines).some((line) => /VIOMMU-GUEST: WAITING/.test(line)),
          'the second boot',
          TIMEOUT_MS / 2,
        );
        expect(bindings).toBeGreaterThan(0);
        expect(stale).toEqual([]);
        // One by the reset itself, one by the driver, one with SMMUEN.
        const again = commands
          .slice(asked)
          .filter(({ bound, opcode }) => !bound && opcode === CMD.TLBI_NSNH_ALL);
        expect(again.length).toBeGreaterThanOrEqual(3);
        // All is unmapped and invalidated now, page by page and whole.
        const now = host.mapped();
        expect(host.reached(live).filter((page) => !now.has(page))).toEqual([]);
        expect(host.host.violations).toEqual([]);
        guest.run.send('\n');
        await guest.done();
        console.log(`${live.length} pages in use at the reset, ${commands.length} commands forwarded`);
      } finally {
        monitor?.close();
        await guest.dispose();
      }
    },
    TIMEOUT_MS,
  );
});
