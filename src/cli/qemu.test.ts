import { chmodSync, existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { run } from './program.js';
import { archOf, findDevice, qemuArguments, shellLine } from './qemu-arguments.js';
import { BRIDGE, fakeServices, type TestContext, testContext, until } from './testing/fakes.js';

let context: TestContext;
let services: ReturnType<typeof fakeServices>;

beforeEach(() => {
  context = testContext();
  services = fakeServices();
});
afterEach(() => context.cleanUp());

/** A program in QEMU's place. */
function script(body: string): string {
  const path = join(context.dir, 'fake-qemu');
  writeFileSync(path, `#!${process.execPath}\n${body}`);
  chmodSync(path, 0o755);
  return path;
}

const viommu = (body: string, ...argv: string[]): Promise<number> =>
  run(context, services, ['qemu', '--qemu', script(body), '--bridge', BRIDGE, ...argv]);

/** Sockets and private directories that are left. */
const leftovers = (): string[] =>
  existsSync(join(context.dir, 'viommu')) ? readdirSync(join(context.dir, 'viommu')) : [];

const SEEN = `require('fs').writeFileSync(process.env.SEEN, JSON.stringify({ args: process.argv.slice(2), preload: process.env.LD_PRELOAD }));`;

describe('viommu qemu', () => {
  it('runs QEMU with the bridge and our device first, and leaves nothing behind', async () => {
    const seen = join(context.dir, 'seen');
    context = { ...context, env: { ...context.env, SEEN: seen } };
    const chosen = ['--name', 'web,1', '--no-scalable-mode', '--no-first-stage'];
    expect(await viommu(SEEN, ...chosen, '--', '-machine', 'q35', '-S')).toBe(0);
    const { args, preload } = JSON.parse(readFileSync(seen, 'utf8'));
    expect(preload).toBe(BRIDGE);
    expect(args[0]).toBe('-device');
    expect(args[1]).toMatch(
      /^viommu-vtd,socket=.*\/viommu\/vm-.*\/socket,scalable-mode=off,first-stage=off,name=web,,1$/,
    );
    expect(args.slice(2)).toEqual(['-machine', 'q35', '-S']);
    expect(leftovers()).toEqual([]);
  });

  it.each([
    ['process.exit(7)', 7],
    ["process.kill(process.pid, 'SIGKILL')", 137],
    ['', 0],
  ])('passes the end of QEMU on: %s', async (body, code) => {
    expect(await viommu(body, '--', '-S')).toBe(code);
    expect(leftovers()).toEqual([]);
  });

  it('says that the machine has to be q35 when QEMU refused another one', async () => {
    expect(await viommu('process.exit(1)', '--', '-machine', 'q35')).toBe(1);
    expect(context.err()).not.toContain('q35');
    expect(await viommu('process.exit(1)', '--', '-machine', 'pc')).toBe(1);
    expect(context.err()).toContain('-machine q35');
  });

  it('serves a socket while QEMU runs, writes the report, and removes the socket', async () => {
    const body = `
      const device = process.argv.find((arg) => arg.startsWith('viommu-vtd'));
      const socket = require('net').connect(device.slice('viommu-vtd,socket='.length));
      socket.on('connect', () => setTimeout(() => process.exit(3), 100));`;
    const file = join(context.dir, 'report.json');
    expect(await viommu(body, '--report', file, '--', '-S')).toBe(3);
    expect(services.sessionsMade[0]?.stopped).toBe(true);
    expect(JSON.parse(readFileSync(file, 'utf8'))).toMatchObject({
      vm1: { session: 'vm1', bridge: { hits: 11 } },
    });
    expect(leftovers()).toEqual([]);
  });

  it('passes signals on, and kills on the second', async () => {
    const ready = join(context.dir, 'ready');
    context = { ...context, env: { ...context.env, READY: ready } };
    const wait = "require('fs').writeFileSync(process.env.READY, ''); setInterval(() => {}, 1000);";
    const polite = viommu(`process.on('SIGTERM', () => process.exit(9));${wait}`, '--', '-S');
    await until(() => existsSync(ready), 'the program');
    context.raise('SIGTERM');
    expect(await polite).toBe(9);
    const deaf = viommu(`process.on('SIGINT', () => {});${wait.replace("''", "'deaf'")}`, '--', '-S');
    await until(() => readFileSync(ready, 'utf8') === 'deaf', 'the deaf program');
    context.raise('SIGINT');
    context.raise('SIGINT');
    expect(await deaf).toBe(137);
    expect(leftovers()).toEqual([]);
  });

  it('says with the exit codes of env(1) why QEMU did not start', async () => {
    const text = join(context.dir, 'text');
    writeFileSync(text, '');
    const attempt = (...argv: string[]): Promise<number> =>
      run(context, services, ['qemu', ...argv, '--', '-S']);
    expect(await attempt('--bridge', BRIDGE, '--qemu', join(context.dir, 'nothing'))).toBe(127);
    expect(await attempt('--bridge', BRIDGE, '--qemu', text)).toBe(126);
    expect(await attempt('--bridge', join(context.dir, 'nothing'), '--qemu', process.execPath)).toBe(125);
    expect(await attempt('--qemu', process.execPath)).toBe(125);
    expect(context.err()).toContain('npm run setup');
    expect(leftovers()).toEqual([]);
  });

  it('refuses a wrong command line without starting anything', async () => {
    for (const argv of [
      ['--aw-bits', '40'],
      ['--cache-policy', 'best'],
      ['--memory', '1x'],
      ['-m', '1G'],
    ]) {
      expect(await viommu(SEEN, ...argv, '--', '-S')).toBe(2);
    }
    expect(await viommu(SEEN, '--name', 'a', '--', '-device', 'viommu-vtd,name=b')).toBe(2);
    expect(services.sessionsMade).toEqual([]);
    expect(leftovers()).toEqual([]);
  });

  it("runs an arm64 machine's QEMU with its device and its bridge", async () => {
    const seen = join(context.dir, 'seen');
    const other = join(context.dir, 'bridge-arm64');
    writeFileSync(other, '');
    const paths = join(context.dir, 'paths.json');
    writeFileSync(paths, JSON.stringify({ bridge: BRIDGE, arm64: { qemu: script(SEEN), bridge: other } }));
    context = { ...context, env: { ...context.env, SEEN: seen, VIOMMU_PATHS: paths } };
    const attempt = (...argv: string[]): Promise<number> => run(context, services, ['qemu', ...argv]);
    expect(await attempt('--stages', '1', '--', '-M', 'virt,gic-version=3')).toBe(0);
    const { args, preload } = JSON.parse(readFileSync(seen, 'utf8'));
    expect(preload).toBe(other);
    expect(args[1]).toMatch(/^viommu-smmuv3,socket=[^,]*,stages=1$/);
    expect(await attempt('--arch', 'amd64', '--', '-device', 'viommu-smmuv3')).toBe(2);
    expect(await attempt('--aw-bits', '48', '--', '-M', 'virt')).toBe(2);
    expect(leftovers()).toEqual([]);
  });

  it('offers what devices of the named host need, unless told otherwise', async () => {
    const line = async (...argv: string[]): Promise<string> => {
      const before = context.out().length;
      await viommu(SEEN, '--print', '--attach', '/run/v.sock', ...argv);
      return context.out().slice(before);
    };
    expect(await line('--host', 'vtd3', '--', '-S')).toContain('caching-mode=on,scalable-mode=on');
    expect(await line('--host', 'vtd3', '--no-scalable-mode', '--', '-S')).toContain('scalable-mode=off');
    expect(await line('--', '-S')).not.toContain('mode=on');
    expect(await line('--host', 'vtd3', '--', '-device', 'viommu-vtd')).not.toContain('mode=on');
  });

  it('prints the line for a shell instead of running it', async () => {
    const options = ['--print', '--attach', '/run/v.sock', '--caching-mode', '--aw-bits', '48'];
    expect(await viommu('', ...options, '--', '-append', "a='b c'")).toBe(0);
    expect(context.out()).toBe(
      `LD_PRELOAD=${BRIDGE} ${join(context.dir, 'fake-qemu')} -device viommu-vtd,socket=/run/v.sock,` +
        `caching-mode=on,aw-bits=48 -append 'a='\\''b c'\\'''\n`,
    );
    expect(context.err()).toContain('viommu serve --socket /run/v.sock');
  });
});

describe('QEMU arguments', () => {
  it('give the socket to the device that the user wrote, in both notations', () => {
    const plain = qemuArguments(['-device', 'viommu-vtd,caching-mode=on'], 'amd64', '/s,1', {}, undefined);
    expect(plain).toEqual(['-device', 'viommu-vtd,caching-mode=on,socket=/s,,1']);
    const json = qemuArguments(['-device', '{"driver":"viommu-vtd"}'], 'amd64', '/s', {}, undefined);
    expect(json).toEqual(['-device', '{"driver":"viommu-vtd","socket":"/s"}']);
  });

  it('leave a socket that the user named alone', () => {
    const args = ['-S', '-device', 'viommu-vtd,socket=/a,,b,aw-bits=48'];
    expect(findDevice(args)).toEqual({ arch: 'amd64', index: 2, socket: '/a,b', json: false });
    expect(qemuArguments(args, 'amd64', '/other', {}, undefined)).toEqual(args);
    expect(findDevice(['-device', 'viommu-vtd-else', '-append', 'viommu-vtd'])).toBeUndefined();
  });

  it('put the device of the architecture, with its own options', () => {
    const choice = { name: 'web', granules: '4k,64k', oas: 44, ssidBits: 0 };
    expect(qemuArguments(['-S'], 'arm64', '/s', choice, undefined)).toEqual([
      '-device',
      'viommu-smmuv3,socket=/s,granules=4k,,64k,oas=44,ssid-bits=0,name=web',
      '-S',
    ]);
    expect(() => qemuArguments([], 'arm64', '/s', { cachingMode: true }, undefined)).toThrow(
      '--caching-mode is no option of viommu-smmuv3',
    );
    expect(() => qemuArguments([], 'amd64', '/s', { stages: '2' }, undefined)).toThrow('--stages');
  });

  it.each([
    [['-device', 'viommu-smmuv3,oas=44', '-M', 'q35'], undefined, 'arm64'],
    [['-M', 'virt,gic-version=3'], undefined, 'arm64'],
    [['-machine', 'type=virt-10.0'], undefined, 'arm64'],
    [['-machine', 'pc-q35-9.0'], undefined, 'amd64'],
    [['-append', '-M', 'none'], '/opt/qemu-system-aarch64-10', 'arm64'],
    [['-M', 'virt'], '/opt/qemu-system-x86_64', 'amd64'],
    [['-S'], '/opt/my-qemu', undefined],
  ])('say which architecture they are for: %j, %s', (args, program, arch) => {
    expect(archOf(args, program)).toBe(arch);
  });

  it('add shared memory on request', () => {
    expect(shellLine(qemuArguments(['-S'], 'amd64', '/s', {}, '1G'))).toBe(
      '-device viommu-vtd,socket=/s -object memory-backend-memfd,id=viommu-ram,size=1G,share=on ' +
        '-m 1G -machine memory-backend=viommu-ram -S',
    );
  });

  it.each([
    [true, ',hugetlb=on'],
    ['2M', ',hugetlb=on,hugetlbsize=2M'],
    ['1g', ',hugetlb=on,hugetlbsize=1g'],
  ] as const)('make it of huge pages on request: %s', (size, added) => {
    const line = shellLine(qemuArguments(['-S'], 'amd64', '/s', {}, '2G', size));
    expect(line).toContain(`memory-backend-memfd,id=viommu-ram,size=2G,share=on${added} -m 2G`);
  });

  it('refuse huge pages that are no size, do not fit, or are of no memory', () => {
    expect(() => qemuArguments([], 'amd64', '/s', {}, '2G', '2x')).toThrow('not a size');
    expect(() => qemuArguments([], 'amd64', '/s', {}, '1536M', '1G')).toThrow('whole number of pages');
    expect(() => qemuArguments([], 'amd64', '/s', {}, undefined, true)).toThrow('--memory');
  });
});
