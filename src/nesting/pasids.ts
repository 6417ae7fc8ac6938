/**
 * Paravirtual PASIDs of a guest, out of the PASID space of the parent device that its mdev is a
 * part of. The host is asked, so every answer comes later, and the guest polls for it.
 */
import { PASID_ANSWER, type PasidSpace } from '../device/pasid-space.js';
import type { HostDevice, HostIommu } from '../host/port.js';
import type { HostOperations } from './host-operations.js';

const MOST_PASIDS = 2 ** 20;

export class HostPasids implements PasidSpace {
  readonly #host: HostIommu;
  readonly #operations: HostOperations;
  readonly #device: () => HostDevice | undefined;
  readonly #answered: (answer: number) => void;
  readonly #changed: (pasid: number, live: boolean) => void;
  readonly #elsewhere: (pasid: number) => boolean;
  /** What the guest has. */
  readonly live = new Set<number>();
  /** Answers before the last reset are void. */
  #generation = 0;
  /** What the question that is under way comes to when the device goes; undefined: none is. */
  #otherwise: number | undefined;

  /**
   * @param device the guest's mdev; undefined while it has none, and then there are no PASIDs
   * @param answered takes an answer for the model
   * @param changed hears of PASIDs that the guest has got or given back
   * @param elsewhere says that the guest has a PASID of this number that is not the host's
   */
  constructor(
    host: HostIommu,
    operations: HostOperations,
    device: () => HostDevice | undefined,
    answered: (answer: number) => void,
    changed: (pasid: number, live: boolean) => void = () => {},
    elsewhere: (pasid: number) => boolean = () => false,
  ) {
    this.#host = host;
    this.#operations = operations;
    this.#device = device;
    this.#answered = answered;
    this.#changed = changed;
    this.#elsewhere = elsewhere;
  }

  allocate(): number {
    const device = this.#device();
    if (device === undefined) return PASID_ANSWER.REFUSED;
    const generation = this.#generation;
    const done = this.#operations.begin(
      'PASID',
      device,
      -1,
      () => this.#answer(generation, PASID_ANSWER.REFUSED),
      ({ value }) => {
        if (this.live.has(value) || value <= 0 || value >= MOST_PASIDS) {
          // No host gives that.
          this.#answer(generation, PASID_ANSWER.REFUSED);
        } else if (generation !== this.#generation || this.#elsewhere(value)) {
          // The question is from before a reset, or the PASID is of no use.
          this.#giveBack(device, value);
          this.#answer(generation, PASID_ANSWER.REFUSED);
        } else {
          this.live.add(value);
          this.#changed(value, true);
          this.#answer(generation, value);
        }
      },
    );
    this.#otherwise = PASID_ANSWER.REFUSED;
    this.#host.allocatePasid(device, done);
    return PASID_ANSWER.LATER;
  }

  free(pasid: number): number {
    const device = this.#device();
    if (device === undefined || !this.live.delete(pasid)) return PASID_ANSWER.REFUSED;
    this.#changed(pasid, false);
    const generation = this.#generation;
    // Not clean yet is the host's matter: the guest has given it back either way.
    const over = (): void => this.#answer(generation, PASID_ANSWER.DONE);
    this.#otherwise = PASID_ANSWER.DONE;
    this.#host.freePasid(device, pasid, this.#operations.begin('PASID', device, pasid, over, over));
    return PASID_ANSWER.LATER;
  }

  releaseAll(): void {
    this.#generation++;
    this.#otherwise = undefined;
    const device = this.#device();
    for (const pasid of this.live) {
      this.#changed(pasid, false);
      if (device !== undefined) this.#giveBack(device, pasid);
    }
    this.live.clear();
  }

  /** The device goes: everything is given back, and what is under way ends. */
  leave(): void {
    const otherwise = this.#otherwise;
    this.releaseAll();
    if (otherwise !== undefined) this.#answered(otherwise);
  }

  #giveBack(device: HostDevice, pasid: number): void {
    // With a device that has gone, its PASIDs have.
    this.#host.freePasid(device, pasid, this.#operations.detaching(device, pasid, 'PASID'));
  }

  #answer(generation: number, answer: number): void {
    if (generation !== this.#generation) return;
    this.#otherwise = undefined;
    this.#answered(answer);
  }
}
