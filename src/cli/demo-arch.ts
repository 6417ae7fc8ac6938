/** What differs in `viommu demo` between the architectures. */
import type { Arch } from './arch.js';
import { CliError, EXIT } from './context.js';
import type { DeviceChoice } from './qemu-arguments.js';

/** The options of the demo's guest that depend on the architecture. */
interface ArchOptions {
  readonly arch?: Arch;
  readonly acpi?: boolean;
  readonly firmware?: string;
  readonly mode?: 'legacy' | 'scalable';
  readonly cachingMode?: boolean;
}

export interface DemoFlavour {
  readonly arch: Arch;
  /** The unit, for people. */
  readonly unit: string;
  /** How the guest uses or finds it, for the report. */
  readonly how: string;
  readonly choice: DeviceChoice;
  /** Words of the kernel's command line. */
  readonly words: readonly string[];
  /**
   * Lines of the driver that a person wants to see; the rest is in `--verbose` and `--keep-log`.
   */
  readonly driver: RegExp;
}

/** @throws {CliError} for options that do not go with the architecture. */
export function demoFlavour(options: ArchOptions): DemoFlavour {
  return options.arch === 'arm64' ? arm64(options) : amd64(options);
}

function amd64({ mode, cachingMode, acpi, firmware }: ArchOptions): DemoFlavour {
  if (acpi === true || firmware !== undefined) throw only('--acpi and --firmware', 'arm64');
  const scalable = mode === 'scalable';
  return {
    arch: 'amd64',
    unit: 'VT-d',
    how: `${mode ?? 'legacy'} mode`,
    choice: { scalableMode: scalable, cachingMode: cachingMode === true },
    words: [`intel_iommu=on,${scalable ? 'sm_on' : 'sm_off'}`],
    driver:
      /DMAR: (?:IOMMU enabled|Host address|dmar\d+|Intel\(R\)|Scalable|Enable|.*rror|.*ault)|invalidation policy/,
  };
}

function arm64({ mode, cachingMode, acpi, firmware }: ArchOptions): DemoFlavour {
  if (mode !== undefined || cachingMode === true) throw only('--mode and --caching-mode', 'amd64');
  const uefi = acpi === true || firmware !== undefined;
  return {
    arch: 'arm64',
    unit: 'SMMUv3',
    how: uefi ? 'UEFI and ACPI' : 'device tree',
    choice: {},
    words: [],
    driver: /arm-smmu-v3 |invalidation policy|Adding to iommu group/,
  };
}

function only(options: string, arch: Arch): CliError {
  return new CliError(`${options} go with --arch ${arch} only`, EXIT.USAGE);
}
