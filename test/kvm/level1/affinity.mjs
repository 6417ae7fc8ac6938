/** Scenario affinity: interrupts of disks that change processors while the disks are read. */
import { Level2 } from './guest.mjs';
import { fillDisks } from './reads.mjs';

/** Reads of 4 KiB of each disk, one at a time. */
const READS = 3000;
/** With fewer changes than these nothing would have been tried. */
const FEWEST_CHANGES = 50;

/**
 * An NVMe disk with one vector (Linux manages the affinity of several by itself), and a virtio one
 * with a wire, which is the interrupt controller's.
 */
const DEVICES = (nvme, virtio) => [
  ...['-drive', `if=none,id=d0,file=${nvme},format=raw`],
  ...['-device', 'nvme,drive=d0,serial=viommu,msix_qsize=1,max_ioqpairs=1'],
  ...['-drive', `if=none,id=d1,file=${virtio},format=raw`],
  ...['-device', 'virtio-blk-pci,drive=d1,iommu_platform=on,disable-legacy=on,vectors=0'],
];

async function moveInterrupts(settings, properties, what, check) {
  const { nvme, virtio } = fillDisks();
  const jobs = ['affinity', 'stalls', 'dmesg'];
  const guest = Level2.start(settings, {
    cpus: 2,
    properties,
    devices: DEVICES(nvme, virtio),
    jobs,
    parameters: { reads: READS },
  });
  const { exitCode, hung } = await guest.end();
  const { run } = guest;
  check(!hung && exitCode === 0 && run.value('DONE', 'status') === '0', `${what}: the guest ended well`);
  check(run.value('faults', 'count') === '0', `${what}: it logged no fault`);
  check(run.value('stalls', 'count') === '0', `${what}: it complained of no wait`);
  const disks = run.of('affinity').filter(({ values }) => 'disk' in values);
  for (const { values } of disks) {
    const { disk, by, changes, requests, interrupts, first, second, same } = values;
    const counted = `${interrupts} interrupts for ${requests} requests, ${first} and ${second} by processor`;
    const all = by === 'message' ? interrupts === requests : Number(interrupts) >= Number(requests);
    const moved = Number(changes) >= FEWEST_CHANGES && Number(first) > 0 && Number(second) > 0;
    const sentence = `${what}: ${disk}, by ${by}: ${changes} changes, ${counted}`;
    check(all && moved && same === '1', same === '1' ? sentence : `${sentence}; what was read differs`);
  }
  check(disks.length === 2, `${what}: ${disks.length} of 2 disks were read`);
  return run;
}

export async function affinity(settings, check) {
  await moveInterrupts(settings, '', 'not remapped', check);
  if (settings.arch !== 'amd64') return;
  const { lines } = await moveInterrupts(settings, 'intremap=on', 'remapped', check);
  const enabled = lines.map((line) => /DMAR-IR: Enabled IRQ remapping.*/.exec(line)?.[0]).find(Boolean);
  check(enabled !== undefined, `the kernel says: ${enabled ?? 'nothing of interrupt remapping'}`);
}
