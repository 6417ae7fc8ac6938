/**
 * What a host refuses: one table of name and meaning. A host operation never throws at its caller;
 * its completion carries one of these. Inside an implementation they travel as {@link HostError}.
 */
export const HOST_ERRORS = {
  NO_SUCH_DEVICE: 'no assigned device has this number',
  NO_SUCH_SPACE: 'no address space has this number',
  SPACE_EXISTS: 'an address space has this number already',
  IN_USE: 'something is still attached to the address space',
  NOT_ATTACHED: 'nothing is attached there',
  BAD_RANGE: 'a range of no pages, or beyond the end of the address space',
  IOVA_RANGE: 'the address is outside of what the IOMMU translates for devices',
  OVERLAP: 'part of the range is mapped already',
  PARTIAL_UNMAP: 'the range would cut a mapping in two',
  NOT_MEMORY: 'the address is no memory of the guest',
  PIN_LIMIT: 'no more memory may be pinned',
  MAPPING_LIMIT: 'no more mappings fit into the container',
  NO_TABLE_MEMORY: 'no memory is left for tables',
  NO_PLACE: "the IOMMU's structures have no place for such tables there",
  FIELD_IN_USE: 'the field that would name the tables names those of another attachment',
  NOT_SUPPORTED: 'this kind of host or container cannot do that',
  BAD_TABLE: 'the description of guest tables is not one that the IOMMU takes',
  BAD_INVALIDATION: 'not an invalidation, or not one that this guest may ask for',
  NO_PASID: 'no PASID is left for this guest',
  NOT_YOUR_PASID: 'the PASID is not one of this device, or not of this guest',
  FAILED: 'the operation failed',
} as const;

export type HostErrorName = keyof typeof HOST_ERRORS;

export class HostError extends Error {
  constructor(
    readonly code: HostErrorName,
    detail: string,
  ) {
    super(`${code}: ${detail}`);
    this.name = 'HostError';
  }
}
