/**
 * The planner: which way a device's requests are translated, or which rule forbids it. Pure: the
 * same request has the same answer. The rules are those of the table that the project is about
 * (docs/assignment.md).
 */

import { RULES, type RuleCode } from './plan-rules.js';
import type { AssignmentRequest, GuestModel, Level } from './request.js';
import { nativeGuest } from './request.js';

/** Bypass: host mappings say where guest-physical addresses are. */
export type Choice = 'bypass' | 'shadow' | 'nest';

/**
 * What gives a guest its PASIDs when they come out of a space that other guests share: nothing,
 * VT-d's virtual command registers, or the same service in the SMMUv3's IMPLEMENTATION DEFINED
 * registers.
 */
type PvInterface = 'none' | 'virtual-commands' | 'registers';

/**
 * What nesting hands to the host: nothing; the guest's CD table as one pointer; the first level of
 * requests without PASID (RID_PASID, or the mdev's own PASID); the first level of each guest PASID.
 */
type Binding = 'none' | 'cd-table' | 'rid-pasid' | 'mdev-pasid' | 'pasid-entries';

/**
 * How the daemon learns of new mappings: not at all, CAP_REG.CM, configuration commands, trapped
 * stores to tables.
 */
type Announcement = 'none' | 'caching-mode' | 'commands' | 'trapped-stores';

export interface Strategy {
  readonly ok: true;
  readonly choice: Choice;
  /** The level that DMA_MAP fills. */
  readonly fills: Level;
  readonly pv: PvInterface;
  readonly binds: Binding;
  readonly announced: Announcement;
  /** Width of the PASIDs that the guest may be offered; 0: none. */
  readonly pasidBits: number;
  /** Page requests are passed to the guest. */
  readonly pageRequests: boolean;
  readonly reason: string;
  /** Shadow: what keeps hardware from nesting; undefined when it could. */
  readonly notNested: RuleCode | undefined;
}

interface Refusal {
  readonly ok: false;
  readonly code: RuleCode;
  readonly rule: string;
}

export type Plan = Strategy | Refusal;

/**
 * Chooses a strategy, or refuses. In mode `auto` hardware nests where it can, because then nothing
 * has to follow the guest.
 */
export function plan(request: AssignmentRequest): Plan {
  const wrong = impossible(request);
  if (wrong !== undefined) return refuse(wrong);
  if (request.guest === 'none') {
    return request.mode === 'auto' ? bypass(request) : refuse('NO_GUEST_STAGE_1');
  }
  if (request.mode === 'shadow') return shadow(request);
  const nested = nest(request);
  if (nested.ok || request.mode === 'nest') return nested;
  const shadowed = shadow(request);
  // Where the table says nest and nothing else, what keeps it from nesting is the reason.
  return !shadowed.ok && shadowed.code === 'PASID_TABLE_IS_THE_GUESTS' ? nested : shadowed;
}

/** What no mode helps against. */
function impossible({ device, guest, pasids, host }: AssignmentRequest): RuleCode | undefined {
  if (pasids && guest === 'none') return 'PASIDS_NEED_VIOMMU';
  if (pasids && guest === 'vtd-legacy') return 'PASIDS_NEED_SCALABLE_MODE';
  if (host.pasidBits > 0) return undefined;
  if (device === 'mdev') return 'MDEV_NEEDS_HOST_PASIDS';
  return pasids ? 'PASIDS_NEED_HOST_PASIDS' : undefined;
}

function bypass(request: AssignmentRequest): Plan {
  const fills = levelFilled(request);
  if (typeof fills !== 'string') return refuse(fills.code);
  const whose = request.device === 'mdev' ? `${levelName(fills)} of the mdev's PASID` : levelName(fills);
  return {
    ...NOTHING,
    choice: 'bypass',
    fills,
    reason: `DMA_MAP puts guest memory into the ${whose}`,
  };
}

function shadow(request: AssignmentRequest): Plan {
  const { device, guest, pasids, host } = request;
  if (device === 'vf' && pasids) return refuse('PASID_TABLE_IS_THE_GUESTS');
  if (device === 'mdev' && host.kind === 'vtd3' && nestForbidden(request) === undefined) {
    return refuse('FIRST_LEVEL_IS_THE_GUESTS');
  }
  const fills = levelFilled(request);
  if (typeof fills !== 'string') return refuse(fills.code);
  if (pasids && host.container !== 'iommufd') return refuse('ONE_SPACE_PER_CONTAINER');
  return {
    ...NOTHING,
    choice: 'shadow',
    fills,
    pv: pasids ? pvOf(guest) : 'none',
    announced: guest === 'smmuv3' ? 'trapped-stores' : 'caching-mode',
    pasidBits: pasids ? host.pasidBits : 0,
    reason: shadowReason(request, fills),
    notNested: nestForbidden(request),
  };
}

function nest(request: AssignmentRequest): Plan {
  const { device, guest, pasids, host } = request;
  const forbidden = nestForbidden(request);
  if (forbidden !== undefined) return refuse(forbidden);
  return {
    ok: true,
    choice: 'nest',
    fills: 'second',
    pv: device === 'mdev' && pasids ? pvOf(guest) : 'none',
    binds: bindingOf(request),
    announced: guest === 'smmuv3' ? 'commands' : 'caching-mode',
    pasidBits: pasids ? host.pasidBits : 0,
    pageRequests: host.pageRequests,
    reason: nestReason(request),
    notNested: undefined,
  };
}

const NOTHING = {
  ok: true,
  pv: 'none',
  binds: 'none',
  announced: 'none',
  pasidBits: 0,
  pageRequests: false,
  notNested: undefined,
} as const;

function refuse(code: RuleCode): Refusal {
  return { ok: false, code, rule: RULES[code] };
}

/**
 * The first rule that keeps this device from nesting: how the hardware is built, then the guest,
 * then what is missing.
 */
function nestForbidden({ device, guest, pasids, host }: AssignmentRequest): RuleCode | undefined {
  if (guest === 'none') return 'NO_GUEST_STAGE_1';
  if (device === 'mdev' && host.kind === 'smmuv3') return 'ONE_STAGE_2_PER_VF';
  if (device === 'mdev' && host.kind === 'vtd2') return 'NESTE_IS_PER_CONTEXT';
  if (host.kind === 'vtd2' && !pasids) return 'VTD2_NESTS_ONLY_WITH_PASID';
  if (guest === 'vtd-legacy') return 'LEGACY_HAS_NO_FIRST_LEVEL';
  if (guest !== nativeGuest(host.kind)) return 'FORMATS_DIFFER';
  if (!host.nesting || !host.stage1 || !host.stage2) return 'HOST_DOES_NOT_NEST';
  return host.container === 'type1' ? 'CONTAINER_FILLS_FIRST_LEVEL' : undefined;
}

/**
 * The level that holds this device's host mappings while the guest's tables are not used by
 * hardware, or why there is none.
 */
function levelFilled({ device, host }: AssignmentRequest): Level | { readonly code: RuleCode } {
  const nesting = host.container === 'type1-nesting';
  if (device === 'mdev' && host.kind !== 'vtd3') {
    // A context descriptor or a vt-d2 PASID entry holds a first level and nothing else.
    if (nesting) return { code: 'NESTING_CONTAINER_FILLS_SECOND_LEVEL' };
    return host.stage1 ? 'first' : { code: 'NO_LEVEL_FOR_THIS_DEVICE' };
  }
  const second = nesting || !host.stage1 || (device === 'vf' && host.kind === 'vtd2');
  if (!second) return 'first';
  return host.stage2 ? 'second' : { code: 'NO_LEVEL_FOR_THIS_DEVICE' };
}

function bindingOf({ device, pasids, host }: AssignmentRequest): Binding {
  if (host.kind === 'smmuv3') return 'cd-table';
  if (pasids) return 'pasid-entries';
  return device === 'mdev' ? 'mdev-pasid' : 'rid-pasid';
}

function pvOf(guest: GuestModel): PvInterface {
  return guest === 'smmuv3' ? 'registers' : 'virtual-commands';
}

function levelName(level: Level): string {
  return `${level} level`;
}

function shadowReason({ device, pasids, host }: AssignmentRequest, fills: Level): string {
  const merged = "the guest's stage 1 and guest memory are merged";
  if (device === 'vf') return `${merged} into host mappings in the ${levelName(fills)}`;
  const where =
    host.kind === 'smmuv3'
      ? "the host's CD of the mdev's PASID"
      : `the ${levelName(fills)} of the mdev's PASID`;
  if (!pasids) return `${merged} into ${where}`;
  const each =
    host.kind === 'smmuv3' ? 'one CD for each guest PASID' : 'one first level for each guest PASID';
  return `${merged}, ${each}; the VF has a single PASID space, so PASIDs are allocated paravirtually`;
}

function nestReason({ device, pasids, host }: AssignmentRequest): string {
  if (host.kind === 'smmuv3') {
    return pasids
      ? "the guest owns the whole PASID (CD) table, which the host's stage 2 translates; it is handed over as one pointer"
      : "SMMUv3 nests RID-granular: the guest's CD on top of the host's stage 2";
  }
  if (host.kind === 'vtd2') {
    return "the context entry nests all PASIDs; requests without PASID go through the second level alone, so the guest's must be pass-through";
  }
  if (device === 'vf') {
    return pasids
      ? 'the host owns the PASID table; each guest first-level table is bound to a PASID, requests without one to RID_PASID'
      : "the guest's first level is bound to RID_PASID, on top of the host's second level";
  }
  return pasids
    ? 'each PASID has a second level of its own; guest PASIDs come through the virtual command registers, because the VF has a single PASID space'
    : "the mdev's PASID has a second level of its own, below the guest's first level";
}
