/**
 * Whole guests, ours and stock's: time to user space, sequential reads of an NVMe disk, VFIO's maps
 * and unmaps, in turns.
 */

import { spawn } from 'node:child_process';
import { closeSync, ftruncateSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { track } from './children.mjs';
import { valuesOf } from './report.mjs';

/** A guest that says nothing for so long has hung, unless it has a load beside it. */
const SILENCE_MS = 120_000;
const MARK = 'VIOMMU-GUEST: ';
/** What the guest's kernel says took too long, last of its jobs. */
const STALLS = 'stalls';

/** Makes a sparse disk image: reads of it come from the host's memory and wait for no disk. */
export function makeDisk(scratch, name, mib) {
  const path = join(scratch, name);
  const fd = openSync(path, 'w', 0o600);
  ftruncateSync(fd, mib * 1048576);
  closeSync(fd);
  return path;
}

function guestArguments({ unit, part, side, devices, initramfs, append, memory = '512M', cpus = 1 }) {
  const kernel = part.kernels['6.12'];
  return [
    ...['-machine', `${side.machine},memory-backend=ram0`, '-accel', 'tcg,thread=multi', '-cpu', unit.cpu],
    ...[
      '-object',
      `memory-backend-memfd,id=ram0,size=${memory},share=on`,
      '-m',
      memory,
      '-smp',
      String(cpus),
    ],
    ...['-nodefaults', '-display', 'none', '-serial', 'stdio', '-no-reboot'],
    ...side.iommu,
    ...devices,
    ...['-kernel', kernel.image, '-initrd', initramfs ?? kernel.initramfs],
    ...['-append', `${unit.words} ${append}`],
  ];
}

/** One guest: its result lines, and a line to its console now and then. */
export class Guest {
  #child;
  #lines;
  #tail = [];
  #side;
  #silenceMs;

  /**
   * @param {{unit: object, part: object, side: object, preload: string[], devices: string[],
   * initramfs?: string, append: string, memory?: string, cpus?: number, silenceMs?: number}}
   * options
   */
  constructor(options) {
    this.#side = options.side;
    this.#silenceMs = options.silenceMs ?? SILENCE_MS;
    this.#child = track(
      spawn(options.part.qemu, guestArguments(options), {
        stdio: ['pipe', 'pipe', 'inherit'],
        env: { ...process.env, LD_PRELOAD: options.preload.join(':') },
      }),
    );
    this.#child.stdin.on('error', () => {});
    this.#lines = createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]();
  }

  /** Sends a line to the console. */
  say(line) {
    this.#child.stdin.write(`${line}\n`);
  }

  /**
   * The next result line that starts with `start`; throws when the guest ends, fails or says
   * nothing before.
   * @param {(text: string) => void} [other] hears of the other ones
   */
  async expect(start, other) {
    for (;;) {
      const timer = setTimeout(() => this.#child.kill('SIGKILL'), this.#silenceMs);
      const { value: line, done } = await this.#lines.next();
      clearTimeout(timer);
      if (done) throw this.#failure('ended too early');
      this.#tail.push(line);
      if (this.#tail.length > 20) this.#tail.shift();
      const at = line.indexOf(MARK);
      if (at < 0) continue;
      const text = line.slice(at + MARK.length).trim();
      if (text.startsWith(start)) return text;
      other?.(text);
      if (/ status=1|^faults count=[1-9]/.test(text)) throw this.#failure(text);
    }
  }

  /** What the job `stalls` finds in the kernel's log. */
  async stalls() {
    const start = `${STALLS} | `;
    const lines = [];
    await this.expect(`${STALLS} count=`, (text) => {
      if (text.startsWith(start)) lines.push(text.slice(start.length));
    });
    return lines;
  }

  /**
   * Waits for the guest to power itself off without a fault, or with no more of them than these.
   */
  async finish(faults = 0) {
    const text = await this.expect('faults count=');
    if (valuesOf(text).count > faults) throw this.#failure(text);
    await this.expect('DONE status=0');
    for (let next = await this.#lines.next(); !next.done; next = await this.#lines.next());
  }

  #failure(what) {
    return new Error(
      `a guest on ${[this.#side.machine, ...this.#side.iommu].join(' ')}: ${what}\n${this.#tail.join('\n')}`,
    );
  }
}

/** Kernel's initramfs and, behind it, our programs: the kernel unpacks both. */
export function withPrograms(part, scratch, name) {
  const { initramfs, module } = part.kernels['6.12'];
  const whole = join(scratch, `initramfs-${name}`);
  writeFileSync(whole, Buffer.concat([readFileSync(initramfs), readFileSync(module)]));
  return whole;
}

const withDisk = (options) => ({
  ...options,
  devices: [
    ...['-drive', `if=none,id=d0,file=${options.disk},format=raw`],
    ...['-device', 'nvme,drive=d0,serial=viommu-bench'],
  ],
});

/** Seconds from QEMU's start to the guest's first line of user space. */
export async function bootSeconds(options) {
  const started = process.hrtime.bigint();
  const guest = new Guest({ ...withDisk(options), append: 'viommu.run=none' });
  await guest.expect('READY');
  const seconds = Number(process.hrtime.bigint() - started) / 1e9;
  await guest.finish();
  return seconds;
}

/** A guest that waits to read its disk. */
export async function startReader(options, mib) {
  const guest = new Guest({ ...withDisk(options), append: `viommu.run=nvme-read viommu.mib=${mib}` });
  await guest.expect('nvme-read disk=');
  return {
    /** MiB/s of one sequential read. */
    async rate() {
      const started = process.hrtime.bigint();
      guest.say('go');
      await guest.expect('nvme-read bytes=');
      return mib / (Number(process.hrtime.bigint() - started) / 1e9);
    },
    async stop() {
      guest.say('end');
      await guest.finish();
    },
  };
}

/** A guest that waits to map and unmap memory for a test device, through its own VFIO. */
export async function startMapper(options, device = 'viommu-testdev,assigned=on', words = '') {
  const guest = new Guest({
    ...options,
    devices: ['-device', device],
    append: `${words} viommu.run=vfio-bench,${STALLS}`,
    // With less a kernel has no large pages for programs.
    memory: '1G',
  });
  await guest.expect('vfio-bench device=');
  return {
    /** One round: what the program in the guest prints, by name. */
    async round({ memory, size, skew, count, strays = count }) {
      guest.say(`${memory} ${size} ${skew} ${count} ${strays}`);
      return valuesOf(await guest.expect('vfio-bench map_ns='));
    },
    /** Ends it; what its kernel says took too long. Strays are faults. */
    async stop(faults = 0) {
      guest.say('end');
      const lines = await guest.stalls();
      await guest.finish(faults + lines.length);
      return lines;
    },
  };
}

/**
 * A guest that waits to read two disks and to send frames to a peer that returns them. Rounds give
 * how many, and the nanoseconds.
 */
export async function startSmallIo(options) {
  const guest = new Guest({
    ...options,
    append: `iommu.strict=1 log_buf_len=1M viommu.run=read-bench,net-bench,${STALLS}`,
  });
  const names = valuesOf(await guest.expect('read-bench nvme='));
  await guest.expect('read-bench state=ready');
  return {
    /** Reads one round: `count` of them, or as many as begin in `ms`. */
    async reads(kind, { depth, count, ms }) {
      guest.say(`${names[kind]} ${depth} ${count} ${ms}`);
      const { ns, reads } = valuesOf(await guest.expect('read-bench ns='));
      return { ns, count: reads };
    },
    /** Nanoseconds of single reads since it was asked for last. */
    async latency() {
      guest.say('latency');
      return valuesOf(await guest.expect('read-bench latency '));
    },
    /** No more reads: the card's turn. */
    async readsEnd() {
      guest.say('end');
      await guest.expect('net-bench state=ready');
    },
    /** Frames there and back, one round in the same way. */
    async frames({ bytes, count, ms }) {
      guest.say(`${bytes} ${count} ${ms}`);
      const { ns, rounds } = valuesOf(await guest.expect('net-bench ns='));
      return { ns, count: rounds };
    },
    /** Ends it; what its kernel says took too long. */
    async stop() {
      guest.say('end');
      const lines = await guest.stalls();
      // A CMD_SYNC that took too long is in both lists.
      await guest.finish(lines.length);
      return lines;
    },
  };
}
