/**
 * The machines of npm run test:kvm, by architecture: level 1, which has a KVM, and the guests under
 * it.
 */
import { join, resolve } from 'node:path';
import { fileSystem, inLevel1, partOf, programsOf, quote } from '../vfio/machines.mjs';

const HERE = import.meta.dirname;
const ROOT = resolve(HERE, '../..');

/** Level 1: QEMU emulates AMD's SVM, and Arm's EL2. */
const LEVEL_1 = {
  amd64: {
    machine: ['-M', 'q35', '-cpu', 'max,la57=off,+svm,+npt'],
    words: 'console=ttyS0 quiet no_timer_check cryptomgr.notests',
  },
  arm64: {
    machine: ['-M', 'virt,virtualization=on,gic-version=3', '-cpu', 'cortex-a57'],
    words: 'console=ttyAMA0 quiet cryptomgr.notests',
  },
};

/**
 * Level 2: options of `viommu qemu`, our device, what both machines have, QEMU's own IOMMU, words
 * for the kernel.
 */
const LEVEL_2 = {
  amd64: {
    options: '',
    device: 'viommu-vtd',
    machine: '-accel kvm -cpu host -M q35,kernel-irqchip=split,sata=off,smbus=off,usb=off',
    stock: '-device intel-iommu',
    append: 'console=ttyS0 quiet no_timer_check cryptomgr.notests intel_iommu=on iommu.strict=1',
  },
  arm64: {
    options: '--arch arm64',
    device: 'viommu-smmuv3',
    machine: '-accel kvm -cpu host -M virt,gic-version=3',
    // The machine's own IOMMU is an option of the machine.
    stock: '-M virt,gic-version=3,iommu=smmuv3',
    append: 'console=ttyAMA0 quiet cryptomgr.notests iommu.strict=1',
  },
};

/** The file of settings that level 1's script reads, as shell assignments. */
export function settings(paths, levels, initramfs, { runs, rounds, cpus, limit }) {
  const { options, device, machine, stock, append } = LEVEL_2[levels.arch];
  const { node, qemu, bridge } = programsOf(paths, levels);
  const values = {
    NODE: node,
    PROJECT: inLevel1(levels, ROOT),
    BRIDGE: inLevel1(levels, bridge),
    QEMU: qemu,
    KERNEL: inLevel1(levels, levels.level2.kernel),
    INITRAMFS: inLevel1(levels, initramfs),
    OPTIONS: options,
    // A Node process in level 1 is slow to start.
    DEVICE: `${device},timeout-ms=600000`,
    MACHINE: machine,
    STOCK: stock,
    APPEND: append,
    RUNS: runs,
    ROUNDS: rounds,
    CPUS: cpus,
    LIMIT: limit,
  };
  return Object.entries(values)
    .map(([name, value]) => `${name}=${quote(value)}\n`)
    .join('');
}

/** What to run for level 1, as [command, arguments], with a file of settings. */
export function level1Command(paths, levels, file) {
  const { arch, kernel, initramfs } = levels.level1;
  const { machine, words } = LEVEL_1[arch];
  const files = fileSystem(levels);
  const kernelWords = [
    words,
    ...files.words,
    `viommu.script=${inLevel1(levels, join(HERE, 'level1/run.sh'))}`,
    `viommu.settings=${inLevel1(levels, file)}`,
  ];
  return [
    partOf(paths, arch).qemu,
    [
      ...machine,
      ...['-accel', 'tcg,thread=multi', '-smp', '2', '-m', '3G'],
      ...['-nodefaults', '-display', 'none', '-serial', 'stdio', '-no-reboot'],
      ...files.devices,
      ...['-kernel', kernel, '-initrd', initramfs, '-append', kernelWords.join(' ')],
    ],
  ];
}
