/** Whole guests, ours and stock's in turn: time to user space, and sequential reads of an NVMe disk. */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, ftruncateSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { track } from './children.mjs';

const BOOT_TIMEOUT_MS = 180_000;

/** Makes a sparse disk image: reads of it come from the host's memory and wait for no disk. */
export function makeDisk(scratch, mib) {
  const path = join(scratch, 'disk.raw');
  const fd = openSync(path, 'w', 0o600);
  ftruncateSync(fd, mib * 1048576);
  closeSync(fd);
  return path;
}

function guestArguments({ paths, iommu, disk, append }) {
  const kernel = paths.kernels['6.12'];
  return [
    ...['-machine', 'q35,memory-backend=ram0', '-accel', 'tcg,thread=multi', '-cpu', 'max,la57=off'],
    ...['-object', 'memory-backend-memfd,id=ram0,size=512M,share=on', '-m', '512M', '-smp', '1'],
    ...['-nodefaults', '-display', 'none', '-serial', 'stdio', '-no-reboot'],
    ...['-device', iommu],
    ...['-drive', `if=none,id=d0,file=${disk},format=raw,cache=writeback`],
    ...['-device', 'nvme,drive=d0,serial=viommu-bench'],
    ...['-kernel', kernel.image, '-initrd', kernel.initramfs],
    ...['-append', `console=ttyS0 quiet no_timer_check intel_iommu=on,sm_off ${append}`],
  ];
}

/**
 * Runs one guest to its end. Resolves with the seconds from QEMU's start to the first line of user space, and
 * the guest's own result lines.
 */
export async function runGuest({ paths, preload, iommu, disk, append }) {
  const started = process.hrtime.bigint();
  const child = track(
    spawn(paths.qemu, guestArguments({ paths, iommu, disk, append }), {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: { ...process.env, LD_PRELOAD: preload.join(':') },
    }),
  );
  const timer = setTimeout(() => child.kill('SIGKILL'), BOOT_TIMEOUT_MS);
  let readySeconds;
  const results = [];
  const tail = [];
  for await (const line of createInterface({ input: child.stdout })) {
    tail.push(line);
    if (tail.length > 20) tail.shift();
    const at = line.indexOf('VIOMMU-GUEST: ');
    if (at < 0) continue;
    const text = line.slice(at + 14).trim();
    if (text === 'READY') readySeconds = Number(process.hrtime.bigint() - started) / 1e9;
    else results.push(text);
  }
  clearTimeout(timer);
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
  const faults = results.find((text) => text.startsWith('faults '));
  if (readySeconds === undefined || !results.some((text) => text.startsWith('DONE status=0')))
    throw new Error(`a guest on ${iommu} did not finish:\n${tail.join('\n')}`);
  if (faults !== undefined && faults !== 'faults count=0')
    throw new Error(`a guest on ${iommu} saw DMA faults:\n${results.join('\n')}`);
  return { readySeconds, results };
}

/** MiB/s of each round that the job nvme-read printed. */
export function readRates(results) {
  return results
    .map((text) => /^nvme-read round=\d+ bytes=(\d+) seconds=([\d.]+)/.exec(text))
    .filter((match) => match !== null)
    .map((match) => Number(match[1]) / 1048576 / Number(match[2]));
}
