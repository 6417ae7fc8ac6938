/** From the outcome of a walk to the fault reason. VT-d §7.1.3 (Table 30). */
import { FAULT } from '../../spec/vtd/faults.js';
import { WALK, type WalkResult } from '../../walk/types.js';
import { ACCESS } from '../iommu.js';
import { type Domain, KIND } from './domain.js';

/** Reason of a request that its (cached or walked) permissions do not allow. */
export function permissionReason(scalable: boolean, denied: number, permissions: number): number {
  const write = (denied & ACCESS.WRITE) !== 0;
  if (!scalable) return write ? FAULT.LGN_2 : FAULT.LGN_3;
  // SSS.2 covers "neither right is granted by all levels together".
  if ((permissions & (ACCESS.READ | ACCESS.WRITE)) === 0) return FAULT.SSS_2;
  return write ? FAULT.SGN_6 : FAULT.SGN_7;
}

/**
 * Reason of a walk that did not succeed. `access` is what the request asked for,
 * `stage2Permissions` what the last second-stage walk of a nested translation allowed.
 */
export function walkReason(
  domain: Domain,
  walked: WalkResult,
  access: number,
  stage2Permissions: number,
): number {
  if (domain.kind === KIND.SECOND) {
    return domain.scalable ? scalableSecond(walked, domain) : legacySecond(walked, domain, access);
  }
  if (walked.outcome === WALK.STAGE2) return nestedOutput(walked, domain, stage2Permissions);
  if (walked.outcome === WALK.STAGE2_ON_FETCH) return nestedFetch(walked, domain);
  return firstStage(walked, domain);
}

function legacySecond(walked: WalkResult, domain: Domain, access: number): number {
  switch (walked.outcome) {
    case WALK.ADDRESS_SIZE:
      return FAULT.LGN_1;
    case WALK.NOT_PRESENT:
      return (access & ACCESS.WRITE) !== 0 ? FAULT.LGN_2 : FAULT.LGN_3;
    case WALK.PERMISSION:
      return permissionReason(false, walked.denied, walked.permissions);
    case WALK.FETCH:
      // LCT.4.3: the table that the context-entry itself points to.
      return walked.level === domain.secondFormat.levels ? FAULT.LCT_4 : FAULT.LSS_1;
    default:
      return FAULT.LSS_2;
  }
}

function scalableSecond(walked: WalkResult, domain: Domain): number {
  switch (walked.outcome) {
    case WALK.ADDRESS_SIZE:
      return FAULT.SGN_5;
    case WALK.PERMISSION:
      return permissionReason(true, walked.denied, walked.permissions);
    default:
      return secondStageTable(walked.outcome, walked.level, domain);
  }
}

/** What went wrong in second-stage tables, alone or below a first stage. */
function secondStageTable(outcome: number, level: number, domain: Domain): number {
  switch (outcome) {
    case WALK.NOT_PRESENT:
      return FAULT.SSS_2;
    case WALK.FETCH:
      return level === domain.secondFormat.levels ? FAULT.SSS_4 : FAULT.SSS_1;
    case WALK.UPDATE:
      return domain.snooped ? FAULT.SSS_6 : FAULT.SSS_5;
    default:
      return FAULT.SSS_3;
  }
}

function firstStage(walked: WalkResult, domain: Domain): number {
  switch (walked.outcome) {
    case WALK.ADDRESS_SIZE:
      return FAULT.SGN_1;
    case WALK.NOT_PRESENT:
      return FAULT.SFS_2;
    case WALK.FETCH:
      return walked.level === domain.firstFormat.levels ? FAULT.SFS_4 : FAULT.SFS_1;
    case WALK.PERMISSION:
      if ((walked.denied & ACCESS.PRIVILEGED) !== 0 || (walked.permissions & ACCESS.READ) === 0) {
        return FAULT.SGN_2;
      }
      return (walked.denied & ACCESS.WRITE) !== 0 ? FAULT.SGN_6 : FAULT.SGN_7;
    case WALK.UPDATE:
      return domain.snooped ? FAULT.SFS_10 : FAULT.SFS_9;
    default:
      return FAULT.SFS_3;
  }
}

/** The second stage refused a first-stage entry: its fetch, or the update of its flags. */
function nestedFetch(walked: WalkResult, domain: Domain): number {
  switch (walked.stage2) {
    case WALK.ADDRESS_SIZE:
      return FAULT.SFS_5;
    case WALK.PERMISSION:
      if ((walked.stage2Access & ACCESS.WRITE) !== 0) return FAULT.SFS_8;
      return walked.level === domain.firstFormat.levels ? FAULT.SFS_6 : FAULT.SFS_7;
    default:
      return secondStageTable(walked.stage2, walked.stage2Level, domain);
  }
}

/** The second stage refused the address that the first stage gave. */
function nestedOutput(walked: WalkResult, domain: Domain, permissions: number): number {
  switch (walked.stage2) {
    case WALK.ADDRESS_SIZE:
      return FAULT.SFS_5;
    case WALK.PERMISSION:
      return permissionReason(true, walked.stage2Access & ~permissions, permissions);
    default:
      return secondStageTable(walked.stage2, walked.stage2Level, domain);
  }
}
