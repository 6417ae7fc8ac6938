/** Scenarios boot and reset: disks and network of a guest, before and after resets. */
import { createHash } from 'node:crypto';
import { readFileSync, rmSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { ByteServer } from '../../../dist/cli/guest/byte-server.js';
import { sparseDisk } from '../../../dist/cli/guest/disk.js';
import { judge } from '../../../dist/cli/guest/verdict.js';
import { Level2 } from './guest.mjs';

const MIB = 2 ** 20;
/** Of each disk that is written, and of the network each way. */
const MIB_MOVED = 16;
const JOBS = ['nvme', 'virtio-blk', 'net', 'stalls', 'dmesg'];

export const sumOf = (file) =>
  createHash('md5')
    .update(readFileSync(file).subarray(0, MIB_MOVED * MIB))
    .digest('hex');

/** Both disks and a network card, on files of their own. */
class Devices {
  nvme = sparseDisk('/run', 'boot-nvme', 64);
  virtio = sparseDisk('/run', 'boot-virtio', 64);

  constructor(server) {
    this.server = server;
  }

  get arguments() {
    const drive = (id, file) => ['-drive', `if=none,id=${id},file=${file},format=raw`];
    return [
      ...[...drive('d0', this.nvme), '-device', 'nvme,drive=d0,serial=viommu'],
      ...[...drive('d1', this.virtio), '-device'],
      'virtio-blk-pci,drive=d1,iommu_platform=on,disable-legacy=on',
      ...['-netdev', 'user,id=n0', '-device', 'e1000e,netdev=n0'],
    ];
  }

  get parameters() {
    return { mib: MIB_MOVED, 'net-mib': MIB_MOVED / 2, port: this.server.port };
  }

  remove() {
    for (const file of [this.nvme, this.virtio]) rmSync(file);
  }
}

/** What has to hold of a guest that has ended. */
export async function checkGuest(guest, jobs, served, what, check) {
  const { run } = guest;
  const end = await guest.end();
  const { problems, bytesMoved } = judge(run, end, jobs, served);
  const moved = `${(bytesMoved / MIB).toFixed(0)} MiB by DMA, sums the same`;
  const said = problems.join('; ');
  check(!end.hung && problems.length === 0, said === '' ? `${what}: ${moved}` : `${what}: ${said}`);
  const stalls = run.value('stalls', 'count');
  check(stalls === '0', `${what}: its kernel complained of ${stalls ?? 'an unknown number of'} waits`);
  return end;
}

/** Runs `use` with devices that are removed afterwards. */
async function withDevices(use) {
  const server = await ByteServer.open();
  const devices = new Devices(server);
  try {
    await use(devices);
  } finally {
    devices.remove();
    await server.close();
  }
}

/** The disks' files have what the guest wrote, and its kernel invalidates strictly. */
function checkRest({ run }, devices, what, check) {
  for (const [job, file] of [
    ['nvme', devices.nvme],
    ['virtio-blk', devices.virtio],
  ])
    check(sumOf(file) === run.value(job, 'written'), `${what}: the ${job} disk's file has what was written`);
  const strict = run.textOf('dmesg').some((line) => /invalidation policy: strict/.test(line));
  check(strict, `${what}: the kernel invalidates in strict mode`);
}

/** One processor, then two. */
export async function boot(settings, check) {
  for (const cpus of [1, 2])
    await withDevices(async (devices) => {
      const what = cpus === 1 ? 'one processor' : `${cpus} processors`;
      const { arguments: args, parameters, server } = devices;
      const guest = Level2.start(settings, { cpus, devices: args, jobs: JOBS, parameters });
      await checkGuest(guest, JOBS, server.transfers, what, check);
      checkRest(guest, devices, what, check);
    });
}

/** QEMU's system_reset, then the guest's own reboot, both while the disks are read. */
export async function reset(settings, check) {
  await withDevices(async (devices) => {
    const { arguments: args, parameters, server } = devices;
    const jobs = ['busy', ...JOBS];
    const guest = Level2.start(settings, { cpus: 2, devices: args, jobs, parameters, reboots: true });
    const resets = async () => {
      await guest.said(/VIOMMU-GUEST: busy WAITING/);
      await sleep(2000);
      await guest.monitor('system_reset');
      await guest.said(/VIOMMU-GUEST: busy WAITING/, 2);
      guest.run.send('reboot\n');
      await guest.said(/VIOMMU-GUEST: busy WAITING/, 3);
      guest.run.send('end\n');
    };
    // Where the guest ends early, its end says more.
    const whole = await resets().then(
      () => true,
      () => false,
    );
    await checkGuest(guest, jobs, server.transfers, 'after two resets', check);
    check(whole, 'the machine came up again after system_reset, and after a reboot');
    checkRest(guest, devices, 'after two resets', check);
  });
}
