import { PAGE_BYTES } from '../base/page.js';
import { hex64 } from '../base/u64.js';
import { CAP_REG, ECAP_REG } from '../spec/vtd/registers.js';
import {
  type DemoFault,
  type DemoSpace,
  type DemoStage,
  type DemoUnit,
  NESTED_OFFSET,
  RAM_BYTES,
  RID,
  TABLES,
} from './demo-unit.js';
import type { Rights } from './page-table.js';
import type { SimVm } from './vm.js';
import { type VtdDomain, VtdDriver } from './vtd-driver.js';
import { faultText } from './vtd-faults.js';

type Mode = 'legacy' | 'scalable';

const MSI = { address: 0xfee0_0000, data: 0x4021 } as const;

/** The demo of a VT-d in each mode, in turn. A mode that the unit lacks is skipped. */
export function* vtdDemos(vm: SimVm, modes: readonly Mode[], stage: DemoStage): Generator<DemoUnit> {
  for (const mode of modes) {
    vm.reset();
    const driver = new VtdDriver(vm, { mode, pages: TABLES, faultMsi: MSI });
    if (mode === 'legacy' || driver.capabilities.scalable) yield new VtdDemo(driver, mode);
    else stage.say('scalable mode: the unit does not have it (ECAP_REG.SMTS = 0)');
  }
}

class VtdDemo implements DemoUnit {
  readonly #driver: VtdDriver;
  readonly #mode: Mode;
  readonly faultNames = {};
  readonly reportsDetached = true;

  constructor(driver: VtdDriver, mode: Mode) {
    this.#driver = driver;
    this.#mode = mode;
  }

  get title(): string {
    const { version, cap, ecap } = this.#driver.capabilities;
    return `${this.#mode} mode: VER ${version} CAP ${hex64(cap[0], cap[1])} ECAP ${hex64(ecap[0], ecap[1])}`;
  }

  get submitted(): number {
    return this.#driver.queue?.submitted ?? 0;
  }

  start(): void {
    this.#driver.start();
  }

  stop(): void {
    this.#driver.stop();
  }

  spaces(): readonly DemoSpace[] {
    const driver = this.#driver;
    const { cap, ecap } = driver.capabilities;
    const levels = (CAP_REG.get.SAGAW(cap) & 4) !== 0 ? 4 : 3;
    const second = driver.createDomain('second', levels);
    if (this.#mode === 'legacy') return [new VtdSpace(driver, `second-stage, ${levels} levels`, second)];
    const found = [new VtdSpace(driver, 'second-stage, RID_PASID', second)];
    if (ECAP_REG.get.FSTS(ecap) === 1) {
      found.push(new VtdSpace(driver, 'first-stage, PASID 5', driver.createDomain('first'), 5));
    }
    if (ECAP_REG.get.NEST(ecap) === 1) {
      const parent = driver.createDomain('second', levels);
      parent.table?.map(NESTED_OFFSET, 0, RAM_BYTES, undefined, 21);
      const nested = driver.createNested(parent, 4, (gpa) => NESTED_OFFSET + BigInt(gpa));
      found.push(new VtdSpace(driver, 'nested, PASID 6', nested, 6));
    }
    return found;
  }

  /** Fault records name the page. */
  faultAddress(address: bigint): bigint {
    return address & ~0xfffn;
  }

  faults(): readonly DemoFault[] {
    return this.#driver.faults
      .drain()
      .map((record) => ({ ...record, name: record.text, text: faultText(record) }));
  }

  waitUntil(done: () => boolean, what: string): void {
    this.#driver.registers.waitUntil(done, what);
  }

  more(): void {}
}

class VtdSpace implements DemoSpace {
  readonly #driver: VtdDriver;
  readonly #domain: VtdDomain;
  readonly pageBytes = PAGE_BYTES;
  readonly base: number;
  readonly seed: number;

  /** `pasid` −1: requests without PASID. */
  constructor(
    driver: VtdDriver,
    readonly name: string,
    domain: VtdDomain,
    readonly pasid = -1,
  ) {
    this.#driver = driver;
    this.#domain = domain;
    this.base = domain.kind === 'nested' ? Number(NESTED_OFFSET) : 0;
    this.seed = domain.did * 64 + pasid + 1;
  }

  attach(): void {
    this.#driver.attach(RID, this.#domain, this.pasid >= 0 ? { pasid: this.pasid } : {});
  }

  detach(): void {
    this.#driver.detach(RID, this.#domain, this.pasid >= 0 ? this.pasid : undefined);
  }

  /** Under caching mode, one invalidation announces all of them. */
  map(input: bigint, outputs: readonly number[], rights?: Rights): void {
    const driver = this.#driver;
    const domain = this.#domain;
    const { pageBytes } = this;
    outputs.forEach((output, index) => {
      domain.table?.map(input + BigInt(index * pageBytes), output, pageBytes, rights);
    });
    if (!driver.capabilities.cachingMode) return;
    driver.invalidateRange(domain, input, outputs.length * pageBytes);
    driver.invalidate.sync();
  }

  unmap(input: bigint, bytes: number): void {
    this.#driver.unmap(this.#domain, input, bytes);
  }
}
