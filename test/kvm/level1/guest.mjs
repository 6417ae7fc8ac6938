/** Level 2's guests: started under level 1's KVM, listened to, and ended where they hang. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { GuestRun } from '../../../dist/cli/guest/run.js';
import { Qmp } from './qmp.mjs';
import { say, seconds } from './say.mjs';

const SCRATCH = '/run';
const THREADS = /^(qemu-|CPU|node|viommu|worker|vhost|kvm)/;

const read = (file) => {
  try {
    return readFileSync(file, 'utf8').trim();
  } catch {
    return '';
  }
};

const entries = (directory) => {
  try {
    return readdirSync(directory);
  } catch {
    return [];
  }
};

/** Prints what each thread of QEMU and of the daemon waits for. */
function printThreads() {
  for (const process of entries('/proc').filter((name) => /^\d+$/.test(name)))
    for (const task of entries(join('/proc', process, 'task'))) {
      const path = join('/proc', process, 'task', task);
      const name = read(join(path, 'comm'));
      if (!THREADS.test(name)) continue;
      const [state, ...rest] = read(join(path, 'stat')).split(') ').at(-1).split(' ');
      const ticks = `${rest[10]}+${rest[11]} ticks`;
      console.log(`${path} ${name} ${state} ${read(join(path, 'wchan'))} ${ticks}`);
      for (const line of read(join(path, 'stack')).split('\n')) console.log(`    ${line}`);
    }
}

/** One guest that runs. */
export class Level2 {
  static #count = 0;
  #run;
  #files;
  #limit;
  #hung = false;

  constructor(run, files, limit) {
    this.#run = run;
    this.#files = files;
    this.#limit = setTimeout(() => this.#giveUp(), limit * 1000);
  }

  /**
   * Starts one.
   * @param {object} settings the file of settings
   * @param {object} guest
   * @param {'ours' | 'stock'} [guest.side] whose IOMMU it is behind
   * @param {string} [guest.properties] of our device, after its name
   * @param {number} guest.cpus
   * @param {string[]} guest.devices QEMU's arguments for them
   * @param {string[]} guest.jobs
   * @param {object} [guest.parameters] of the jobs
   * @param {boolean} [guest.reboots] whether a reset is no end
   */
  static start(settings, { side = 'ours', properties, cpus, devices, jobs, parameters = {}, reboots }) {
    const at = Level2.#count++;
    const files = { report: join(SCRATCH, `report-${at}`), monitor: join(SCRATCH, `monitor-${at}`) };
    const words = Object.entries(parameters).map(([name, value]) => `viommu.${name}=${value}`);
    const machine = [
      ...settings.machine,
      ...['-nodefaults', '-display', 'none', '-serial', 'stdio', '-smp', String(cpus)],
      ...(reboots ? [] : ['-no-reboot']),
      ...['-qmp', `unix:${files.monitor},server=on,wait=off`],
      ...devices,
      ...['-kernel', settings.kernel, '-initrd', settings.initramfs],
      ...['-append', [settings.append, `viommu.run=${jobs.join(',')}`, ...words].join(' ')],
    ];
    const [program, args] =
      side === 'stock'
        ? [settings.qemu, [...settings.stock, '-m', '256M', ...machine]]
        : [settings.node, [...Level2.#viommu(settings, files, properties), ...machine]];
    const limitMs = settings.limit * 1000;
    say('guest', { side, cpus, jobs: jobs.join(','), seconds: seconds() });
    const run = GuestRun.start({
      program,
      args,
      env: process.env,
      // Ours ends it before, and says what it waits for.
      quietMs: 2 * limitMs,
      totalMs: 2 * limitMs,
      now: () => performance.now(),
      onLine: (line) => console.log(line),
    });
    return new Level2(run, files, settings.limit);
  }

  /** `viommu qemu`, up to QEMU's arguments. */
  static #viommu({ project, bridge, qemu, options, device }, { report }, properties) {
    // A Node process in level 1 is slow to start.
    const ours = [device, properties, 'timeout-ms=600000'].filter(Boolean).join(',');
    return [
      ...[join(project, 'dist/main.js'), 'qemu', '--bridge', bridge, '--qemu', qemu, '--memory', '256M'],
      ...[...options, '--report', report, '--', '-device', ours],
    ];
  }

  /** Its console, and what it said there. */
  get run() {
    return this.#run;
  }

  /** Resolves when `pattern` was on the console `count` times. */
  async said(pattern, count = 1) {
    let ended = false;
    this.#run.end.then(() => {
      ended = true;
    });
    while (this.#run.lines.filter((line) => pattern.test(line)).length < count) {
      if (ended) throw new Error(`the guest ended before it said ${pattern} for the ${count}. time`);
      await sleep(100);
    }
  }

  /** Runs one command of QEMU's monitor. */
  async monitor(command, args) {
    const qmp = await Qmp.open(this.#files.monitor);
    try {
      return await qmp.run(command, args);
    } finally {
      qmp.close();
    }
  }

  /** Resolves when QEMU is gone: how it ended, and our daemon's report on it. */
  async end() {
    const end = await this.#run.end;
    clearTimeout(this.#limit);
    say('ended', { status: end.exitCode ?? end.signal, seconds: seconds() });
    for (const line of end.stderr.split('\n').filter(Boolean)) console.log(`stderr: ${line}`);
    const text = read(this.#files.report);
    const report = text === '' ? undefined : Object.values(JSON.parse(text))[0];
    return { ...end, hung: this.#hung, report };
  }

  #giveUp() {
    this.#hung = true;
    say('hung', { seconds: seconds() });
    printThreads();
    void this.#run.kill('it hangs');
  }
}
