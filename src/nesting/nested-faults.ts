/**
 * Faults of the host's hardware, made the guest's own: as its IOMMU would have recorded them, with
 * its numbers.
 */
import {
  ACCESS,
  emptyRequest,
  type Iommu,
  type TranslateRequest,
  type TranslateResult,
} from '../device/iommu.js';
import type { HostFault, PasidRefusal } from '../host/port.js';
import { F_TRANSLATION } from '../spec/smmuv3/events.js';
import { FAULT } from '../spec/vtd/faults.js';
import { FRCD_REG } from '../spec/vtd/registers.js';

/**
 * VT-d reasons that name what a guest has set up itself, whatever is below it. All others, and
 * those where both levels have a say, are asked of the guest's own unit again.
 */
const GUESTS_OWN = new Set<number>([
  FAULT.SFS_2,
  FAULT.SFS_3,
  FAULT.SGN_1,
  FAULT.SGN_2,
  FAULT.SPD_2,
  FAULT.SPT_2,
  FAULT.SCT_6,
  FAULT.SCT_7,
]);

type FaultedModel = Pick<Iommu, 'nested' | 'translate'>;

export class NestedFaults {
  readonly #result: TranslateResult;
  /** Records that were the guest's own, and those that became no fault of the guest. */
  forwarded = 0;
  withheld = 0;
  readonly #request = emptyRequest();

  constructor(result: TranslateResult) {
    this.#result = result;
  }

  /** A fault of a device that the guest knows as `rid`. */
  fault(fault: HostFault, rid: number, model: FaultedModel): void {
    if (this.#isGuests(fault)) {
      this.forwarded++;
      model.nested?.fault({ rid, pasid: fault.pasid, record: fault.record });
      return;
    }
    // The host's stage 2 refused. What that means to the guest its own unit knows: a table outside
    // of memory is a fetch error there; an output outside of memory is none at all.
    this.withheld++;
    askAgain(fault, rid, model, this.#request, this.#result);
  }

  refusedPasid({ pasid, access, lo, hi }: PasidRefusal, rid: number, model: FaultedModel): void {
    this.forwarded++;
    model.nested?.noSuchPasid(rid, pasid, access, lo, hi);
  }

  #isGuests({ format, record }: HostFault): boolean {
    if (format === 'smmuv3') return F_TRANSLATION.get.S2(record) === 0;
    return GUESTS_OWN.has(FRCD_REG.get.FR(record));
  }
}

/** Makes the guest's own unit translate, and record, what hardware refused. */
export function askAgain(
  fault: HostFault,
  rid: number,
  model: Pick<Iommu, 'translate'>,
  request: TranslateRequest,
  result: TranslateResult,
): void {
  const { record } = fault;
  const smmu = fault.format === 'smmuv3';
  request.rid = rid;
  request.pasid = fault.pasid;
  request.access = accessOf(fault);
  request.lo = smmu ? record[4] : record[0];
  request.hi = smmu ? record[5] : record[1];
  model.translate(request, result);
}

function accessOf({ format, record }: HostFault): number {
  if (format === 'smmuv3') return F_TRANSLATION.get.RnW(record) === 1 ? ACCESS.READ : ACCESS.WRITE;
  if (FRCD_REG.get.T1(record) === 0) return ACCESS.WRITE;
  return FRCD_REG.get.T2(record) === 1 ? ACCESS.READ | ACCESS.WRITE : ACCESS.READ;
}
