/**
 * Scenario reads: guests with QEMU's own IOMMU and behind ours in turns, on the same disks. The
 * test outside reads what they measure (test/kvm/rates.mjs).
 */
import { randomFillSync } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { Level2 } from './guest.mjs';
import { say } from './say.mjs';

const MIB = 2 ** 20;

/** Files of random data for two disks. */
export function fillDisks() {
  const disks = { nvme: '/run/nvme.raw', virtio: '/run/virtio.raw' };
  for (const file of Object.values(disks)) writeFileSync(file, randomFillSync(Buffer.alloc(32 * MIB)));
  return disks;
}

export async function reads(settings, check) {
  const { runs, rounds, cpus } = settings;
  const { nvme, virtio } = fillDisks();
  const devices = [
    ...['-drive', `if=none,id=d0,file=${nvme},format=raw`, '-device', 'nvme,drive=d0,serial=viommu'],
    ...['-drive', `if=none,id=d1,file=${virtio},format=raw`],
    ...['-device', 'virtio-blk-pci,drive=d1,iommu_platform=on,disable-legacy=on'],
  ];
  const guests = [];
  for (let run = 1; run <= runs; run++)
    for (const side of ['stock', 'ours']) {
      say('begin', { side, run });
      const guest = Level2.start(settings, {
        ...{ side, cpus, devices },
        jobs: ['strict-reads'],
        parameters: { rounds },
      });
      guests.push({ side, run, guest, end: await guest.end() });
    }
  const well = ({ end, guest }) => end.exitCode === 0 && guest.run.value('DONE', 'status') === '0';
  const of = (side) => guests.filter((one) => one.side === side);
  const sum = (job) => of('ours').reduce((all, { guest }) => all + Number(guest.run.value(job, 'count')), 0);
  const hung = guests.filter(({ end }) => end.hung).map(({ side, run }) => `${side}, run ${run}`);
  const ended = (side) => of(side).filter(well).length;
  check(ended('stock') === runs, `${ended('stock')} of ${runs} guests with QEMU's own IOMMU ended well`);
  check(ended('ours') === runs, `${ended('ours')} of ${runs} guests behind ours ended well`);
  check(hung.length === 0, `none hung${hung.length > 0 ? `, but: ${hung.join('; ')}` : ''}`);
  check(sum('faults') === 0, 'level 2 logged no fault');
  check(sum('stalls') === 0, `level 2 complained of ${sum('stalls')} waits`);
  const reports = of('ours').filter(({ end }) => end.report !== undefined).length;
  check(reports === runs, `${reports} reports were written`);
}
