/** Whole guests, ours and stock's: time to user space, sequential reads of an NVMe disk, VFIO's maps and unmaps, in turns. */

import { spawn } from 'node:child_process';
import { closeSync, ftruncateSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { track } from './children.mjs';

/** A guest that says nothing for so long has hung. */
const SILENCE_MS = 120_000;
const MARK = 'VIOMMU-GUEST: ';

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

  /** @param {{unit: object, part: object, side: object, preload: string[], devices: string[], initramfs?: string, append: string, memory?: string, cpus?: number}} options */
  constructor(options) {
    this.#side = options.side;
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

  /** The next result line that starts with `start`; throws when the guest ends, fails or says nothing before. */
  async expect(start) {
    for (;;) {
      const timer = setTimeout(() => this.#child.kill('SIGKILL'), SILENCE_MS);
      const { value: line, done } = await this.#lines.next();
      clearTimeout(timer);
      if (done) throw this.#failure('ended too early');
      this.#tail.push(line);
      if (this.#tail.length > 20) this.#tail.shift();
      const at = line.indexOf(MARK);
      if (at < 0) continue;
      const text = line.slice(at + MARK.length).trim();
      if (text.startsWith(start)) return text;
      if (/ status=1|^faults count=[1-9]/.test(text)) throw this.#failure(text);
    }
  }

  /** Waits for the guest to power itself off without a fault. */
  async finish() {
    await this.expect('faults count=0');
    await this.expect('DONE status=0');
    for (let next = await this.#lines.next(); !next.done; next = await this.#lines.next());
  }

  /** Ends it as it is. */
  async kill() {
    this.#child.kill('SIGKILL');
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
    append: `${words} viommu.run=vfio-bench`,
    // With less a kernel has no large pages for programs.
    memory: '1G',
  });
  await guest.expect('vfio-bench device=');
  return {
    /** One round: what the program in the guest prints, by name. */
    async round({ memory, size, skew, count }) {
      guest.say(`${memory} ${size} ${skew} ${count}`);
      const words = (await guest.expect('vfio-bench map_ns=')).split(' ').slice(1);
      return Object.fromEntries(words.map((word) => [word.split('=')[0], Number(word.split('=')[1])]));
    },
    kill: () => guest.kill(),
    async stop() {
      guest.say('end');
      await guest.finish();
    },
  };
}
