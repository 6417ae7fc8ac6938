import { mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { type Connected, connected } from '../../test/support/session-vm.js';
import { titled } from '../../test/support/titled.js';
import { ERRORS, type ErrorName } from '../base/errors.js';
import { closeFd, memoryFile, SEAL, sealFile, socketPair } from '../base/native.js';
import { ALL_FEATURES, FEATURE, MESSAGE } from '../wire/frame.js';
import { FAKE } from './testing/fake-model.js';

/**
 * Guest memory whose file cannot be mapped: it is there all the same, by messages, and the log says
 * why.
 */

const REMOTE = 0x10_0000;
const BYTES = 65536;
/** fcntl.h; Node has no name for it. */
const O_PATH = 0o10000000;

let directory: string;
let path: string;
const open: Connected[] = [];
const fds: number[] = [];

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'viommu-unmappable-'));
  path = join(directory, 'file');
  writeFileSync(path, new Uint8Array(BYTES));
});
afterEach(async () => {
  for (const { vm, host } of open.splice(0)) {
    vm.close();
    await host.closed;
  }
  for (const fd of fds.splice(0)) closeFd(fd);
});
afterAll(() => rmSync(directory, { recursive: true }));

function keep(fd: number): number {
  fds.push(fd);
  return fd;
}

function start(features: number, options = {}): Connected {
  const made = connected(options);
  open.push(made);
  made.vm.hello({ features });
  new DataView(made.vm.remote.buffer).setUint32(0x40, 1234, true);
  return made;
}

function socket(): number {
  const [one, other] = socketPair();
  keep(other);
  return keep(one);
}

function sealedAgainstWriting(): number {
  const fd = keep(memoryFile('ram', BYTES));
  sealFile(fd, SEAL.WRITE);
  return fd;
}

const region = { shared: true, gpaLo: REMOTE, sizeLo: BYTES };

interface Case {
  readonly what: string;
  readonly reason: ErrorName;
  readonly fd: () => number;
  readonly change: object;
}
const one = (what: string, reason: ErrorName, fd: () => number, change = {}): Case => ({
  what,
  reason,
  fd,
  change,
});

const cases: readonly Case[] = [
  one('a socket', 'FILE_TOO_SHORT', socket),
  one('a directory', 'FILE_TOO_SHORT', () => keep(openSync(directory, 'r'))),
  one('a device that has no bytes', 'FILE_TOO_SHORT', () => keep(openSync('/dev/null', 'r+'))),
  one('a descriptor that only names its file', 'MAP_FAILED', () => keep(openSync(path, O_PATH))),
  one('a file that was opened for reading', 'MAP_FAILED', () => keep(openSync(path, 'r'))),
  one('a file that is sealed against writing', 'MAP_FAILED', sealedAgainstWriting),
  one('a file that is too short', 'FILE_TOO_SHORT', () => keep(memoryFile('ram', BYTES - 8))),
  one('an offset behind its end', 'FILE_TOO_SHORT', () => keep(memoryFile('ram', BYTES)), {
    offsetLo: BYTES,
  }),
  one('an odd offset', 'MAP_FAILED', () => keep(memoryFile('ram', 2 * BYTES)), { offsetLo: 4 }),
  one('an offset that no file has', 'MAP_FAILED', () => keep(memoryFile('ram', BYTES)), {
    offsetHi: 2 ** 31,
  }),
];

describe.each(titled(cases, ({ what }) => what))('%s', (_title, { reason, fd, change }) => {
  it('is reached by messages, and one line of the log says why', async () => {
    const { vm, host, log } = start(ALL_FEATURES);
    const status = vm.memAdd({ ...region, ...change }, [fd()]);
    expect(status).toMatchObject({ code: 0, text: expect.stringContaining('reached by messages: ') });
    vm.write(FAKE.PEEK, REMOTE + 0x40);
    expect(vm.read(FAKE.STATUS)).toBe(1234);
    expect(new DataView(vm.remote.buffer).getUint32(0x40, true)).toBe(1235);
    const again = vm.memAdd({ ...region, ...change, region: 2, gpaLo: 0x40_0000 }, [fd()]);
    expect(again.code).toBe(0);
    expect(await host.report()).toMatchObject({ regions: 2, remoteRegions: 2 });
    const said = log.filter((line) => line.includes('guest memory cannot be mapped'));
    expect(said).toHaveLength(1);
    expect(said[0]).toContain(`"reason":"${reason}"`);
  });

  it('is refused where the peer does not serve messages', async () => {
    const { vm, host } = start(ALL_FEATURES & ~FEATURE.REMOTE_MEMORY);
    expect(vm.memAdd({ ...region, ...change }, [fd()]).code).toBe(ERRORS[reason].code);
    vm.write(FAKE.PEEK, REMOTE + 0x40);
    expect(vm.read(FAKE.STATUS)).toBe(0xdead);
    expect(await host.report()).toMatchObject({ regions: 0, remoteRegions: 0 });
  });
});

describe('a region that cannot be mapped', () => {
  it('is no memory where its address is another one’s, however it would be reached', () => {
    const { vm } = start(ALL_FEATURES);
    expect(vm.memAdd({ ...region, region: 1 }, [keep(memoryFile('ram', BYTES))]).code).toBe(0);
    const overlapping = vm.memAdd({ ...region, region: 2 }, [keep(openSync(directory, 'r'))]);
    expect(overlapping.code).toBe(ERRORS.REGION_OVERLAPS.code);
    const odd = vm.memAdd({ ...region, region: 3, sizeLo: 12 }, [keep(openSync(directory, 'r'))]);
    expect(odd.code).toBe(ERRORS.BAD_REGION.code);
  });

  it('is removed as any other, and another one can take its place', async () => {
    const { vm, host } = start(ALL_FEATURES);
    vm.memAdd(region, [keep(openSync(directory, 'r'))]);
    const client = vm.client;
    expect(client.request(MESSAGE.MEM_REMOVE, { region: 1 }).code).toBe(0);
    expect(await host.report()).toMatchObject({ regions: 0, remoteRegions: 0 });
    keep(vm.addRam(1, REMOTE, BYTES));
    expect(await host.report()).toMatchObject({ regions: 1, remoteRegions: 0 });
  });

  it('because it may shrink is reached by messages, too', async () => {
    const { vm, host, log } = start(ALL_FEATURES, { requireSealed: true });
    const loose = keep(memoryFile('ram', BYTES, false));
    expect(vm.memAdd(region, [loose]).code).toBe(0);
    vm.write(FAKE.PEEK, REMOTE + 0x40);
    expect(vm.read(FAKE.STATUS)).toBe(1234);
    await host.report();
    expect(log.filter((line) => line.includes('"reason":"FILE_NOT_SEALED"'))).toHaveLength(1);
  });
});
