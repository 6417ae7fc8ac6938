import { PAGE_BYTES } from '../base/page.js';
import { PRI_RESP } from '../spec/smmuv3/commands.js';
import { AtsDevice } from './ats-device.js';
import {
  BUFFERS,
  type DemoFault,
  type DemoSpace,
  type DemoStage,
  type DemoUnit,
  IOVA,
  NESTED_OFFSET,
  RAM_BYTES,
  RID,
  STRAY,
  TABLES,
} from './demo-unit.js';
import type { Rights } from './page-table.js';
import type { SmmuDomain } from './smmu-domain.js';
import { SmmuDriver } from './smmu-driver.js';
import { eventText } from './smmu-output.js';
import { StallingDevice } from './stalling-device.js';
import type { SimVm } from './vm.js';

const MESSAGES = { address: 0x0808_0040, data: 0x60 } as const;

/**
 * The demo of an SMMUv3: DMA through each kind of address space, then stalls, ATS and page requests
 * if it has them.
 */
export class SmmuDemo implements DemoUnit {
  readonly #vm: SimVm;
  readonly faultNames = { unmapped: 'F_TRANSLATION', readOnly: 'F_PERMISSION' };
  readonly reportsDetached = false;
  readonly #driver: SmmuDriver;

  constructor(vm: SimVm) {
    this.#vm = vm;
    this.#driver = new SmmuDriver(vm, { pages: TABLES, sync: 'message', messages: MESSAGES });
  }

  get title(): string {
    const { version, idr0, idr1, idr5 } = this.#driver.capabilities;
    const words = [idr0, idr1, idr5].map((word) => `0x${word[0].toString(16).padStart(8, '0')}`);
    return `${version}: IDR0 ${words[0]} IDR1 ${words[1]} IDR5 ${words[2]}`;
  }

  get submitted(): number {
    return this.#driver.queue.submitted;
  }

  start(): void {
    this.#driver.start();
  }

  stop(): void {
    this.#driver.stop();
  }

  spaces(): readonly DemoSpace[] {
    const driver = this.#driver;
    const { stage1, stage2, ssidBits, granules } = driver.capabilities;
    const found: SmmuSpace[] = [];
    for (const granule of stage1 ? granules : []) {
      const name = `stage 1, ${2 ** (granule - 10)} KiB granule`;
      found.push(new SmmuSpace(driver, name, driver.createDomain('first', { granule })));
    }
    if (stage2) found.push(new SmmuSpace(driver, 'stage 2', driver.createDomain('second')));
    if (stage1 && stage2) {
      const parent = driver.createDomain('second', { inputBits: 40 });
      driver.map(parent, NESTED_OFFSET, 0, RAM_BYTES, undefined, parent.granule);
      const domain = driver.createNested(parent, {}, (gpa) => NESTED_OFFSET + BigInt(gpa));
      found.push(new SmmuSpace(driver, 'both stages', domain));
    }
    if (stage1 && ssidBits > 0) {
      found.push(new SmmuSpace(driver, 'stage 1, SubstreamID 5', driver.createDomain('first'), 5));
    }
    return found;
  }

  faultAddress(address: bigint): bigint {
    return address;
  }

  faults(): readonly DemoFault[] {
    return this.#driver.events.drain().map((event) => ({
      rid: event.sid,
      address: event.address,
      name: event.name,
      text: eventText(event),
    }));
  }

  waitUntil(done: () => boolean, what: string): void {
    this.#driver.registers.waitUntil(done, what);
  }

  more(stage: DemoStage): void {
    if (this.#driver.capabilities.stalls) this.#stall(stage);
    if (this.#driver.capabilities.ats) this.#ats(stage);
  }

  /** One access stalls until its page is mapped; another is terminated. */
  #stall(stage: DemoStage): void {
    const driver = this.#driver;
    const domain = driver.createDomain('first', { stall: true });
    driver.attach(RID, domain);
    const device = new StallingDevice(this.#vm, RID);
    const [write, lost] = [device.write(IOVA, 0x5ca1ab1e), device.write(STRAY, 1)];
    if (write.state !== 'waiting' || lost.state !== 'waiting') stage.fail('stall: an access did not wait');
    this.waitUntil(() => driver.events.waiting === 2, 'two stalls');
    for (const event of driver.events.drain()) {
      const mapped = event.address === IOVA;
      if (mapped) driver.map(domain, IOVA, BUFFERS, PAGE_BYTES);
      driver.commands.resume(RID, event.stag, mapped);
      stage.countFault();
      stage.say(`stall: ${eventText(event)}, ${mapped ? 'mapped and resumed' : 'terminated'}`);
    }
    driver.commands.sync();
    this.waitUntil(() => {
      device.poll();
      return device.waiting.length === 0;
    }, 'resumed accesses');
    const [first, second] = [write.state as string, lost.state as string];
    if (first !== 'done' || second !== 'failed') stage.fail(`stall: accesses ended ${first}, ${second}`);
    if (this.#vm.ram.load32(BUFFERS) !== 0x5ca1ab1e) stage.fail('stall: the write did not arrive');
    this.#vm.interrupts.length = 0;
    driver.detach(RID);
  }

  /** A device translates ahead, requests missing pages, and obeys invalidations. */
  #ats(stage: DemoStage): void {
    const driver = this.#driver;
    const { pri } = driver.capabilities;
    const domain = driver.createDomain('first');
    driver.attach(RID, domain, { ats: 'full' });
    const device = new AtsDevice(this.#vm, RID, { pri });
    if (!pri) driver.map(domain, IOVA, BUFFERS, PAGE_BYTES);
    device.onWait = () => {
      for (const { ssid, address, group, last } of driver.pageRequests.drain()) {
        driver.map(domain, address, BUFFERS, PAGE_BYTES);
        if (last) driver.commands.pageResponse(RID, ssid, group, PRI_RESP.SUCCESS);
      }
      driver.queue.kick();
    };
    const first = device.access(-1, IOVA, 0x600dda7a).outcome;
    const again = device.access(-1, IOVA).value;
    if (first !== 'done' || again !== 0x600dda7a) stage.fail(`ATS: ${first}, 0x${again.toString(16)}`);
    const asked = device.asked;
    driver.unmap(domain, IOVA, PAGE_BYTES);
    if (device.drops !== 1 || device.size !== 0) stage.fail('ATS: the translation was not dropped');
    const page = pri ? ', a page asked for and mapped' : '';
    stage.say(`ATS: ${asked} translations asked by the device${page}, ${device.drops} dropped`);
    stage.noFaults();
    driver.detach(RID);
  }
}

class SmmuSpace implements DemoSpace {
  readonly #driver: SmmuDriver;
  readonly #domain: SmmuDomain;
  readonly pageBytes: number;
  readonly base: number;
  readonly seed: number;

  /** `pasid` −1: requests without SubstreamID. */
  constructor(
    driver: SmmuDriver,
    readonly name: string,
    domain: SmmuDomain,
    readonly pasid = -1,
  ) {
    this.#driver = driver;
    this.#domain = domain;
    this.pageBytes = 2 ** domain.granule;
    this.base = domain.kind === 'nested' ? Number(NESTED_OFFSET) : 0;
    this.seed = domain.asid * 64 + domain.vmid + 1;
  }

  attach(): void {
    if (this.pasid < 0) this.#driver.attach(RID, this.#domain);
    else this.#driver.attachSubstream(RID, this.pasid, this.#domain);
  }

  detach(): void {
    if (this.pasid >= 0) this.#driver.detachSubstream(RID, this.pasid, this.#domain);
    this.#driver.detach(RID);
  }

  map(input: bigint, outputs: readonly number[], rights?: Rights): void {
    outputs.forEach((output, index) => {
      this.#driver.map(this.#domain, input + BigInt(index * this.pageBytes), output, this.pageBytes, rights);
    });
  }

  unmap(input: bigint, bytes: number): void {
    this.#driver.unmap(this.#domain, input, bytes);
  }
}
