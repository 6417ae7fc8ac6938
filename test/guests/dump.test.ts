import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ControlClient } from '../../src/cli/control-client.js';
import type { DumpAnswer } from '../../src/cli/control-protocol.js';
import type { DumpNode } from '../../src/device/iommu.js';
import { BASE_REGISTERS } from '../../src/spec/vtd/registers.js';
import { Daemon } from '../support/daemon.js';
import { titled } from '../support/titled.js';
import { all, expectSameRegisters, expectSameTables, groupedDevices, registerValue } from './dump-support.js';
import { Guest } from './support.js';

/**
 * What `viommu dump` prints against what the guest itself says: registers as the guest reads them,
 * capabilities as its driver shows them, and page tables against the kernel's own iommu:map and
 * iommu:unmap tracepoints.
 */

const TIMEOUT_MS = 320_000;
/** They change by themselves: the guest's flush timer submits descriptors. */
const VOLATILE = new Set(['IQH_REG', 'IQT_REG']);

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

describe.each(
  titled(
    [
      { mode: 'legacy', scalable: false, word: 'sm_off' },
      { mode: 'scalable', scalable: true, word: 'sm_on' },
    ],
    ({ mode }) => `a dump of a Debian 6.12 guest in ${mode} mode`,
  ),
)('%s', (_title, { mode, scalable, word }) => {
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
        // No traffic of its own while the host looks: a packet that comes in has its buffer mapped
        // anew.
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
    expectSameRegisters(guest, nodes, BASE_REGISTERS, VOLATILE);
  });

  it('shows the capabilities that the guest driver found', () => {
    expect(BigInt(`0x${guest.run.value('regs', 'cap')}`)).toBe(registerValue(nodes, 'CAP_REG'));
    expect(BigInt(`0x${guest.run.value('regs', 'ecap')}`)).toBe(registerValue(nodes, 'ECAP_REG'));
    const [major = '', minor = ''] = (guest.run.value('regs', 'version') ?? '').split(':');
    expect(BigInt(Number(major) * 16 + Number(minor))).toBe(registerValue(nodes, 'VER_REG'));
  });

  it('shows a context for each device that the guest put into a group', () => {
    const devices = groupedDevices(guest);
    expect(devices.length).toBeGreaterThan(3);
    const contexts = nodes
      .flatMap(all)
      .flatMap(({ label }) => /^context (\S+)/.exec(label)?.[1] ?? [])
      .map((name) => `0000:${name}`);
    expect(contexts.toSorted()).toEqual(devices.toSorted());
  });

  it('shows the page tables that the kernel says it made', () => {
    expectSameTables(guest, nodes);
  });
});
