import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { ownFiles, parse } from './options.mjs';
import { checkNode, parseOsRelease } from './platform.mjs';
import { upstreamVersion } from './qemu-sources.mjs';

describe('arguments', () => {
  it('takes ours and passes everything else on in order', () => {
    const { values, rest } = parse([
      '--sim',
      'file.test.ts',
      '-t',
      'name',
      '--qemu',
      'q',
      '--reporter=dot',
      '--kernel=k',
    ]);
    expect(values).toEqual({ sim: true, qemu: 'q', kernel: 'k' });
    expect(rest).toEqual(['file.test.ts', '-t', 'name', '--reporter=dot']);
  });

  it('leaves what stands behind -- alone', () => {
    expect(parse(['--sim', '--', '--qemu', 'x'])).toEqual({
      values: { sim: true },
      rest: ['--', '--qemu', 'x'],
    });
  });

  it('refuses a file option without a file', () => {
    expect(() => parse(['--qemu'])).toThrow(/--qemu needs a value/);
    expect(() => parse(['--kernel', '--sim'])).toThrow(/--kernel needs a value/);
  });

  it('makes file names absolute, because the command runs elsewhere', () => {
    expect(ownFiles({ qemu: 'q' }).qemu).toBe(`${process.cwd()}/q`);
    expect(ownFiles({}).qemu).toBeUndefined();
  });
});

describe('commands', () => {
  const refused = (...args) => {
    const run = join(import.meta.dirname, 'run.mjs');
    const { status, stderr } = spawnSync(process.execPath, [run, ...args], { encoding: 'utf8' });
    return { status, stderr };
  };

  it('refuse a level 1 that cannot be made, before anything is prepared', () => {
    for (const args of [
      ['--arch', 'amd64', '--level1', 'arm64'],
      ['--arch', 'arm64', '--level1', 'arm64', '--iommufd'],
    ]) {
      expect(refused('vfio', ...args)).toEqual({
        status: 2,
        stderr: 'setup: --level1 arm64: level 1 is amd64, or arm64 around an arm64 guest without iommufd.\n',
      });
    }
  });
});

describe('the machine', () => {
  it('reads os-release quoted and bare', () => {
    expect(parseOsRelease('ID=debian\nVERSION_ID="12"\nNAME=\'x y\'\n')).toEqual({
      ID: 'debian',
      VERSION_ID: '12',
      NAME: 'x y',
    });
  });

  it('says which Node is needed', () => {
    expect(() => checkNode('20.18.9')).toThrow(/Node 20\.18\.9 is too old: install Node 20\.19/);
    expect(() => checkNode('20.19.0')).not.toThrow();
    expect(() => checkNode('22.1.0')).not.toThrow();
  });

  it("reads the upstream version out of Debian's", () => {
    expect(upstreamVersion('1:10.0.2+ds-2+deb13u1~bpo12+1')).toBe('10.0.2');
    expect(upstreamVersion('1:10.0.13+ds-0+deb13u1')).toBe('10.0.13');
  });
});
