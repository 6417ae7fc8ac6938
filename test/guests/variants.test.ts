import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { FAULT } from '../../src/spec/vtd/faults.js';
import { Daemon } from '../support/daemon.js';
import { Guest, type GuestOptions } from './support.js';

/** The same guest in the ways that people run it, and on a day when the daemon dies. */

const TIMEOUT_MS = 320_000;
const SMALL = { mib: 8, 'net-mib': 1 } as const;

let daemon: Daemon;

beforeAll(async () => {
  daemon = await Daemon.start();
});

afterAll(async () => {
  await daemon.dispose();
});

function options(name: string, given: Partial<GuestOptions>): GuestOptions {
  return {
    series: '6.12',
    name,
    socket: daemon.socket,
    choice: {},
    append: ['intel_iommu=on'],
    jobs: ['dmesg', 'nvme', 'virtio-blk', 'net'],
    parameters: SMALL,
    ...given,
  };
}

const variants: readonly { name: string; what: string; given: Partial<GuestOptions>; says: RegExp }[] = [
  {
    name: 'remote-memory',
    what: 'RAM that the daemon cannot map, asked for by message',
    given: { choice: { scalableMode: true }, machine: { sharedMemory: false } },
    says: /Intel\(R\) Virtualization Technology for Directed I\/O/,
  },
  {
    name: 'off',
    what: 'remapping left off: every address is its own translation',
    given: { append: ['intel_iommu=off'] },
    says: /DMAR: Host address width 48/,
  },
  {
    name: 'passthrough',
    what: 'iommu.passthrough=1: pass-through entries',
    given: { append: ['intel_iommu=on', 'iommu.passthrough=1'], choice: { scalableMode: true } },
    says: /Default domain type: Passthrough/,
  },
  {
    name: 'caching-mode',
    what: 'caching mode, several processors, 39-bit legacy',
    given: {
      choice: { cachingMode: true, scalableMode: false, awBits: 39 },
      machine: { cpus: 2 },
      append: ['intel_iommu=on,sm_off'],
    },
    says: /DMAR: Host address width 39/,
  },
  {
    name: 'five-levels',
    what: '57 bits: five levels',
    given: {
      choice: { scalableMode: true, awBits: 57 },
      append: ['intel_iommu=on,sm_on'],
    },
    says: /DMAR: Host address width 52|DMAR: Host address width 57/,
  },
  {
    name: 'virtual-commands',
    what: 'virtual commands: a 6.1 kernel has its PASIDs from us',
    given: {
      series: '6.1',
      choice: {
        scalableMode: true,
        cachingMode: true,
        properties: { 'virtual-commands': 'on' },
      },
      append: ['intel_iommu=on,sm_on'],
    },
    says: /DMAR: Register custom PASID allocator/,
  },
];

describe('a Debian guest', () => {
  for (const { what, name, given, says } of variants) {
    it(
      what,
      async () => {
        const guest = Guest.boot(options(name, given));
        try {
          await guest.done();
          expect(guest.run.textOf('dmesg').join('\n')).toMatch(says);
          expect(guest.run.value('nvme', 'same')).toBe('1');
          expect(guest.run.value('virtio-blk', 'same')).toBe('1');
          expect(guest.kernelFaults()).toEqual([]);
        } finally {
          await guest.dispose();
        }
      },
      TIMEOUT_MS,
    );
  }

  it.each(['read', 'write'] as const)(
    'whose device makes a %s where interrupts go: refused and reported, once, while real ones come through',
    async (direction) => {
      const addresses = [0xdead_0000, 0xfee0_0000, 0xfeef_f000];
      const guest = Guest.boot(
        options(`interrupt-range-${direction}`, {
          choice: { scalableMode: true },
          append: ['intel_iommu=on,sm_on'],
          jobs: ['stray', 'nvme'],
          parameters: {
            mib: 8,
            length: 64,
            stray: addresses.map((at) => `0x${at.toString(16)}`).join(','),
            'stray-direction': direction,
          },
        }),
      );
      try {
        await guest.done();
        // NVMe's completions are such interrupts.
        expect(guest.run.value('nvme', 'same')).toBe('1');
        const device = (guest.run.value('stray', 'device') ?? '').replace(/^0000:/, '');
        expect(guest.kernelFaults()).toMatchObject(
          addresses.map((at) => ({
            operation: direction,
            device,
            address: `0x${at.toString(16)}`,
            reason: at === 0xdead_0000 ? FAULT.SFS_2 : FAULT.IR_29,
          })),
        );
      } finally {
        await guest.dispose();
      }
    },
    TIMEOUT_MS,
  );

  it(
    'whose daemon dies: DMA is refused, QEMU says so once, nothing hangs',
    async () => {
      const doomed = await Daemon.start();
      const guest = Guest.boot(options('doomed', { socket: doomed.socket, jobs: ['wait', 'stray'] }));
      try {
        await guest.run.waitFor(/VIOMMU-GUEST: WAITING/);
        doomed.signal('SIGKILL');
        await doomed.exited;
        guest.run.send('\n');
        await guest.run.waitFor(/VIOMMU-GUEST: stray status=/);
        // The device's transfer was refused; the guest's kernel hears nothing, since no fault is
        // recorded now.
        expect(guest.run.value('stray', 'device_status')).toBe('3');
        expect(guest.kernelFaults()).toEqual([]);
        // A guest that waits for its IOMMU waits forever, as on silicon that died. QEMU must not
        // wait with it.
        await guest.run.kill('seen enough');
        const end = await guest.run.end;
        expect(end).toMatchObject({ exitCode: 0, signal: null });
        expect(end.stderr.match(/daemon/g) ?? []).toHaveLength(1);
      } finally {
        await guest.dispose();
        await doomed.dispose();
      }
    },
    TIMEOUT_MS,
  );
});
