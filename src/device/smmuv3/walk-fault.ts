/** Events of walks, by their outcome. IHI 0070 §7.3.12 to §7.3.16. */
import { EVENT } from '../../spec/smmuv3/events.js';
import { WALK } from '../../walk/types.js';
import { ACCESS } from '../iommu.js';
import type { Fault } from './fault.js';

/** Event of a walk outcome within one stage. */
export function walkEvent(outcome: number): number {
  switch (outcome) {
    case WALK.FETCH:
    case WALK.UPDATE:
      return EVENT.F_WALK_EABT;
    case WALK.OUTPUT_SIZE:
      return EVENT.F_ADDR_SIZE;
    case WALK.ACCESS_FLAG:
      return EVENT.F_ACCESS;
    case WALK.PERMISSION:
      return EVENT.F_PERMISSION;
    default:
      return EVENT.F_TRANSLATION;
  }
}

/**
 * A fault of stage 2: class and intermediate address are the caller's. An external abort on a walk
 * of its own tables is always recorded and never stalls. `access`: what stage 2 was asked for;
 * `recorded`, `stalls`: STE.S2R and S2S.
 */
export function stage2Fault(
  fault: Fault,
  outcome: number,
  entryAddress: number,
  access: number,
  recorded: boolean,
  stalls: boolean,
): number {
  const event = walkEvent(outcome);
  fault.s2 = true;
  fault.tableRead = (access & ACCESS.WRITE) === 0;
  if (event === EVENT.F_WALK_EABT) return fault.fetch(event, entryAddress);
  fault.configured(recorded, stalls);
  return fault.raise(event);
}
