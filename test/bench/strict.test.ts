import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

interface Row {
  name: string;
  unit: string;
  ours: number;
  reference: number;
  target?: number;
  atLeast?: boolean;
  atMost?: number;
  note?: string;
}
interface Round {
  count: number;
  ns: number;
}
interface Unit {
  name: string;
}
type Sides<T> = readonly [T, T];

const rules = (await import(new URL('./strict-rules.mjs', import.meta.url).href)) as {
  rateRow(unit: Unit, what: string, rateUnit: string, load: number, rounds: Sides<Round[]>): Row;
  latencyRow(unit: Unit, what: string, load: number, of: Sides<{ p999_ns: number; samples: number }>): Row;
  vfioRows(unit: Unit, load: number, of: Sides<{ map_ns: number; unmap_ns: number }[]>): Row[];
  stallRow(unit: Unit, load: number, lines: Sides<string[]>): Row;
  inTurns(
    length: { turns: number; ms?: number; now?: () => number },
    measure: (side: number) => Promise<void>,
  ): Promise<void>;
  underLoad<T>(count: number, what: () => Promise<T>): Promise<T>;
};

const UNIT = { name: 'VT-d' };
const MS = 1_000_000;
const LIBRARY = fileURLToPath(new URL('../guests/image/lib.sh', import.meta.url));

const ROUNDS: Sides<Round[]> = [
  [
    { count: 100, ns: 100 * MS },
    { count: 100, ns: 200 * MS },
    { count: 50, ns: 700 * MS },
  ],
  [{ count: 100, ns: 50 * MS }],
];

describe('strict rows', () => {
  it('compare medians where nothing else runs, and means beside a load', () => {
    const quiet = rules.rateRow(UNIT, 'reads', 'reads/s', 0, ROUNDS);
    expect(quiet).toMatchObject({ name: 'VT-d: strict, reads', ours: 500, reference: 2000 });
    expect(quiet).toMatchObject({ target: 0.95, atLeast: true });
    const loaded = rules.rateRow(UNIT, 'reads', 'reads/s', 16, ROUNDS);
    expect(loaded).toMatchObject({ name: 'VT-d: strict, reads, load 16', ours: 250, target: 0.8 });
  });

  it('say when a p99.9 is of too few reads', () => {
    const of = (samples: number) => ({ p999_ns: 5000, samples });
    expect(rules.latencyRow(UNIT, 'reads', 0, [of(1000), of(1000)])).not.toHaveProperty('note');
    const few = rules.latencyRow(UNIT, 'reads', 0, [of(999), of(1000)]);
    expect(few).toMatchObject({ name: 'VT-d: strict, reads, p99.9 of one read', ours: 5, unit: 'µs' });
    expect(few.note).toContain('999 and 1000');
  });

  it('judge the unmap of VFIO and not the map', () => {
    const sample = [{ map_ns: 2000, unmap_ns: 3000 }];
    const [map, unmap] = rules.vfioRows(UNIT, 0, [sample, sample]);
    expect(map?.target).toBeUndefined();
    expect(unmap).toMatchObject({ ours: 3, target: 1.3 });
  });

  it('count what the kernels complain of, and show some of ours', () => {
    const clean = rules.stallRow(UNIT, 16, [[], ['a', 'b']]);
    expect(clean).toMatchObject({ ours: 0, reference: 2, atMost: 0 });
    expect(clean.note).toBeUndefined();
    expect(rules.stallRow(UNIT, 16, [['a', 'b', 'c', 'd'], []]).note).toBe('ours: a; b; c');
  });
});

describe('turns of two sides', () => {
  it('have neither side always follow the other', async () => {
    const sides: number[] = [];
    await rules.inTurns({ turns: 4 }, async (side) => {
      sides.push(side);
    });
    expect(sides).toEqual([0, 1, 1, 0, 0, 1, 1, 0]);
  });

  it('go on until the time is over, and both sides have had theirs', async () => {
    let clock = 0;
    const counts = [0, 0];
    await rules.inTurns({ turns: 2, ms: 100, now: () => clock }, async (side) => {
      counts[side] = (counts[side] ?? 0) + 1;
      clock += 10;
    });
    expect(counts).toEqual([5, 5]);
  });
});

/** Command line of a process of ours; empty where it is none. */
function commandOfChild(pid: string): string {
  try {
    const parent = / \S (\d+) /.exec(readFileSync(`/proc/${pid}/stat`, 'utf8'))?.[1];
    return Number(parent) === process.pid ? readFileSync(`/proc/${pid}/cmdline`, 'utf8') : '';
  } catch {
    // It has ended by now.
    return '';
  }
}

describe('a load', () => {
  it('ends with what it was beside, also when that fails', async () => {
    const running = () => {
      const commands = readdirSync('/proc')
        .filter((name) => /^\d+$/.test(name))
        .map(commandOfChild);
      return commands.filter((command) => command.includes('while :')).length;
    };
    const during = rules.underLoad(2, async () => {
      expect(running()).toBe(2);
      throw new Error('it failed');
    });
    await expect(during).rejects.toThrow('it failed');
    await expect.poll(running).toBe(0);
  });
});

describe('the stalls that a guest counts', () => {
  const stalls = (lines: readonly string[]): string[] => {
    const script = `. "${LIBRARY}"; dmesg() { cat; }; stalls || true`;
    const out = execFileSync('sh', ['-c', script], { input: lines.join('\n'), encoding: 'utf8' });
    return out.split('\n').filter(Boolean);
  };

  it.each([
    'arm-smmu-v3 9050000.smmuv3: CMD_SYNC timeout at 0x00000012 [hwprod 0x00000013, hwcons 0x00000011]',
    'DMAR: QI wait descriptor taking too long',
    'DMAR: VT-d detected Invalidation Time-out Error: SID 0',
    'INFO: task kworker/0:1:12 blocked for more than 120 seconds.',
    'watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [read-bench:71]',
    'rcu: INFO: rcu_preempt self-detected stall on CPU',
    'rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:',
    'rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: { 0-.... } 21 jiffies',
    'nvme nvme0: I/O tag 5 (1005) QID 1 timeout, completion polled',
    'virtio_net virtio2 eth0: NETDEV WATCHDOG: CPU: 0: transmit queue 0 timed out 5000 ms',
  ])('%s', (line) => {
    expect(stalls([line])).toEqual([line]);
  });

  it('leave everything else alone', () => {
    const others = [
      'DMAR: Host address width 46',
      'nvme nvme0: 1/0/0 default/read/poll queues',
      'workqueue: blk_mq_run_work_fn hogged CPU for >10000us 4 times, consider switching to WQ_UNBOUND',
      '"echo 0 > /proc/sys/kernel/hung_task_timeout_secs" disables this message.',
    ];
    expect(stalls(others)).toEqual([]);
  });
});
