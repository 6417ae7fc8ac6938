import { ARCH, type Arch } from '../arch.js';
import { type DeviceChoice, deviceOption } from '../qemu-arguments.js';

/** The IOMMU of a guest: ours, QEMU's own (of amd64 with these options), or none. */
export type GuestIommu =
  | { readonly kind: 'viommu'; readonly socket: string; readonly choice: DeviceChoice }
  | { readonly kind: 'intel-iommu'; readonly options: string }
  | { readonly kind: 'smmuv3' }
  | { readonly kind: 'none' };

/** A q35 or virt machine with devices whose DMA goes through its IOMMU. */
export interface QemuMachine {
  readonly arch: Arch;
  readonly iommu: GuestIommu;
  /** UEFI firmware of an arm64 machine: the guest uses ACPI. Without, it gets a device tree. */
  readonly firmware?: string;
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
  /** Another backend for guest RAM: type and properties, without id and size. */
  readonly memoryBackend?: string;
  /** More QEMU arguments, last. */
  readonly extra: readonly string[];
}

export const MACHINE_DEFAULTS = {
  arch: 'amd64',
  append: [],
  memoryMib: 512,
  cpus: 1,
  accelerator: 'tcg',
  network: false,
  testDevice: false,
  sharedMemory: true,
  extra: [],
} as const satisfies Partial<QemuMachine>;

/**
 * Emulated processors. la57 would make the kernel pick 5-level first-stage tables, which a 48-bit
 * unit does not have to offer. An arm64 guest under emulation is slower the more its processor has.
 */
const EMULATED_CPU: Readonly<Record<Arch, string>> = { amd64: 'max,la57=off', arm64: 'cortex-a57' };

/** The QEMU arguments of a machine; its serial console is on stdio. */
export function machineArguments(machine: QemuMachine): string[] {
  const size = `${machine.memoryMib}M`;
  const usual = machine.sharedMemory ? 'memory-backend-memfd,share=on' : 'memory-backend-ram';
  const backend = `${machine.memoryBackend ?? usual},id=ram0,size=${size}`;
  const { machine: type, console } = ARCH[machine.arch];
  const stock = machine.iommu.kind === 'smmuv3' ? ',iommu=smmuv3' : '';
  const cpu = machine.accelerator === 'kvm' ? 'host' : EMULATED_CPU[machine.arch];
  const accelerator = machine.accelerator === 'tcg' ? 'tcg,thread=multi' : 'kvm';
  return [
    ...['-machine', `${type}${stock},memory-backend=ram0`, '-accel', accelerator, '-cpu', cpu],
    ...['-object', backend, '-m', size, '-smp', String(machine.cpus)],
    ...['-nodefaults', '-display', 'none', '-serial', 'stdio', '-no-reboot'],
    ...iommuArguments(machine.arch, machine.iommu),
    ...diskArguments(machine),
    ...(machine.network ? ['-netdev', 'user,id=net0', '-device', 'e1000e,netdev=net0'] : []),
    ...(machine.testDevice ? ['-device', 'viommu-testdev'] : []),
    ...(machine.firmware === undefined ? [] : ['-bios', machine.firmware]),
    ...['-kernel', machine.kernel, '-initrd', machine.initramfs],
    // The kernel's self-test of its ciphers takes a second of every boot under emulation.
    ...['-append', [`console=${console}`, 'cryptomgr.notests', ...machine.append].join(' ')],
    ...machine.extra,
  ];
}

function iommuArguments(arch: Arch, iommu: GuestIommu): string[] {
  switch (iommu.kind) {
    case 'viommu':
      return ['-device', deviceOption(arch, iommu.socket, iommu.choice)];
    case 'intel-iommu':
      return ['-device', iommu.options === '' ? 'intel-iommu' : `intel-iommu,${iommu.options}`];
    case 'smmuv3': // an option of the machine
    case 'none':
      return [];
  }
}

function diskArguments({ nvme, virtioBlk }: QemuMachine): string[] {
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
