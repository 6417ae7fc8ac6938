/**
 * The words of the table (docs/assignment.md): what is assigned, what the guest sees, what the host
 * can do. Levels and stages are the same thing: first level = stage 1, second level = stage 2.
 */

/** A whole PCI function (RID-granular), or a PASID-granular partition of one. */
export const DEVICE_KINDS = ['vf', 'mdev'] as const;
export type DeviceKind = (typeof DEVICE_KINDS)[number];

/** The IOMMU that the guest sees, and how it uses it. */
export const GUEST_MODELS = ['none', 'smmuv3', 'vtd-legacy', 'vtd-scalable'] as const;
export type GuestModel = (typeof GUEST_MODELS)[number];

/** How the guest's stage 1 takes effect. `auto` lets the planner choose. */
export const MODES = ['auto', 'shadow', 'nest'] as const;
export type Mode = (typeof MODES)[number];

export const HOST_KINDS = ['smmuv3', 'vtd2', 'vtd3'] as const;
export type HostKind = (typeof HOST_KINDS)[number];

/**
 * What holds the host's mappings: an ordinary VFIO type1v2 container, a nesting container
 * (VFIO_TYPE1_NESTING_IOMMU), or iommufd objects.
 */
export const CONTAINERS = ['type1', 'type1-nesting', 'iommufd'] as const;
export type Container = (typeof CONTAINERS)[number];

export type Level = 'first' | 'second';

/** What the IOMMU in front of a device, the device and the host's kernel can do together. */
export interface HostCapabilities {
  readonly kind: HostKind;
  readonly stage1: boolean;
  readonly stage2: boolean;
  /** Stage 1 of a guest on top of a stage 2 of the host. */
  readonly nesting: boolean;
  /** Width of PASIDs; 0: none. At most 20. */
  readonly pasidBits: number;
  /** Page requests of the device reach the manager of its tables. */
  readonly pageRequests: boolean;
  readonly container: Container;
}

/** What is to be planned. */
export interface AssignmentRequest {
  readonly device: DeviceKind;
  readonly guest: GuestModel;
  /** The guest uses PASIDs (SubstreamIDs) on this device. */
  readonly pasids: boolean;
  readonly mode: Mode;
  readonly host: HostCapabilities;
}

/** A host of one kind that can do all that its kind ever does. */
export function fullHost(kind: HostKind, container: Container = 'iommufd'): HostCapabilities {
  return { kind, stage1: true, stage2: true, nesting: true, pasidBits: 20, pageRequests: true, container };
}

/** The guest model whose stage 1 a host's hardware can walk. */
export function nativeGuest(kind: HostKind): GuestModel {
  return kind === 'smmuv3' ? 'smmuv3' : 'vtd-scalable';
}

/** Names for people. */
export const DEVICE_NAMES: Readonly<Record<DeviceKind, string>> = { vf: 'VF', mdev: 'mdev' };
export const HOST_NAMES: Readonly<Record<HostKind, string>> = {
  smmuv3: 'SMMUv3',
  vtd2: 'vt-d2',
  vtd3: 'vt-d3',
};
export const GUEST_NAMES: Readonly<Record<GuestModel, string>> = {
  none: 'no vIOMMU',
  smmuv3: 'SMMUv3',
  'vtd-legacy': 'VT-d in legacy mode',
  'vtd-scalable': 'VT-d in scalable mode',
};
export const CONTAINER_NAMES: Readonly<Record<Container, string>> = {
  type1: 'an ordinary type1v2 container',
  'type1-nesting': 'a nesting container',
  iommufd: 'iommufd',
};
