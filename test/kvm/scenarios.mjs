/** The scenarios of npm run test:kvm: what each shows, and where it can be had. */

export const SCENARIOS = {
  boot: {
    arches: ['amd64', 'arm64'],
    what: 'one processor and two: disks and network, sums compared, strict mode',
  },
  reset: {
    arches: ['amd64', 'arm64'],
    what: 'the machine is reset and reboots while its disks are read, then all of boot',
  },
  affinity: {
    arches: ['amd64', 'arm64'],
    what: "the disks' interrupts change processors while the disks are read; each interrupt is counted",
  },
  'vhost-user': {
    arches: ['amd64'],
    what: 'a disk served by another process that maps the guest, beside an NVMe disk behind our IOMMU',
  },
  refused: {
    arches: ['amd64'],
    what: 'an assigned device that would not be told of new mappings is refused, by name',
  },
  reads: {
    arches: ['amd64', 'arm64'],
    what: "reads of 4 KiB, strict, beside QEMU's own IOMMU: measured",
  },
};

/**
 * The scenarios to run, in their order.
 * @param {string} arch
 * @param {string | undefined} only names with commas between
 * @throws {Error} for a name that is none, or none of this architecture
 */
export function chosen(arch, only) {
  const possible = Object.keys(SCENARIOS).filter((name) => SCENARIOS[name].arches.includes(arch));
  if (only === undefined) return possible;
  const names = only.split(',');
  const wrong = names.find((name) => !possible.includes(name));
  if (wrong !== undefined)
    throw new Error(`--only ${wrong}: ${arch} has the scenarios ${possible.join(', ')}`);
  return possible.filter((name) => names.includes(name));
}
