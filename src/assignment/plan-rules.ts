/**
 * Why a combination is refused: one rule each, in the table's own terms. What would work instead is
 * not written here: the planner finds it by planning it (remedies.ts).
 */

/** Every rule by its code. Codes are printed, stand in JSON, and are never renamed. */
export const RULES = {
  NO_GUEST_STAGE_1:
    'without a vIOMMU the guest has no stage 1, so there is nothing to shadow and nothing to nest',
  PASIDS_NEED_VIOMMU: 'a guest has PASIDs only where a vIOMMU offers them',
  PASIDS_NEED_SCALABLE_MODE: 'VT-d in legacy mode has no PASIDs',
  PASIDS_NEED_HOST_PASIDS: 'the host has no PASIDs that the guest could use on this device',
  MDEV_NEEDS_HOST_PASIDS: 'an mdev is a PASID of its VF, and this host has no PASIDs',
  VTD2_NESTS_ONLY_WITH_PASID:
    'vt-d2 does not nest without PASID: requests without PASID go through the second level alone',
  NESTE_IS_PER_CONTEXT:
    'vt-d2: nesting is a bit of the context entry, for all PASIDs of the VF or for none, with one second level for all; mdevs of different guests cannot share it',
  ONE_STAGE_2_PER_VF:
    'SMMUv3: the VF has a single set of stage-2 tables, which mdevs of different guests would have to share',
  LEGACY_HAS_NO_FIRST_LEVEL:
    "hardware nests the guest's first-level tables, and VT-d in legacy mode has second-level tables only",
  FORMATS_DIFFER: "hardware that nests walks the guest's own tables, so it must be of the guest's kind",
  HOST_DOES_NOT_NEST: "the host's IOMMU cannot put a guest's first level on top of a second level",
  CONTAINER_FILLS_FIRST_LEVEL:
    "DMA_MAP on an ordinary type1v2 container fills the first level, which is the guest's where hardware nests",
  NESTING_CONTAINER_FILLS_SECOND_LEVEL:
    'DMA_MAP on a nesting container fills the second level, of which the VF has one set for all its mdevs',
  PASID_TABLE_IS_THE_GUESTS:
    "a VF with guest PASIDs is only nested: its first levels are those of the guest's processes, which do not announce changes",
  FIRST_LEVEL_IS_THE_GUESTS:
    "vt-d3 has one second level per PASID, so an mdev's first level is the guest's own and there is nothing to shadow",
  ONE_SPACE_PER_CONTAINER:
    'a type1 container is one address space, and each guest PASID that is shadowed needs one of its own',
  NO_LEVEL_FOR_THIS_DEVICE:
    "the host's IOMMU lacks the level of translation that this device's requests go through",
} as const;

export type RuleCode = keyof typeof RULES;
