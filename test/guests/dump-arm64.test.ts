import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ControlClient } from '../../src/cli/control-client.js';
import type { DumpAnswer } from '../../src/cli/control-protocol.js';
import type { DumpNode } from '../../src/device/iommu.js';
import { SMMU_REGISTERS } from '../../src/spec/smmuv3/registers.js';
import { Daemon } from '../support/daemon.js';
import { all, expectSameRegisters, expectSameTables, groupedDevices } from './dump-support.js';
import { Guest } from './support.js';

/** What `viommu dump` prints of an SMMUv3 against what the arm64 guest itself says. */

const TIMEOUT_MS = 600_000;
/** A device's traffic goes on while the host looks, and with it the command queue. */
const MOVING = new Set(['SMMU_CMDQ_PROD', 'SMMU_CMDQ_CONS']);

let daemon: Daemon;
let control: ControlClient;
let guest: Guest;
let nodes: readonly DumpNode[];

beforeAll(async () => {
  daemon = await Daemon.start();
  control = await ControlClient.connect(`${daemon.socket}.ctl`);
  guest = Guest.boot({
    arch: 'arm64',
    series: '6.12',
    name: 'dump-arm64',
    socket: daemon.socket,
    choice: {},
    append: [
      ...['iommu.strict=1', 'iomem=relaxed', 'ipv6.disable=1'],
      ...['trace_event=iommu:map,iommu:unmap', 'trace_buf_size=16M'],
    ],
    jobs: ['regs', 'net', 'nvme', 'maps'],
    parameters: { mib: 4 },
  });
  await guest.run.waitFor(/VIOMMU-GUEST: WAITING/);
  nodes = ((await control.request('dump', { vm: 'dump-arm64', maxLeaves: 1_000_000 })) as DumpAnswer).nodes;
  guest.run.send('\n');
  await guest.done();
}, TIMEOUT_MS);

afterAll(async () => {
  await guest?.dispose();
  control.close();
  await daemon.dispose();
});

describe('a dump of a Debian 6.12 arm64 guest', () => {
  it('shows the registers that the guest reads', () => {
    expectSameRegisters(guest, nodes, SMMU_REGISTERS, MOVING);
  });

  it('shows a stage-1 stream for each device that the guest put into a group, and the others aborting', () => {
    const streams = nodes.flatMap(all).filter(({ label }) => label.startsWith('STE '));
    const named = streams.filter(({ fields }) => fields?.['Config'] === '5 (stage 1)');
    const devices = groupedDevices(guest);
    expect(devices.length).toBe(3);
    expect(named.map(({ label }) => label.replace('STE ', '0000:')).toSorted()).toEqual(devices.toSorted());
    expect(streams.length - named.length).toBeGreaterThan(0);
    for (const { label, note } of streams) {
      if (/-/.test(label))
        expect([label, note]).toEqual([label, expect.stringMatching(/^\d+ entries: abort$/)]);
    }
    expect(streams.length).toBeLessThan(10);
  });

  it('shows the page tables that the kernel says it made', () => {
    expectSameTables(guest, nodes);
  });
});
