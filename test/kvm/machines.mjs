/**
 * The machines of npm run test:kvm, by architecture: level 1, which has a KVM (on amd64 also
 * an IOMMU and a network card with virtual functions), and the guests under it.
 */
import { join, resolve } from 'node:path';
import { fileSystem, inLevel1, partOf, programsOf } from '../vfio/machines.mjs';

const HERE = import.meta.dirname;
const ROOT = resolve(HERE, '../..');

/** A network card with virtual functions, for a level 1 that has an IOMMU. */
const CARD = [
  ...['-device', 'pcie-root-port,id=rp0,chassis=1'],
  ...['-netdev', 'user,id=net0,restrict=on', '-device', 'igb,bus=rp0,netdev=net0'],
];

/** Level 1: QEMU emulates AMD's SVM, and Arm's EL2. */
const LEVEL_1 = {
  amd64: {
    machine: ['-M', 'q35', '-cpu', 'max,la57=off,+svm,+npt', '-device', 'intel-iommu,intremap=on'],
    words: 'console=ttyS0 quiet no_timer_check cryptomgr.notests intel_iommu=on',
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
    options: [],
    device: 'viommu-vtd',
    machine: ['-accel', 'kvm', '-cpu', 'host', '-M', 'q35,kernel-irqchip=split,sata=off,smbus=off,usb=off'],
    stock: ['-device', 'intel-iommu'],
    append: 'console=ttyS0 quiet no_timer_check cryptomgr.notests intel_iommu=on iommu.strict=1',
  },
  arm64: {
    options: ['--arch', 'arm64'],
    device: 'viommu-smmuv3',
    machine: ['-accel', 'kvm', '-cpu', 'host', '-M', 'virt,gic-version=3'],
    // The machine's own IOMMU is an option of the machine.
    stock: ['-M', 'virt,gic-version=3,iommu=smmuv3'],
    append: 'console=ttyAMA0 quiet cryptomgr.notests iommu.strict=1',
  },
};

/** What level 1's script reads. */
export function settings(paths, levels, initramfs, values) {
  const { scenarios, runs, rounds, cpus, limit } = values;
  const { node, qemu, bridge } = programsOf(paths, levels);
  return {
    arch: levels.arch,
    node,
    project: inLevel1(levels, ROOT),
    bridge: inLevel1(levels, bridge),
    qemu,
    kernel: inLevel1(levels, levels.level2.kernel),
    initramfs: inLevel1(levels, initramfs),
    ...LEVEL_2[levels.arch],
    ...{ scenarios, runs, rounds, cpus, limit },
  };
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
    `viommu.node=${programsOf(paths, levels).node}`,
  ];
  return [
    partOf(paths, arch).qemu,
    [
      ...machine,
      ...['-accel', 'tcg,thread=multi', '-smp', '2', '-m', '3G'],
      ...['-nodefaults', '-display', 'none', '-serial', 'stdio', '-no-reboot'],
      ...(arch === 'amd64' ? CARD : []),
      ...files.devices,
      ...['-kernel', kernel, '-initrd', initramfs, '-append', kernelWords.join(' ')],
    ],
  ];
}
