/** Architectures of guests, by Debian's names. */
export const ARCHES = ['amd64', 'arm64'] as const;
export type Arch = (typeof ARCHES)[number];

/** Names of QEMU and of our device for one architecture, and what the device needs. */
interface ArchFacts {
  readonly qemu: string;
  readonly device: string;
  /**
   * The machine that has the device, as `-machine` takes it. It must contain {@link machineType}.
   */
  readonly machine: string;
  readonly machineType: string;
  /** The serial console, as Linux calls it. */
  readonly console: string;
}

export const ARCH: Readonly<Record<Arch, ArchFacts>> = {
  amd64: {
    qemu: 'qemu-system-x86_64',
    device: 'viommu-vtd',
    machine: 'q35',
    machineType: 'q35',
    console: 'ttyS0',
  },
  arm64: {
    qemu: 'qemu-system-aarch64',
    device: 'viommu-smmuv3',
    machine: 'virt,gic-version=3',
    machineType: 'virt',
    console: 'ttyAMA0',
  },
};
