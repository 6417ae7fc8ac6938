import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { capture, INTERRUPTED, SetupError } from './exec.mjs';
import { QemuSources } from './qemu-sources.mjs';

/** A release of Debian that lists these versions, and serves what is named. */
function release(listed, serves = {}) {
  return {
    asked: [],
    update: async () => {},
    sourceVersions: () => listed,
    async downloadOrig(_what, _name, version) {
      this.asked.push(version);
      if (!serves[version]) throw new SetupError('404  Not Found');
      return serves[version];
    },
  };
}

const cache = { log: (step) => `/logs/${step}.log` };
const sources = (...releases) =>
  new QemuSources(
    cache,
    releases.map((apt) => () => apt),
  );

describe("Debian's sources of a QEMU", () => {
  it('come from the first release that has that version', async () => {
    const old = release(['1:10.0.2+ds-2~bpo12+1']);
    const next = release(['1:11.1.3+ds-1', '1:10.0.13+ds-0+deb13u1'], { '1:10.0.13+ds-0+deb13u1': '/orig' });
    expect(await sources(old, next).tarball('10.0.13', '/')).toBe('/orig');
    expect(old.asked).toEqual([]);
  });

  it('that one release lists and does not serve may come from another', async () => {
    const gone = release(['1:11.1.3+ds-1~bpo13+1']);
    const there = release(['1:11.1.3+ds-1'], { '1:11.1.3+ds-1': '/orig' });
    expect(await sources(gone, there).tarball('11.1.3', '/')).toBe('/orig');
  });

  it('that are listed and not served are said to be, with what to do', async () => {
    const gone = release(['1:11.1.3+ds-1~bpo13+1']);
    await expect(sources(gone, release(['1:11.1.3+ds-1'])).tarball('11.1.3', '/')).rejects.toThrow(
      "Debian's mirror lists the sources of QEMU 11.1.3 (1:11.1.3+ds-1~bpo13+1, 1:11.1.3+ds-1) and does not " +
        'serve them (/logs/apt-source.log): fetch qemu-11.1.3.tar.xz from https://download.qemu.org and name it ' +
        'with --sources FILE.',
    );
  });

  it('that no release has are said to be missing', async () => {
    await expect(sources(release([])).tarball('9.9.9', '/')).rejects.toThrow(
      /^Debian's mirror has no sources of QEMU 9\.9\.9: fetch qemu-9\.9\.9\.tar\.xz /,
    );
  });

  it('are not looked for further after Ctrl-C', async () => {
    const next = release(['1:11.1.3+ds-2'], { '1:11.1.3+ds-2': '/orig' });
    const stopped = release(['1:11.1.3+ds-1']);
    stopped.downloadOrig = async () => {
      throw new SetupError('stopped', INTERRUPTED);
    };
    await expect(sources(stopped, next).tarball('11.1.3', '/')).rejects.toThrow('stopped');
    expect(next.asked).toEqual([]);
  });
});

describe("the user's own sources", () => {
  let directory;
  let file;

  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'viommu-sources-'));
    file = join(directory, 'qemu.tar');
    mkdirSync(join(directory, 'qemu-11.1.3/roms'), { recursive: true });
    writeFileSync(join(directory, 'qemu-11.1.3/VERSION'), '11.1.3\n');
    writeFileSync(join(directory, 'qemu-11.1.3/roms/VERSION'), 'of something else\n');
    capture('tar', ['-cf', file, '-C', directory, 'qemu-11.1.3']);
  });

  afterEach(() => rmSync(directory, { recursive: true }));

  it("are taken instead of Debian's, for that version only", async () => {
    const own = new QemuSources(cache, [], file);
    expect(await own.tarball('11.1.3', '/')).toBe(file);
    await expect(own.tarball('11.1.4', '/')).rejects.toThrow(
      `--sources ${file} is QEMU 11.1.3, and 11.1.4 is wanted.`,
    );
  });
});
