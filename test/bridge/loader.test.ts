import { execFileSync, spawnSync } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { prepared } from '../guests/support.js';
import { BridgeBuild } from './make.js';

/** A QEMU as far as the loader asks it: its version, its target, and an ioctl of its own. */
const PROGRAM = `
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
static struct { int64_t major, minor, micro; } triple = { VERSION };
static struct { void *qemu; char *package; } info = { &triple, PACKAGE };
void *qmp_query_version(void **errp) { return &info; }
#ifdef LATE_TARGET
const void *target_info(void) { return NULL; }
const char *target_name(void) { abort(); }
#else
const char *target_name(void) { return TARGET; }
#endif
int main(void)
{
    printf("ioctl %d, LD_PRELOAD %s\\n", ioctl(-1, 0), getenv("LD_PRELOAD") ? "set" : "not set");
    return 0;
}
`;

/** A bridge that says its name when it is loaded. */
const BRIDGE = `
#include <stdio.h>
static void __attribute__((constructor)) load(void) { printf("%s: ", NAME); }
int ioctl(int fd, unsigned long request, ...) { return 7; }
`;

let build: BridgeBuild;
let directory: string;
let loader: string;

beforeAll(() => {
  build = new BridgeBuild('loader');
  directory = mkdtempSync(join(tmpdir(), 'viommu-loader-'));
  loader = join(directory, 'bridges/viommu-bridge.so');
  mkdirSync(dirname(loader));
  copyFileSync(join(build.directory, 'viommu-bridge.so'), loader);
  bridge('x86_64-10.0.2-Debian_1_10.0.2+ds-2+deb13u1~bpo12+1');
  bridge('x86_64-11.1.3');
  bridge('aarch64-11.1.3');
});

afterAll(() => {
  build.dispose();
  rmSync(directory, { recursive: true, force: true });
});

function compile(file: string, source: string, defines: Record<string, string>, options: string[]): string {
  writeFileSync(`${file}.c`, source);
  const words = Object.entries(defines).map(([name, value]) => `-D${name}=${value}`);
  execFileSync('gcc', [...options, ...words, '-o', file, `${file}.c`]);
  rmSync(`${file}.c`);
  return file;
}

function bridge(version: string): void {
  const file = join(dirname(loader), `viommu-bridge-${version}.so`);
  compile(file, BRIDGE, { NAME: `"${version}"` }, ['-shared', '-fPIC']);
}

function program(version: string, pack: string, target = 'x86_64', more = {}): string {
  const defines = {
    ...more,
    VERSION: version.replaceAll('.', ','),
    PACKAGE: `"${pack}"`,
    TARGET: `"${target}"`,
  };
  return compile(join(directory, `qemu-system-${target}`), PROGRAM, defines, ['-rdynamic']);
}

function run(command: string, preload = loader, args: string[] = []) {
  const env = { ...process.env, LD_PRELOAD: preload };
  const { status, stdout, stderr } = spawnSync(command, args, { encoding: 'utf8', env });
  return { status, stdout, stderr };
}

describe('the loader', () => {
  it.each([
    [
      '10.0.2',
      'Debian 1:10.0.2+ds-2+deb13u1~bpo12+1',
      'x86_64',
      'x86_64-10.0.2-Debian_1_10.0.2+ds-2+deb13u1~bpo12+1',
    ],
    ['11.1.3', '', 'x86_64', 'x86_64-11.1.3'],
    ['11.1.3', '', 'aarch64', 'aarch64-11.1.3'],
  ])('picks the bridge for QEMU %s (%s) with %s guests', (version, pack, target, name) => {
    expect(run(program(version, pack, target))).toEqual({
      status: 0,
      stdout: `${name}: ioctl 7, LD_PRELOAD not set\n`,
      stderr: '',
    });
  });

  it('takes the target from the name of a QEMU that does not know it yet', () => {
    const qemu = program('11.1.3', '', 'aarch64', { LATE_TARGET: '1' });
    expect(run(qemu).stdout).toContain('aarch64-11.1.3: ');
    const link = join(directory, 'emulator');
    symlinkSync(qemu, link);
    expect(run(link).stdout, 'under another name').toContain('aarch64-11.1.3: ');
  });

  it('finds the bridges when it is named by a link', () => {
    const link = join(directory, 'link.so');
    symlinkSync(loader, link);
    expect(run(program('11.1.3', ''), link).stdout).toContain('x86_64-11.1.3: ');
  });

  it('says what is there and what to run when none fits', () => {
    const qemu = program('11.1.4', 'Debian 1:11.1.4+ds-1');
    const { status, stdout, stderr } = run(qemu);
    expect([status, stdout]).toEqual([1, '']);
    expect(stderr).toMatch(
      /^viommu-bridge: \S+\/bridges has no bridge for QEMU 11\.1\.4 \(Debian 1:11\.1\.4\+ds-1\) with x86_64 guests, but for /,
    );
    const known = /but for (.*): run (.*)\n$/.exec(stderr);
    expect(known?.[1]?.split(', ').sort()).toEqual(['10.0.2-Debian_1_10.0.2+ds-2+deb13u1~bpo12+1', '11.1.3']);
    expect(known?.[2]).toBe(`npm run setup -- --arch amd64 --qemu ${qemu}`);
  });

  it('says that there is none for a target without any', () => {
    expect(run(program('11.1.3', '', 'riscv64')).stderr).toContain('guests, but none at all: run ');
  });

  it('does nothing but say so in another program', () => {
    const { stderr, stdout, status } = run('/bin/echo', loader, ['untouched']);
    expect([status, stdout]).toEqual([0, 'untouched\n']);
    expect(stderr).toMatch(/viommu-bridge: .*echo is not a QEMU/);
  });
});

describe('in the installed QEMU', () => {
  it('is what the set-up prepares, beside the bridge for that QEMU', () => {
    const { qemu, bridge: path, bridgeObject } = prepared();
    expect(dirname(bridgeObject ?? '')).toBe(dirname(path));
    expect(prepared('arm64').bridge).toBe(path);
    expect(run(qemu, path, ['-device', 'help']).stdout).toMatch(/name "viommu-vtd"/);
  });

  it('after an upgrade it asks for a set-up, and after that nothing else has changed', () => {
    const { qemu, bridge: path, bridgeObject = '' } = prepared();
    const own = join(directory, 'upgraded');
    mkdirSync(own);
    copyFileSync(path, join(own, basename(path)));
    // The bridge of the release before.
    copyFileSync(bridgeObject, join(own, 'viommu-bridge-x86_64-9.9.9.so'));
    const line = [qemu, join(own, basename(path)), ['-device', 'help']] as const;
    expect(run(line[0], line[1], [...line[2]])).toMatchObject({
      status: 1,
      stderr: expect.stringMatching(/but for 9\.9\.9: run npm run setup\n$/),
    });
    copyFileSync(bridgeObject, join(own, basename(bridgeObject)));
    expect(existsSync(join(own, 'viommu-bridge-x86_64-9.9.9.so'))).toBe(true);
    expect(run(line[0], line[1], [...line[2]]).stdout).toMatch(/name "viommu-vtd"/);
  });
});
