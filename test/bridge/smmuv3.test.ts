import { spawnSync } from 'node:child_process';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { CODEC } from '../../src/wire/codec.js';
import { MESSAGE } from '../../src/wire/frame.js';
import { prepared } from '../guests/support.js';
import { eventually } from '../support/daemon.js';
import { titled } from '../support/titled.js';
import { BridgeQemu } from './qemu.js';
import { ScriptedDaemon } from './scripted-daemon.js';

/** The bridge of arm64 machines: what is the SMMUv3 device's own. */

let qemu: BridgeQemu;
let daemon: ScriptedDaemon;

beforeEach(async () => {
  qemu = new BridgeQemu('arm64');
  daemon = await ScriptedDaemon.start(qemu.socket, {});
});

afterEach(async () => {
  qemu.dispose();
  await daemon.dispose();
});

async function start(options = ''): Promise<void> {
  qemu.start(options, ['-S']);
  await eventually(() => daemon.received.includes('RESET'), `the reset at power-on: ${qemu.text}`, 20_000);
}

describe('-device viommu-smmuv3', () => {
  it('is added to a stock qemu-system-aarch64, and describes itself', () => {
    const { qemu: program, bridge } = prepared('arm64');
    const env = { ...process.env, LD_PRELOAD: bridge };
    const help = spawnSync(program, ['-device', 'viommu-smmuv3,help'], { encoding: 'utf8', env }).stdout;
    expect(help).toMatch(/socket=<str> +- path of the viommu daemon's socket/);
    expect(help).toMatch(/stages=<str> +- 1, 2 or nested/);
  });

  it('asks for the model, and passes on the options that were given and no others', async () => {
    await start(',stages=1,granules=4k,,64k,oas=44');
    expect(daemon.hello).toMatchObject({ vm: 'bridge-test', model: 'smmuv3' });
    expect(daemon.hello?.options).toEqual({ stages: '1', granules: '4k,64k', oas: '44' });
    expect(await qemu.quit()).toBe(0);
  });

  it('hears of every reset of the machine', async () => {
    await start();
    const before = daemon.received.length;
    await qemu.command('system_reset');
    await eventually(() => daemon.received.slice(before).includes('RESET'), 'a second RESET', 20_000);
    expect(await qemu.quit()).toBe(0);
    expect(qemu.text).toBe('');
  });

  it.each(
    titled(
      [
        { machine: 'virt,gic-version=2', says: /has to have an interrupt translation service/ },
        { machine: 'virt,gic-version=3,its=off', says: /has to have an interrupt translation service/ },
        { machine: 'virt,gic-version=3,iommu=smmuv3', says: /has an IOMMU already/ },
        { machine: 'sbsa-ref', says: /the machine has to be virt/ },
      ],
      ({ machine }) => `refuses -machine ${machine}`,
    ),
  )('%s', async (_title, { machine, says }) => {
    qemu.start('', [], undefined, machine);
    expect(await qemu.exited).toBe(1);
    expect(qemu.text).toMatch(says);
  });

  it('refuses to stand twice in a machine', async () => {
    qemu.start('', ['-device', `viommu-smmuv3,socket=${qemu.socket}`]);
    expect(await qemu.exited).toBe(1);
    expect(qemu.text).toMatch(/has an IOMMU already/);
  });

  it('takes edges on its four outputs; a fifth ends the session', async () => {
    await start();
    const signal = (wire: number): void => {
      const message = { addressLo: 0, addressHi: 0, data: 0, wire };
      daemon.backend?.put(MESSAGE.INTERRUPT, 0, 0, CODEC.Interrupt, message);
      daemon.backend?.flush();
    };
    for (const wire of [1, 2, 3, 4]) signal(wire);
    const all = { space: 0xffffffff, sub: 0xffffffff, rid: 0xffffffff, pasid: 0xffffffff, lo: 0, hi: 0 };
    await daemon.ask(MESSAGE.INVALIDATE, { ...all, epoch: 1, log2Size: 64, devices: [], structures: false });
    expect(qemu.text).toBe('');
    signal(5);
    await eventually(() => qemu.text.includes('no DMA through'), 'the report', 20_000);
    expect(qemu.text).toMatch(/an interrupt on output 4, of which this unit has 4/);
    expect(await qemu.quit()).toBe(0);
  });
});
