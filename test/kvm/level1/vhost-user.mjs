/** Scenario vhost-user: a disk that another process serves. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, rmSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { sparseDisk } from '../../../dist/cli/guest/disk.js';
import { checkGuest, sumOf } from './boot.mjs';
import { Level2 } from './guest.mjs';
import { Qmp } from './qmp.mjs';

const MIB_MOVED = 16;

/** Resolves when a file is there. */
async function appears(file) {
  for (let left = 600; !existsSync(file); left--) {
    if (left === 0) throw new Error(`${file} did not appear`);
    await sleep(100);
  }
}

/**
 * A backend of vhost-user-blk: a stock QEMU without a machine, because Debian packages no
 * `qemu-storage-daemon`.
 */
async function startBackend({ qemu }, file) {
  const socket = '/run/vhost-user';
  const monitor = '/run/vhost-user-monitor';
  const child = spawn(qemu, [
    ...['-machine', 'none', '-nodefaults', '-display', 'none', '-qmp', `unix:${monitor},server=on,wait=off`],
    ...['-blockdev', `driver=file,node-name=disk,filename=${file}`],
  ]);
  await appears(monitor);
  const qmp = await Qmp.open(monitor);
  await qmp.run('block-export-add', {
    ...{ type: 'vhost-user-blk', id: 'export', 'node-name': 'disk', writable: true },
    addr: { type: 'unix', path: socket },
  });
  const stop = async () => {
    qmp.close();
    child.kill('SIGKILL');
    await once(child, 'exit');
  };
  return { socket, stop };
}

export async function vhostUser(settings, check) {
  const nvme = sparseDisk('/run', 'vhost-nvme', 64);
  const virtio = sparseDisk('/run', 'vhost-virtio', 64);
  const backend = await startBackend(settings, virtio);
  try {
    const jobs = ['nvme', 'virtio-blk', 'stalls'];
    const devices = [
      ...['-drive', `if=none,id=d0,file=${nvme},format=raw`, '-device', 'nvme,drive=d0,serial=viommu'],
      ...['-chardev', `socket,id=vhost,path=${backend.socket}`],
      ...['-device', 'vhost-user-blk-pci,chardev=vhost,num-queues=1'],
    ];
    const guest = Level2.start(settings, { cpus: 2, devices, jobs, parameters: { mib: MIB_MOVED } });
    await checkGuest(guest, jobs, [], 'a vhost-user disk', check);
    const written = guest.run.value('virtio-blk', 'written');
    check(sumOf(virtio) === written, "the backend's file has what was written");
  } finally {
    await backend.stop();
    for (const file of [nvme, virtio]) rmSync(file);
  }
}
