import { describe, expect, it } from 'vitest';
import { until } from '../testing/fakes.js';
import type { ServedTransfer } from './byte-server.js';
import { GuestRun, type GuestRunOptions } from './run.js';
import { judge } from './verdict.js';

function start(body: string, options: Partial<GuestRunOptions> = {}): GuestRun {
  return GuestRun.start({
    program: process.execPath,
    args: ['-e', body],
    env: {},
    quietMs: 20_000,
    totalMs: 20_000,
    now: () => performance.now(),
    ...options,
  });
}

const say = (...lines: string[]): string =>
  lines.map((line) => `console.log(${JSON.stringify(line)});`).join('');

describe('GuestRun', () => {
  it('collects records, waits for lines, and types on the console', async () => {
    const guest = start(
      `${say('VIOMMU-GUEST: READY', 'VIOMMU-GUEST: WAITING')}
       process.stdin.once('data', (d) => { console.log('VIOMMU-GUEST: wait line=' + d.toString().trim()); process.exit(0); });`,
    );
    expect(await guest.waitFor(/WAITING/)).toBe('VIOMMU-GUEST: WAITING');
    guest.send('hello\n');
    expect(await guest.end).toMatchObject({ exitCode: 0, signal: null, killed: undefined });
    expect(guest.value('wait', 'line')).toBe('hello');
    expect(await guest.waitFor(/READY/)).toContain('READY');
    await expect(guest.waitFor(/never/)).rejects.toThrow('VIOMMU-GUEST: wait line=hello');
  });

  it('kills a guest that says nothing any more, and tells who waits', async () => {
    const guest = start(`${say('started')} setInterval(() => {}, 1000);`, { quietMs: 2000 });
    await guest.waitFor(/started/);
    await expect(guest.waitFor(/never/)).rejects.toThrow(/no console output for 2 s[\s\S]*started/);
    expect(await guest.end).toMatchObject({ killed: 'no console output for 2 s', signal: 'SIGTERM' });
  });

  it('does not kill a silent guest as long as something else shows that it is at work', async () => {
    const guest = start(`${say('started')} setTimeout(() => console.log('done'), 3000);`, { quietMs: 2000 });
    const atWork = setInterval(() => guest.atWork(), 200);
    await expect(guest.waitFor(/done/)).resolves.toBe('done');
    clearInterval(atWork);
    expect(await guest.end).toMatchObject({ exitCode: 0, killed: undefined });
  });

  it('kills a guest that talks for ever, even one that ignores SIGTERM', async () => {
    const body = `process.on('SIGTERM', () => {}); setInterval(() => console.log('x'), 20);`;
    const guest = start(body, { totalMs: 2500 });
    await guest.waitFor(/x/);
    expect(await guest.end).toMatchObject({ killed: 'not done after 2.5 s', signal: 'SIGKILL' });
  });

  it('reports a program that does not exist as an end, with the reason', async () => {
    const guest = GuestRun.start({
      program: '/nonexistent/qemu',
      args: [],
      env: {},
      quietMs: 1000,
      totalMs: 1000,
      now: () => performance.now(),
    });
    const end = await guest.end;
    expect(end.exitCode).toBe(null);
    expect(end.stderr).toContain('ENOENT');
  });

  it('leaves no process', async () => {
    const guest = start('setInterval(() => {}, 1000)');
    const { pid } = guest;
    expect(pid).toBeGreaterThan(0);
    await guest.kill('enough');
    await until(() => {
      try {
        process.kill(pid ?? 0, 0);
        return false;
      } catch {
        return true;
      }
    }, 'the end of the process');
  });
});

describe('judge', () => {
  const DISK =
    'VIOMMU-GUEST: nvme disk=nvme0n1 bytes=1048576 written=aa read=aa same=1 write_seconds=1 read_seconds=1';
  const NET = 'VIOMMU-GUEST: net direction=down bytes=10 md5=cc seconds=1';
  const GOOD = [
    DISK,
    'VIOMMU-GUEST: nvme status=0',
    NET,
    'VIOMMU-GUEST: net status=0',
    'VIOMMU-GUEST: faults count=0',
  ];
  const SERVED: ServedTransfer[] = [{ direction: 'down', bytes: 10, md5: 'cc' }];

  async function verdict(lines: readonly string[], served: readonly ServedTransfer[] = SERVED, tail = '') {
    const guest = start(say(...lines) + tail);
    return judge(guest, await guest.end, ['nvme', 'net'], served);
  }

  it('finds nothing wrong with a good run', async () => {
    const good = await verdict(GOOD);
    expect(good.problems).toEqual([]);
    expect(good.bytesMoved).toBe(2 * 1048576 + 10);
  });

  it.each([
    ['another sum on the host', GOOD, [{ direction: 'down', bytes: 10, md5: 'dd' }], 'different checksums'],
    [
      'a disk that read back otherwise',
      [DISK.replace('read=aa', 'read=ab'), ...GOOD.slice(1)],
      SERVED,
      'read back differs',
    ],
    ['a job that never ended', GOOD.slice(2), SERVED, 'job nvme did not end'],
    ['faults', [...GOOD.slice(0, 4), 'VIOMMU-GUEST: faults count=2'], SERVED, '2 DMA fault(s)'],
    ['no count of faults', GOOD.slice(0, 4), SERVED, 'did not count'],
  ] as const)('finds %s', async (_what, lines, served, problem) => {
    expect((await verdict(lines, served)).problems.join('\n')).toContain(problem);
  });

  it("finds QEMU's own failure", async () => {
    expect((await verdict(GOOD, SERVED, 'process.exitCode = 1;')).problems).toEqual([
      'QEMU ended with exit code 1',
    ]);
  });
});
