/**
 * The machines of npm run test:vfio, by architecture: level 1, which has the real device, and level
 * 2 inside it.
 */
import { join, resolve } from 'node:path';

const HERE = import.meta.dirname;
const ROOT = resolve(HERE, '../..');

/** Level 1: QEMU's machine with an IOMMU of its own, words for its kernel. */
const LEVEL_1 = {
  amd64: {
    // VFIO asks for interrupt remapping.
    machine: ['-M', 'q35', '-cpu', 'max,la57=off', '-device', 'intel-iommu,intremap=on'],
    words: 'console=ttyS0 quiet no_timer_check cryptomgr.notests intel_iommu=on',
  },
  arm64: {
    // With a window above 4 GiB the registers of virtual functions do not reach igb.
    machine: ['-M', 'virt,gic-version=3,iommu=smmuv3,highmem-mmio=off', '-cpu', 'cortex-a57'],
    // QEMU's root port has ACS, which no driver turns on there; without it all functions are one
    // group.
    words: 'console=ttyAMA0 quiet cryptomgr.notests pci=config_acs=11101@pci:0:0',
  },
};

/**
 * Level 2: options of `viommu qemu`, our device, QEMU's machine, words for its kernel; stock: the
 * machine with QEMU's own IOMMU, where that refuses the function.
 */
const LEVEL_2 = {
  amd64: {
    options: '',
    device: 'viommu-vtd,caching-mode=on',
    machine: '-M q35,sata=off,smbus=off,usb=off,hpet=off -accel tcg,thread=multi -cpu qemu64 -bios qboot.rom',
    append: 'console=ttyS0 quiet no_timer_check cryptomgr.notests intel_iommu=on',
    stock: '',
  },
  arm64: {
    options: '--arch arm64',
    device: 'viommu-smmuv3',
    machine: '-M virt,gic-version=3 -accel tcg,thread=multi -cpu cortex-a57',
    append: 'console=ttyAMA0 quiet cryptomgr.notests',
    stock: '-M virt,gic-version=3,iommu=smmuv3 -accel tcg -cpu cortex-a57',
  },
};

export const quote = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

/** What this project prepared for an architecture. */
export const partOf = (paths, arch) => paths[arch] ?? paths;

/** Where level 1 has a file of this machine. */
export const inLevel1 = ({ level1: { programs } }, file) => `${programs?.machine ?? ''}${file}`;

/** What level 1 runs: this machine's programs, or those of its own file system. */
export function programsOf(paths, { arch, level1: { programs } }) {
  return programs ?? { node: process.execPath, ...partOf(paths, arch) };
}

/** The file of settings that level 1's scripts read, as shell assignments. */
export function settings(paths, levels, { frames, locked }) {
  const { options, device, machine, append, stock } = LEVEL_2[levels.arch];
  const { node, qemu, bridge } = programsOf(paths, levels);
  const values = {
    NODE: node,
    PROJECT: inLevel1(levels, ROOT),
    BRIDGE: inLevel1(levels, bridge),
    QEMU: qemu,
    KERNEL: inLevel1(levels, levels.level2.kernel),
    INITRAMFS: inLevel1(levels, levels.level2.initramfs),
    OPTIONS: options,
    // A Node process in level 1 is slow to start.
    DEVICE: `${device},timeout-ms=600000`,
    MACHINE: machine,
    STOCK: stock,
    IOMMUFD: levels.iommufd ? 'yes' : '',
    MDEV: levels.mdev ? 'yes' : '',
    LOCKED: locked ?? '',
    APPEND: `${append} viommu.frames=${frames}`,
  };
  return Object.entries(values)
    .map(([name, value]) => `${name}=${quote(value)}\n`)
    .join('');
}

/** Level 1's file system: this machine's, or its own, with this machine's files in it. */
export function fileSystem(levels) {
  const share = (tag, path) => [
    ...['-fsdev', `local,id=${tag},path=${path},security_model=none,readonly=on`],
    ...['-device', `virtio-9p-pci,fsdev=${tag},mount_tag=${tag}`],
  ];
  const { programs } = levels.level1;
  if (programs === undefined) return { devices: share('root', '/'), words: [] };
  const modules = `${inLevel1(levels, programs.modules)}:${inLevel1(levels, join(ROOT, 'node_modules'))}`;
  return {
    devices: [...share('root', programs.root), ...share('machine', '/')],
    words: [`viommu.machine=${programs.machine}`, `viommu.bind=${modules}`],
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
  ];
  return [
    partOf(paths, arch).qemu,
    [
      ...machine,
      ...['-accel', 'tcg,thread=multi', '-smp', '2', '-m', '2G'],
      ...['-nodefaults', '-display', 'none', '-serial', 'stdio', '-no-reboot'],
      ...['-device', 'pcie-root-port,id=rp0,chassis=1'],
      ...['-netdev', 'user,id=net0,restrict=on', '-device', 'igb,bus=rp0,netdev=net0'],
      ...files.devices,
      ...['-kernel', kernel, '-initrd', initramfs, '-append', kernelWords.join(' ')],
    ],
  ];
}
