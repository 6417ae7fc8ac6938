/**
 * Shadows that live in address spaces of a host port: one space for each device, or PASID of one, whose guest tables are
 * shadowed. An mdev is shadowed into its own PASID, and each guest PASID into that PASID.
 */
import type { Iommu } from '../device/iommu.js';
import type { HostErrorName } from '../host/errors.js';
import { type HostDevice, type HostIommu, type HostOutcome, MapChanges, RIGHTS } from '../host/port.js';
import { OPERATION_WORDS } from './operations.js';
import type { Batch } from './outbox.js';
import { pageOf } from './pages.js';
import type { Shadow } from './shadow.js';

/** Spaces of the port that are shadows; below are others'. */
const FIRST_SPACE = 1000;

/** Error numbers of Linux, as {@link Shadow.answered} wants them. */
const ERRNO: Partial<Record<HostErrorName, number>> = {
  PIN_LIMIT: 12,
  NO_TABLE_MEMORY: 12,
  OVERLAP: 17,
  MAPPING_LIMIT: 28,
};
const EINVAL = 22;

interface HostSpace {
  readonly device: HostDevice;
  readonly pasid: number;
}

export class HostSpaces {
  /** Operations under way beside the shadow's batches: spaces that come and go. */
  pending = 0;
  /** What the host refused of those. */
  readonly refused: HostOutcome[] = [];
  private readonly spaces = new Map<number, HostSpace>();
  private readonly changes = new MapChanges();
  private next = FIRST_SPACE;

  constructor(
    private readonly host: HostIommu,
    private readonly shadow: Shadow,
  ) {}

  /** A device that the guest knows as `rid`, or one PASID of it, is shadowed from now on. */
  attach(device: HostDevice, rid: number, model: Pick<Iommu, 'affected' | 'tables'>, pasid = -1): void {
    const space = this.next++;
    this.spaces.set(space, { device, pasid });
    this.host.createSpace(space, device, false, this.begin());
    this.host.attach(device, pasid, space, this.begin());
    this.shadow.attach(space, rid, model, pasid);
    for (const { first, last } of this.host.limits(device).ranges) this.shadow.listen(space, first, last);
  }

  /** Nothing of it is shadowed any more; nothing goes through what was. */
  detach(device: HostDevice, pasid = -1): void {
    for (const [space, found] of this.spaces) {
      if (found.device !== device || found.pasid !== pasid) continue;
      this.shadow.detach(space);
      this.spaces.delete(space);
      this.host.detach(device, pasid, this.begin());
      this.host.destroySpace(space, this.begin());
    }
  }

  /** Sends the batches that the shadow has. */
  pump(): void {
    for (let batch = this.shadow.take(); batch !== undefined; batch = this.shadow.take()) {
      this.send(batch, 0, []);
    }
  }

  /** Sends a batch from an operation on. The port stops at a failure; the rest of a batch goes on behind it. */
  private send(batch: Batch, from: number, failures: number[]): void {
    const { changes } = this;
    changes.clear();
    for (let index = from; index < batch.count; index++) this.add(batch.words, index * OPERATION_WORDS);
    this.host.change(batch.space.device, changes, ({ code, done }) => {
      if (code === 'OK' || from + done >= batch.count) {
        this.shadow.answered(batch.id, failures);
        return;
      }
      failures.push(from + done, ERRNO[code as HostErrorName] ?? EINVAL);
      this.send(batch, from + done + 1, failures);
    });
  }

  private add(words: Uint32Array, at: number): void {
    const page = pageOf(words[at + 1], words[at + 2]);
    const pages = pageOf(words[at + 3], words[at + 4]) - page + 1;
    const access = words[at] & (RIGHTS.READ | RIGHTS.WRITE);
    if (access === 0) this.changes.unmap(page, pages);
    else this.changes.map(page, pageOf(words[at + 5], words[at + 6]), pages, access);
  }

  private begin(): (outcome: HostOutcome) => void {
    this.pending++;
    return (outcome) => {
      this.pending--;
      if (outcome.code !== 'OK' && outcome.code !== 'NOT_ATTACHED') this.refused.push(outcome);
    };
  }
}
