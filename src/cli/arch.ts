/** Architectures of guests, by Debian's names. */
export const ARCHES = ['amd64', 'arm64'] as const;
export type Arch = (typeof ARCHES)[number];

/** What a QEMU of one architecture is called, and what our device in it is called and needs. */
export interface ArchFacts {
  readonly qemu: string;
  readonly device: string;
  /**
   * The machine that the device fits, as `-machine` takes it; {@link machineType} is what has to
   * stand in it.
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
