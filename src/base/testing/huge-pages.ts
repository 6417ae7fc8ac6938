/** Huge pages of 2 MiB for a test. The kernel's setting is restored afterwards. */
import { readFileSync, writeFileSync } from 'node:fs';

export const HUGE_PAGE = 2 ** 21;
const DIRECTORY = '/sys/kernel/mm/hugepages/hugepages-2048kB';

function count(name: 'nr_hugepages' | 'free_hugepages' | 'resv_hugepages'): number {
  return Number(readFileSync(`${DIRECTORY}/${name}`, 'utf8'));
}

export class HugePages {
  readonly #before: number;
  /** Also where a test run ends without an {@link release}. */
  readonly #atExit = (): void => this.release();

  private constructor(before: number) {
    this.#before = before;
    process.once('exit', this.#atExit);
  }

  /**
   * Has the kernel reserve `wanted` more, until {@link release}. Returns the reason if it cannot:
   * only root may ask, and memory may be fragmented.
   */
  static reserve(wanted: number): HugePages | string {
    let before: number;
    try {
      before = count('nr_hugepages');
      writeFileSync(`${DIRECTORY}/nr_hugepages`, String(before + wanted));
    } catch (error) {
      return `no huge pages for this test: ${(error as Error).message}`;
    }
    const pages = new HugePages(before);
    const free = HugePages.free;
    if (free >= wanted) return pages;
    pages.release();
    return `no huge pages for this test: the kernel has ${free} of ${wanted} that are free`;
  }

  /** Huge pages that are neither used nor reserved. */
  static get free(): number {
    return count('free_hugepages') - count('resv_hugepages');
  }

  release(): void {
    process.off('exit', this.#atExit);
    writeFileSync(`${DIRECTORY}/nr_hugepages`, String(this.#before));
  }
}

/**
 * As {@link HugePages.reserve}, for `beforeAll`. Prints the reason if there are none, because tests
 * are skipped then.
 */
export function hugePagesOrWhy(wanted: number): HugePages | string {
  const pages = HugePages.reserve(wanted);
  if (typeof pages === 'string') console.log(pages);
  return pages;
}
