/**
 * Paravirtual PASIDs of a guest, out of the PASID space of the parent device that its mdev is a part of. The host is asked,
 * so every answer comes later; the guest polls meanwhile.
 */
import { PASID_ANSWER, type PasidSpace } from '../device/pasid-space.js';
import type { HostDevice, HostIommu } from '../host/port.js';
import type { HostOperations } from './operations.js';

export class HostPasids implements PasidSpace {
  /** What the guest has. */
  readonly live = new Set<number>();
  /** Answers before the last reset are void. */
  private generation = 0;

  /**
   * @param device the guest's mdev; undefined while it has none, and then there are no PASIDs
   * @param answered takes an answer for the model
   * @param changed hears of PASIDs that the guest has got or given back
   */
  constructor(
    private readonly host: HostIommu,
    private readonly operations: HostOperations,
    private readonly device: () => HostDevice | undefined,
    private readonly answered: (answer: number) => void,
    private readonly changed: (pasid: number, live: boolean) => void = () => {},
  ) {}

  allocate(): number {
    const device = this.device();
    if (device === undefined) return PASID_ANSWER.REFUSED;
    const { generation } = this;
    const done = this.operations.begin(
      'PASID',
      device,
      -1,
      () => this.answer(generation, PASID_ANSWER.REFUSED),
      ({ value }) => {
        if (generation !== this.generation) {
          // Asked for before a reset: nobody knows of it.
          this.giveBack(device, value);
          return;
        }
        this.live.add(value);
        this.changed(value, true);
        this.answered(value);
      },
    );
    this.host.allocatePasid(device, done);
    return PASID_ANSWER.LATER;
  }

  free(pasid: number): number {
    const device = this.device();
    if (device === undefined || !this.live.delete(pasid)) return PASID_ANSWER.REFUSED;
    this.changed(pasid, false);
    const { generation } = this;
    // Not clean yet is the host's matter: the guest has given it back either way.
    const over = (): void => this.answer(generation, PASID_ANSWER.DONE);
    this.host.freePasid(device, pasid, this.operations.begin('PASID', device, pasid, over, over));
    return PASID_ANSWER.LATER;
  }

  releaseAll(): void {
    this.generation++;
    const device = this.device();
    for (const pasid of this.live) {
      this.changed(pasid, false);
      if (device !== undefined) this.giveBack(device, pasid);
    }
    this.live.clear();
  }

  private giveBack(device: HostDevice, pasid: number): void {
    this.host.freePasid(device, pasid, this.operations.begin('PASID', device, pasid));
  }

  private answer(generation: number, answer: number): void {
    if (generation === this.generation) this.answered(answer);
  }
}
