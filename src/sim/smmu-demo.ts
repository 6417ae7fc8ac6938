import { hex64 } from '../base/u64.js';
import { PRI_RESP } from '../spec/smmuv3/commands.js';
import { AtsDevice } from './ats-device.js';
import { checksum, DmaDevice, pattern } from './dma-device.js';
import { READ_ONLY } from './page-table.js';
import { emptyReport, SimDemoFailure, type SimDemoOptions, type SimReport } from './sim-report.js';
import type { SmmuDomain } from './smmu-domain.js';
import { SmmuDriver, type SmmuDriverOptions } from './smmu-driver.js';
import type { SmmuEvent } from './smmu-output.js';
import { StallingDevice } from './stalling-device.js';
import type { SimVm } from './vm.js';

/** Tables and rings. */
const TABLES: SmmuDriverOptions['pages'] = [2 ** 20, 32 * 2 ** 20];
/** DMA buffers. */
const BUFFERS = 32 * 2 ** 20;
const MESSAGES = { address: 0x0808_0040, data: 0x60 } as const;
const SID = 0x18;
const IOVA = 0x1_0000_0000n;
const STRAY = 0xdead_0000n;
/** A stage 2 shows guest memory this far up. */
const OFFSET = 2n ** 36n;

/** One address space of the story: its name, and the SubstreamID that uses it, or −1. */
interface Part {
  readonly name: string;
  readonly domain: SmmuDomain;
  readonly ssid: number;
}

/** What a simulated arm64 machine does on its SMMUv3: DMA with checksums, faults, stalls, ATS and page requests. */
export class SmmuStory {
  readonly #report = emptyReport();
  readonly #bytes: number;

  constructor(
    private readonly vm: SimVm,
    options: SimDemoOptions,
    private readonly print: (line: string) => void,
  ) {
    this.#bytes = options.bytes ?? 4 * 2 ** 20;
  }

  run(): SimReport {
    this.vm.addDevice(1, SID, 'simulated');
    const driver = new SmmuDriver(this.vm, { pages: TABLES, sync: 'message', messages: MESSAGES });
    const { version, idr0, idr1, idr5 } = driver.capabilities;
    const words = [idr0, idr1, idr5].map((word) => `0x${word[0].toString(16).padStart(8, '0')}`);
    this.#say(`${version}: IDR0 ${words[0]} IDR1 ${words[1]} IDR5 ${words[2]}`);
    driver.start();
    for (const part of this.#parts(driver)) this.#dma(driver, part);
    if (driver.capabilities.stalls) this.#stall(driver);
    if (driver.capabilities.ats) this.#ats(driver);
    driver.stop();
    const { hits, misses } = this.vm.iotlb.counters;
    const { invalidations } = this.vm.traffic;
    Object.assign(this.#report, { hits, misses, invalidations, descriptors: driver.queue.submitted });
    return this.#report;
  }

  /** The kinds of address space that this unit has. */
  #parts(driver: SmmuDriver): Part[] {
    const { stage1, stage2, ssidBits, granules } = driver.capabilities;
    const parts: Part[] = [];
    for (const granule of stage1 ? granules : []) {
      const name = `stage 1, ${2 ** (granule - 10)} KiB granule`;
      parts.push({ name, domain: driver.createDomain('first', { granule }), ssid: -1 });
    }
    if (stage2) parts.push({ name: 'stage 2', domain: driver.createDomain('second'), ssid: -1 });
    if (stage1 && stage2) {
      const parent = driver.createDomain('second', { inputBits: 40 });
      driver.map(parent, OFFSET, 0, 96 * 2 ** 20, undefined, parent.granule);
      const domain = driver.createNested(parent, {}, (gpa) => OFFSET + BigInt(gpa));
      parts.push({ name: 'both stages', domain, ssid: -1 });
    }
    if (stage1 && ssidBits > 0) {
      parts.push({ name: 'stage 1, SubstreamID 5', domain: driver.createDomain('first'), ssid: 5 });
    }
    return parts;
  }

  #dma(driver: SmmuDriver, { name, domain, ssid }: Part): void {
    if (ssid < 0) driver.attach(SID, domain);
    else driver.attachSubstream(SID, ssid, domain);
    const device = new DmaDevice(this.vm, SID, ssid);
    const bytes = this.#bytes;
    const output = domain.kind === 'nested' ? Number(OFFSET) : 0;
    const size = 2 ** domain.granule;
    for (let at = 0; at < bytes; at += size) {
      driver.map(domain, IOVA + BigInt(at), output + this.#page(at, bytes, size), size);
    }
    const sent = pattern(bytes / 4, domain.asid * 64 + domain.vmid + 1);
    const before = this.vm.iotlb.counters.misses;
    this.#transfer(device.write(IOVA, sent).failedAt, `${name}: write`);
    const back = new Uint32Array(sent.length);
    this.#transfer(device.read(IOVA, back).failedAt, `${name}: read`);
    const misses = this.vm.iotlb.counters.misses - before;
    const sums = [checksum(sent), this.#checksumInMemory(bytes, size), checksum(back)];
    if (sums[0] !== sums[1] || sums[0] !== sums[2]) this.#fail(`${name}: checksums differ: ${sums}`);
    this.#say(
      `${name}: ${bytes} bytes each way, checksum 0x${sums[0].toString(16)}, ${misses} translations asked`,
    );
    this.#report.bytesMoved += device.moved;
    this.#noEvents(driver);
    driver.unmap(domain, IOVA, bytes);
    this.#expectEvent(driver, device, IOVA + 0x3000n, 'F_TRANSLATION', `${name}: after unmap`);
    this.#expectEvent(driver, device, STRAY, 'F_TRANSLATION', `${name}: stray`);
    driver.map(domain, STRAY, output + BUFFERS, size, READ_ONLY);
    this.#transfer(device.read(STRAY, new Uint32Array(4)).failedAt, `${name}: read of a read-only page`);
    this.#expectEvent(driver, device, STRAY, 'F_PERMISSION', `${name}: write to a read-only page`);
    driver.unmap(domain, STRAY, size);
    if (ssid >= 0) driver.detachSubstream(SID, ssid, domain);
    driver.detach(SID);
  }

  /** Where the buffer's page at offset `at` lies: blocks of eight pages, in reverse order. */
  #page(at: number, bytes: number, size: number): number {
    const block = 8 * size;
    return BUFFERS + (bytes - block - (at - (at % block))) + (at % block);
  }

  #checksumInMemory(bytes: number, size: number): number {
    const data = new Uint32Array(bytes / 4);
    for (let at = 0; at < bytes; at += size) {
      const page = this.#page(at, bytes, size);
      for (let i = 0; i < size; i += 4) data[(at + i) / 4] = this.vm.ram.load32(page + i);
    }
    return checksum(data);
  }

  /** An access waits for its page as a process does; another one is terminated. */
  #stall(driver: SmmuDriver): void {
    const domain = driver.createDomain('first', { stall: true });
    driver.attach(SID, domain);
    const device = new StallingDevice(this.vm, SID);
    const [write, lost] = [device.write(IOVA, 0x5ca1ab1e), device.write(STRAY, 1)];
    if (write.state !== 'waiting' || lost.state !== 'waiting') this.#fail('stall: an access did not wait');
    driver.registers.waitUntil(() => driver.events.waiting === 2, 'two stalls');
    for (const event of driver.events.drain()) {
      const mapped = event.address === IOVA;
      if (mapped) driver.map(domain, IOVA, BUFFERS, 4096);
      driver.commands.resume(SID, event.stag, mapped);
      this.#report.expectedFaults++;
      this.#say(`stall: ${describe(event)}, ${mapped ? 'mapped and resumed' : 'terminated'}`);
    }
    driver.commands.sync();
    driver.registers.waitUntil(() => {
      device.poll();
      return device.waiting.length === 0;
    }, 'resumed accesses');
    const [first, second] = [write.state as string, lost.state as string];
    if (first !== 'done' || second !== 'failed') this.#fail(`stall: accesses ended ${first}, ${second}`);
    if (this.vm.ram.load32(BUFFERS) !== 0x5ca1ab1e) this.#fail('stall: the write did not arrive');
    this.vm.interrupts.length = 0;
    driver.detach(SID);
  }

  /** A device translates ahead, asks for what is missing, and forgets what it is told to. */
  #ats(driver: SmmuDriver): void {
    const { pri } = driver.capabilities;
    const domain = driver.createDomain('first');
    driver.attach(SID, domain, { ats: 'full' });
    const device = new AtsDevice(this.vm, SID, { pri });
    if (!pri) driver.map(domain, IOVA, BUFFERS, 4096);
    device.onWait = () => {
      for (const { ssid, address, group, last } of driver.pageRequests.drain()) {
        driver.map(domain, address, BUFFERS, 4096);
        if (last) driver.commands.pageResponse(SID, ssid, group, PRI_RESP.SUCCESS);
      }
      driver.queue.kick();
    };
    const first = device.access(-1, IOVA, 0x600dda7a).outcome;
    const again = device.access(-1, IOVA).value;
    if (first !== 'done' || again !== 0x600dda7a) this.#fail(`ATS: ${first}, 0x${again.toString(16)}`);
    const asked = device.asked;
    driver.unmap(domain, IOVA, 4096);
    if (device.drops !== 1 || device.size !== 0) this.#fail('ATS: the translation was not dropped');
    const page = pri ? ', a page asked for and mapped' : '';
    this.#say(`ATS: ${asked} translations asked by the device${page}, ${device.drops} dropped`);
    this.#noEvents(driver);
    driver.detach(SID);
  }

  #expectEvent(driver: SmmuDriver, device: DmaDevice, address: bigint, name: string, what: string): void {
    const interrupts = this.vm.interrupts.length;
    const { failedAt } = device.write(address, pattern(1, 1));
    if (failedAt === undefined) this.#fail(`${what}: the write to 0x${address.toString(16)} went through`);
    driver.registers.waitUntil(() => this.vm.interrupts.length > interrupts, 'the event interrupt');
    this.vm.interrupts.length = 0;
    this.#report.interrupts++;
    const events = driver.events.drain();
    const [event] = events;
    if (events.length !== 1 || event.name !== name || event.sid !== device.rid || event.address !== address) {
      this.#fail(`${what}: events are ${events.map(describe).join('; ') || 'none'}`);
    }
    this.#report.expectedFaults++;
    this.#say(`${what}: ${describe(event)}`);
  }

  #noEvents(driver: SmmuDriver): void {
    const events = driver.events.drain();
    this.#report.unexpectedFaults += events.length;
    if (events.length > 0) this.#fail(`event nobody provoked: ${events.map(describe).join('; ')}`);
  }

  #transfer(failedAt: bigint | undefined, what: string): void {
    if (failedAt !== undefined) this.#fail(`${what} refused at 0x${failedAt.toString(16)}`);
  }

  #say(line: string): void {
    this.#report.steps.push(line);
    this.print(line);
  }

  #fail(text: string): never {
    throw new SimDemoFailure(text);
  }
}

/** An event as a driver's log would have it. */
export function describe(event: SmmuEvent): string {
  const { name, sid, ssid, address, read, stall, stag } = event;
  const substream = ssid < 0 ? '' : ` SubstreamID 0x${ssid.toString(16)}`;
  const held = stall ? ` STAG 0x${stag.toString(16)}` : '';
  const at = hex64(Number(address & 0xffff_ffffn), Number(address >> 32n));
  return `${name} StreamID 0x${sid.toString(16)}${substream} ${read ? 'read' : 'write'} of ${at}${held}`;
}
