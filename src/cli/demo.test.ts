import { chmodSync, existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { run } from './program.js';
import { BRIDGE, fakeServices, type TestContext, testContext, until } from './testing/fakes.js';

let context: TestContext;
let services: ReturnType<typeof fakeServices>;

beforeEach(() => {
  const scratch = testContext();
  context = { ...scratch, env: { ...scratch.env, TMPDIR: scratch.dir } };
  services = fakeServices();
});
afterEach(() => context.cleanUp());

const GOOD = [
  'VIOMMU-GUEST: READY',
  'VIOMMU-GUEST: boot release=6.12.0-test uptime=1.00',
  'VIOMMU-GUEST: dmesg | [    0.1] DMAR: IOMMU enabled',
  'VIOMMU-GUEST: dmesg status=0',
  'VIOMMU-GUEST: nvme disk=nvme0n1 bytes=1048576 written=aa read=aa same=1 write_seconds=1 read_seconds=1',
  'VIOMMU-GUEST: nvme status=0',
  'VIOMMU-GUEST: virtio-blk disk=vda bytes=1048576 written=aa read=aa same=1 write_seconds=1 read_seconds=1',
  'VIOMMU-GUEST: virtio-blk status=0',
  'VIOMMU-GUEST: net direction=down bytes=4096 md5=MD5 seconds=1',
  'VIOMMU-GUEST: net status=0',
  'VIOMMU-GUEST: faults count=0',
  'VIOMMU-GUEST: DONE status=0 uptime=2.00',
];

/**
 * A program in QEMU's place: connects to the daemon, fetches bytes as the guest would, prints these
 * lines.
 */
function fakeQemu(lines: readonly string[], tail = 'process.exit(0);'): string {
  const path = join(context.dir, 'fake-qemu');
  const body = `
    const { createHash } = require('crypto');
    const args = process.argv.join(' ');
    const path = /viommu-(?:vtd|smmuv3),socket=([^,]*)/.exec(args)[1];
    const port = /viommu.port=(\\d+)/.exec(args)[1];
    require('net').connect(path).on('connect', async () => {
      const data = await (await fetch('http://127.0.0.1:' + port + '/download?bytes=4096')).arrayBuffer();
      const md5 = createHash('md5').update(Buffer.from(data)).digest('hex');
      for (const line of ${JSON.stringify(lines)}) console.log(line.replace('MD5', md5));
      ${tail}
    });`;
  writeFileSync(path, `#!${process.execPath}\n${body}`);
  chmodSync(path, 0o755);
  return path;
}

function demo(qemu: string, ...options: string[]): Promise<number> {
  const own = ['--qemu', qemu, '--bridge', BRIDGE, '--kernel', '/k', '--initramfs', '/i', '--mib', '1'];
  return run(context, services, ['demo', ...own, ...options]);
}

/** Files of the demo that are still there. */
function leftovers(): string[] {
  const own = join(context.dir, 'viommu');
  return [
    ...(existsSync(own) ? readdirSync(own) : []),
    ...readdirSync(context.dir).filter((name) => name.startsWith('viommu-demo-')),
  ];
}

describe('viommu demo', () => {
  it('reports a good run and exits 0', async () => {
    const log = join(context.dir, 'console.log');
    expect(await demo(fakeQemu(GOOD), '--keep-log', log, '--mode', 'scalable')).toBe(0);
    const out = context.out();
    expect(out).toContain('Linux 6.12.0-test, scalable mode');
    expect(out).toContain('DMAR: IOMMU enabled');
    expect(out).toMatch(/bytes moved +4 198 400 by DMA/);
    expect(out).toMatch(/translations +23: 16 answered inside QEMU/);
    expect(out).toMatch(/faults +0\n/);
    expect(readFileSync(log, 'utf8')).toContain('VIOMMU-GUEST: DONE status=0');
    expect(leftovers()).toEqual([]);
  });

  it('boots an arm64 guest with a device tree, or through firmware with ACPI', async () => {
    const arguments_ = join(context.dir, 'arguments');
    const note = `require('fs').writeFileSync(${JSON.stringify(arguments_)}, args); process.exit(0);`;
    const lines = GOOD.map((line) => line.replace('DMAR: IOMMU enabled', 'arm-smmu-v3 x: ias 48-bit'));
    expect(await demo(fakeQemu(lines, note), '--arch', 'arm64')).toBe(0);
    expect(readFileSync(arguments_, 'utf8')).toMatch(/-machine virt,gic-version=3.* console=ttyAMA0 /);
    expect(readFileSync(arguments_, 'utf8')).not.toContain('-bios');
    expect(context.out()).toContain('Linux 6.12.0-test, device tree');
    expect(context.out()).toContain('ias 48-bit');
    const firmware = ['--arch', 'arm64', '--firmware', BRIDGE];
    expect(await demo(fakeQemu(lines, note), ...firmware)).toBe(0);
    expect(readFileSync(arguments_, 'utf8')).toContain(`-bios ${BRIDGE}`);
    expect(context.out()).toContain('Linux 6.12.0-test, UEFI and ACPI');
  });

  it.each([['--arch', 'arm64', '--mode', 'scalable'], ['--acpi'], ['--arch', 'riscv64']])(
    'refuses options of the other architecture: %s %s %s',
    async (...options) => {
      expect(await demo(fakeQemu(GOOD), ...options)).toBe(2);
      expect(leftovers()).toEqual([]);
    },
  );

  const change = (from: string, to: string): string[] => GOOD.map((line) => line.replace(from, to));

  it.each([
    ['a checksum differs', change('read=aa same=1', 'read=ab same=0'), 'what was read back differs'],
    ['bytes of the network differ', change('md5=MD5', 'md5=00'), 'different checksums'],
    ['the guest saw a fault', change('count=0', 'count=1'), '1 DMA fault(s)'],
    ['the guest stopped half-way', GOOD.slice(0, 6), 'job virtio-blk did not end'],
  ])('exits 1 with the reason when %s', async (_what, lines, reason) => {
    expect(await demo(fakeQemu(lines))).toBe(1);
    expect(context.err()).toContain(reason);
    expect(context.err()).toContain('last console lines');
    expect(leftovers()).toEqual([]);
  });

  it('exits 1 when QEMU fails, and shows what it said', async () => {
    expect(await demo(fakeQemu([], "console.error('no such device'); process.exit(1);"))).toBe(1);
    expect(context.err()).toContain('QEMU ended with exit code 1');
    expect(context.err()).toContain('no such device');
  });

  it('ends QEMU when it is interrupted, and leaves nothing', async () => {
    const running = demo(fakeQemu(GOOD.slice(0, 1), 'setInterval(() => {}, 1000);'));
    await until(() => context.out().includes('first line of user space'), 'the guest');
    context.raise('SIGINT');
    expect(await running).toBe(130);
    expect(leftovers()).toEqual([]);
  });

  it('wants a kernel and its initramfs together', async () => {
    const code = await run(context, services, [
      'demo',
      '--qemu',
      process.execPath,
      '--bridge',
      BRIDGE,
      '--kernel',
      '/k',
    ]);
    expect(code).toBe(2);
    expect(leftovers()).toEqual([]);
  });
});

describe('viommu demo --sim', () => {
  const result = {
    ...{ bytesMoved: 4096, misses: 1, hits: 2, invalidations: 3, descriptors: 4, interrupts: 5 },
    ...{ expectedFaults: 6, unexpectedFaults: 0, steps: [] },
  };

  it('prints what the simulated machine says, and its report', async () => {
    const simulate: typeof services.simulate = async (socket, options, print) => {
      expect(existsSync(socket)).toBe(true);
      expect(options.modes).toEqual(['legacy']);
      print('a step');
      return result;
    };
    expect(await run(context, { ...services, simulate }, ['demo', '--sim', '--mode', 'legacy'])).toBe(0);
    expect(context.out()).toContain('  a step\n');
    expect(context.out()).toMatch(/faults +0 \(and 6 provoked/);
    expect(leftovers()).toEqual([]);
  });

  it('drives an SMMUv3 with --arch arm64, where VT-d modes mean nothing', async () => {
    let model: string | undefined;
    const simulate: typeof services.simulate = async (_socket, options) => {
      model = options.model;
      return result;
    };
    const arm = ['demo', '--sim', '--arch', 'arm64'];
    expect(await run(context, { ...services, simulate }, arm)).toBe(0);
    expect(model).toBe('smmuv3');
    expect(context.out()).toContain('on the external SMMUv3');
    expect(await run(context, { ...services, simulate }, [...arm, '--mode', 'legacy'])).toBe(2);
  });

  it('fails when the machine fails, or saw a fault that it did not provoke', async () => {
    const failing = { ...services, simulate: () => Promise.reject(new Error('checksums differ')) };
    expect(await run(context, failing, ['demo', '--sim'])).toBe(1);
    expect(context.err()).toContain('checksums differ');
    const faulty = { ...services, simulate: async () => ({ ...result, unexpectedFaults: 1 }) };
    expect(await run(context, faulty, ['demo', '--sim'])).toBe(1);
  });
});
