import { type DeviceChoice, deviceOption } from '../qemu-arguments.js';

/** The IOMMU of a guest: ours, QEMU's own with these options, or none. */
export type GuestIommu =
  | { readonly kind: 'viommu'; readonly socket: string; readonly choice: DeviceChoice }
  | { readonly kind: 'intel-iommu'; readonly options: string }
  | { readonly kind: 'none' };

/** A q35 machine with devices whose DMA goes through its IOMMU. */
export interface Machine {
  readonly iommu: GuestIommu;
  readonly kernel: string;
  readonly initramfs: string;
  /** Words of the kernel's command line, after the console's. */
  readonly append: readonly string[];
  readonly memoryMib: number;
  readonly cpus: number;
  readonly accelerator: 'tcg' | 'kvm';
  /** Raw image of an NVMe disk, serial `viommu`. */
  readonly nvme?: string;
  /** Raw image of a virtio-blk disk that uses the IOMMU. */
  readonly virtioBlk?: string;
  /** e1000e on QEMU's user network; the host is 10.0.2.2. */
  readonly network: boolean;
  /** Our test device; needs the bridge. docs/testdev.md */
  readonly testDevice: boolean;
  /** Guest RAM that the daemon maps; false = it asks the bridge for every access. */
  readonly sharedMemory: boolean;
  /** More QEMU arguments, last. */
  readonly extra: readonly string[];
}

export const MACHINE_DEFAULTS = {
  append: [],
  memoryMib: 512,
  cpus: 1,
  accelerator: 'tcg',
  network: false,
  testDevice: false,
  sharedMemory: true,
  extra: [],
} as const satisfies Partial<Machine>;

/** The QEMU arguments of a machine; its serial console is on stdio. */
export function machineArguments(machine: Machine): string[] {
  const size = `${machine.memoryMib}M`;
  const backend = machine.sharedMemory
    ? `memory-backend-memfd,id=ram0,size=${size},share=on`
    : `memory-backend-ram,id=ram0,size=${size}`;
  // la57 would make the kernel pick 5-level first-stage tables, which a 48-bit unit does not have to offer.
  const cpu = machine.accelerator === 'kvm' ? 'host' : 'max,la57=off';
  const accelerator = machine.accelerator === 'tcg' ? 'tcg,thread=multi' : 'kvm';
  return [
    ...['-machine', 'q35,memory-backend=ram0', '-accel', accelerator, '-cpu', cpu],
    ...['-object', backend, '-m', size, '-smp', String(machine.cpus)],
    ...['-nodefaults', '-display', 'none', '-serial', 'stdio', '-no-reboot'],
    ...iommuArguments(machine.iommu),
    ...diskArguments(machine),
    ...(machine.network ? ['-netdev', 'user,id=net0', '-device', 'e1000e,netdev=net0'] : []),
    ...(machine.testDevice ? ['-device', 'viommu-testdev'] : []),
    ...['-kernel', machine.kernel, '-initrd', machine.initramfs],
    // The kernel's self-test of its ciphers takes a second of every boot under emulation.
    ...['-append', ['console=ttyS0', 'cryptomgr.notests', ...machine.append].join(' ')],
    ...machine.extra,
  ];
}

function iommuArguments(iommu: GuestIommu): string[] {
  switch (iommu.kind) {
    case 'viommu':
      return ['-device', deviceOption(iommu.socket, iommu.choice)];
    case 'intel-iommu':
      return ['-device', iommu.options === '' ? 'intel-iommu' : `intel-iommu,${iommu.options}`];
    case 'none':
      return [];
  }
}

function diskArguments({ nvme, virtioBlk }: Machine): string[] {
  const drive = (id: string, file: string): string =>
    `if=none,id=${id},format=raw,cache=unsafe,file=${file.replaceAll(',', ',,')}`;
  return [
    ...(nvme === undefined
      ? []
      : ['-drive', drive('disk0', nvme), '-device', 'nvme,drive=disk0,serial=viommu']),
    ...(virtioBlk === undefined
      ? []
      : [
          ...['-drive', drive('disk1', virtioBlk)],
          ...['-device', 'virtio-blk-pci,drive=disk1,iommu_platform=on,disable-legacy=on'],
        ]),
  ];
}
