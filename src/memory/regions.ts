/** The memory table: regions by number and by address, without overlaps. */
import { CodedError } from '../base/errors.js';

/** End of the largest guest-physical address space. */
const MAX_ADDRESS = 2 ** 52;
/**
 * More regions than this are a defect of the peer. Searches are binary, so the limit may be high.
 */
const MAX_REGIONS = 4096;

export interface Region {
  readonly region: number;
  readonly gpa: number;
  readonly size: number;
  readonly readonly: boolean;
}

/**
 * Checks address and size, which do not depend on how the region is reached. Throws `BAD_REGION`.
 */
function checkRegion(region: Pick<Region, 'region' | 'gpa' | 'size'>): void {
  const { gpa, size } = region;
  const sound =
    Number.isSafeInteger(gpa) &&
    Number.isSafeInteger(size) &&
    gpa >= 0 &&
    size > 0 &&
    gpa % 8 === 0 &&
    size % 8 === 0 &&
    gpa + size <= MAX_ADDRESS;
  if (!sound) throw new CodedError('BAD_REGION', `region ${region.region}: ${size} bytes at address ${gpa}`);
}

export class RegionTable<R extends Region> {
  /** By rising address. */
  #regions: R[] = [];

  get count(): number {
    return this.#regions.length;
  }

  /**
   * Throws if the region cannot be added now: `BAD_REGION`, `REGION_EXISTS`, `REGION_OVERLAPS`,
   * `TOO_MANY_REGIONS`.
   */
  check(region: Pick<Region, 'region' | 'gpa' | 'size'>): void {
    checkRegion(region);
    if (this.has(region.region)) throw new CodedError('REGION_EXISTS', `region ${region.region}`);
    if (this.overlaps(region.gpa, region.size)) {
      throw new CodedError(
        'REGION_OVERLAPS',
        `region ${region.region}: ${region.size} bytes at ${region.gpa}`,
      );
    }
    if (this.#regions.length >= MAX_REGIONS) {
      throw new CodedError('TOO_MANY_REGIONS', `region ${region.region}: there are ${MAX_REGIONS}`);
    }
  }

  /** Adds a region that has passed {@link check}. */
  add(region: R): void {
    this.#regions.push(region);
    this.#regions.sort((a, b) => a.gpa - b.gpa);
  }

  remove(region: number): R | undefined {
    const index = this.#regions.findIndex((r) => r.region === region);
    return index < 0 ? undefined : this.#regions.splice(index, 1)[0];
  }

  removeAll(): R[] {
    const all = this.#regions;
    this.#regions = [];
    return all;
  }

  has(region: number): boolean {
    return this.#regions.some((r) => r.region === region);
  }

  /** The region that wholly holds [gpa, gpa + bytes). */
  find(gpa: number, bytes: number): R | undefined {
    const region = this.#lastAtOrBelow(gpa);
    return region !== undefined && gpa + bytes <= region.gpa + region.size ? region : undefined;
  }

  overlaps(gpa: number, size: number): boolean {
    const below = this.#lastAtOrBelow(gpa + size - 1);
    return below !== undefined && below.gpa + below.size > gpa;
  }

  #lastAtOrBelow(gpa: number): R | undefined {
    let low = 0;
    let high = this.#regions.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#regions[middle] as R).gpa <= gpa) low = middle + 1;
      else high = middle;
    }
    return low === 0 ? undefined : this.#regions[low - 1];
  }
}
