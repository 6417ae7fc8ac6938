import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterEach, describe, expect, it } from 'vitest';
import type { SimDemoOptions, SimReport } from '../../src/sim/sim-report.js';
import { SimVm } from '../../src/sim/vm.js';
import { GCMD_REG } from '../../src/spec/vtd/registers.js';
import { MESSAGE } from '../../src/wire/frame.js';
import { Daemon, eventually, MAIN, sleep } from '../support/daemon.js';
import { DATA, device, expectReaches, MIB, RID, startDriver } from '../support/rig.js';

const IOVA = 0x4000_0000n;

function frame(type: number, flags: number, body: Uint8Array): Uint8Array {
  const header = new Uint8Array(Uint32Array.of(type, flags, body.length, 1).buffer);
  return Uint8Array.of(...header, ...body);
}

function residentMiB(pid: number): number {
  const kib = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
  return Number(kib) / 1024;
}

describe('a daemon', () => {
  const daemons: Daemon[] = [];
  const start = async (args: readonly string[] = [], directory?: string): Promise<Daemon> => {
    const daemon = await Daemon.start(args, directory);
    daemons.push(daemon);
    return daemon;
  };
  afterEach(async () => {
    for (const daemon of daemons.splice(0)) await daemon.dispose();
  });

  const use = (vm: SimVm): void => {
    const driver = startDriver(vm, 'legacy');
    const domain = driver.createDomain('second');
    driver.attach(RID, domain);
    driver.map(domain, IOVA, DATA, 4096);
    expectReaches(vm, device(vm), IOVA, DATA);
  };

  it('lets only its user connect, and leaves nothing of a machine that has gone', async () => {
    const daemon = await start();
    expect(statSync(daemon.socket).mode & 0o777).toBe(0o600);
    SimVm.connect(daemon.socket, { ramBytes: 32 * MIB }).close();
    await eventually(() => daemon.guestMappings().length === 0, 'the first machine to be gone');
    const before = daemon.descriptors().length;
    const all = daemon.descriptorCount();
    for (let n = 0; n < 15; n++) {
      const vm = SimVm.connect(daemon.socket, { ramBytes: 32 * MIB });
      use(vm);
      expect(daemon.guestMappings().length).toBeGreaterThan(0);
      vm.close();
    }
    await eventually(() => daemon.guestMappings().length === 0, 'every mapping to be gone');
    await eventually(
      () => daemon.descriptors().length === before,
      `${before} descriptors, not ${daemon.descriptors().join(' ')}`,
    );
    // One more thread may have been made ahead than at first; one descriptor a machine would be
    // more.
    await eventually(() => daemon.descriptorCount() < all + 12, 'the other descriptors to be gone');
  });

  it('ends cleanly on SIGTERM: machines are told, the socket is gone, exit code 0', async () => {
    const daemon = await start();
    const vms = [1, 2, 3].map(() => SimVm.connect(daemon.socket, { ramBytes: 32 * MIB }));
    for (const vm of vms) use(vm);
    daemon.signal('SIGTERM');
    for (const vm of vms) {
      expect(vm.client.awaitEnd().reason).toBe('STOPPED');
      vm.close();
    }
    expect(await daemon.exited).toBe(0);
    expect(existsSync(daemon.socket)).toBe(false);
  });

  it('says why it ends to a machine that asks nothing at that moment', async () => {
    const daemon = await start();
    const vm = SimVm.connect(daemon.socket, { ramBytes: MIB });
    daemon.signal('SIGTERM');
    await daemon.exited;
    // Serves the backend channel, and looks at no other.
    expect(() => vm.client.serve(0)).toThrow('the daemon ends this session');
    vm.close();
  });

  it('ends on SIGINT the same way', async () => {
    const daemon = await start();
    daemon.signal('SIGINT');
    expect(await daemon.exited).toBe(0);
    expect(existsSync(daemon.socket)).toBe(false);
  });

  it('takes over a socket file that a killed daemon left', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'viommu-it-'));
    const first = await start([], directory);
    first.signal('SIGKILL');
    await first.exited;
    expect(existsSync(first.socket)).toBe(true);
    const second = await start([], directory);
    const vm = SimVm.connect(second.socket, { ramBytes: 32 * MIB });
    use(vm);
    vm.close();
  });

  it('does not take over a socket with a listener, nor a file that is no socket', async () => {
    const daemon = await start();
    const again = spawnSync(process.execPath, [MAIN, 'serve', '--socket', daemon.socket], {
      timeout: 20_000,
    });
    expect(again.status).not.toBe(0);
    expect(`${again.stderr}${again.stdout}`).toContain(daemon.socket);
    const vm = SimVm.connect(daemon.socket, { ramBytes: 32 * MIB });
    use(vm);
    vm.close();
    const directory = mkdtempSync(join(tmpdir(), 'viommu-it-'));
    const file = join(directory, 'precious');
    writeFileSync(file, 'data');
    const refused = spawnSync(process.execPath, [MAIN, 'serve', '--socket', file], { timeout: 20_000 });
    expect(refused.status).not.toBe(0);
    expect(statSync(file).size).toBe(4);
    rmSync(directory, { recursive: true });
  });

  it('cleans up after a machine that was killed', async () => {
    const daemon = await start();
    const url = pathToFileURL(join(dirname(MAIN), 'sim/vm.js')).href;
    const before = daemon.descriptors().length;
    const code = `
      const { SimVm } = await import(${JSON.stringify(url)});
      SimVm.connect(${JSON.stringify(daemon.socket)}, { ramBytes: 2 ** 25 });
      console.log('connected');
      setInterval(() => {}, 1000);`;
    const machine = spawn(process.execPath, ['--input-type=module', '-e', code], {
      stdio: ['ignore', 'pipe', 2],
    });
    await new Promise((resolve) => machine.stdout?.once('data', resolve));
    expect(daemon.guestMappings().length).toBeGreaterThan(0);
    machine.kill('SIGKILL');
    await eventually(() => daemon.guestMappings().length === 0, 'its mappings to be gone');
    await eventually(() => daemon.descriptors().length === before, 'its descriptors to be gone');
  });

  it('goes on, and can be stopped, while a machine does not acknowledge', async () => {
    const daemon = await start();
    const stuck = SimVm.connect(daemon.socket, { name: 'stuck', ramBytes: 32 * MIB });
    const other = SimVm.connect(daemon.socket, { name: 'other', ramBytes: 32 * MIB });
    use(stuck);
    // This invalidation is never answered: the backend channel is not read any more.
    stuck.writeRegister(GCMD_REG.offset, 4, 0n);
    await eventually(async () => (await daemon.report('stuck')).pendingAcks > 0, 'the daemon to wait');
    use(other);
    other.close();
    daemon.signal('SIGTERM');
    expect(await daemon.exited).toBe(0);
    stuck.close();
  });

  it('ends the connection of a machine that asks and never reads, and of no other', async () => {
    const daemon = await start();
    const other = SimVm.connect(daemon.socket, { name: 'other', ramBytes: 32 * MIB });
    use(other);
    const deaf = SimVm.connect(daemon.socket, { name: 'deaf', ramBytes: MIB });
    const question = frame(MESSAGE.REG_READ, 9, Uint8Array.of(0x10, 4));
    let sent = 0;
    // The daemon stops reading when its answers pile up; then nothing more can be sent, and nothing
    // grows.
    for (let stalled = 0; stalled < 50 && sent < 3_000_000; sent++) {
      deaf.client.front.putRaw(question);
      if (sent % 1000 !== 0) continue;
      try {
        if (deaf.client.front.flush()) continue;
      } catch {
        break;
      }
      stalled++;
      await sleep(10);
    }
    expect(sent).toBeLessThan(3_000_000);
    other.iotlb.clear();
    expectReaches(other, device(other), IOVA, DATA);
    expect(residentMiB(daemon.pid)).toBeLessThan(600);
    deaf.close();
    other.close();
    expect(await daemon.stop()).toBe(0);
  });

  it('serves several machines at once, each its own', async () => {
    const daemon = await start();
    const url = pathToFileURL(join(dirname(MAIN), 'sim/demo-worker.js')).href;
    const { startSimDemo } = (await import(url)) as {
      startSimDemo: (
        socket: string,
        options: SimDemoOptions,
        print: (line: string) => void,
      ) => Promise<SimReport>;
    };
    const variants: SimDemoOptions[] = [
      { name: 'one', bytes: MIB },
      { name: 'two', bytes: MIB, options: { 'caching-mode': 'on' } },
      { name: 'three', bytes: MIB, options: { 'scalable-mode': 'off' } },
      { name: 'four', bytes: MIB, options: { 'aw-bits': '57' } },
      { name: 'five', bytes: MIB, model: 'smmuv3' },
    ];
    const reports = await Promise.all(
      variants.map((options) => startSimDemo(daemon.socket, options, () => {})),
    );
    for (const report of reports) {
      expect(report.unexpectedFaults).toBe(0);
      expect(report.expectedFaults).toBeGreaterThanOrEqual(4);
      expect(report.bytesMoved).toBeGreaterThanOrEqual(2 * MIB);
      expect(report.misses).toBeGreaterThan(0);
    }
    await eventually(() => daemon.guestMappings().length === 0, 'every mapping to be gone');
  });
});
