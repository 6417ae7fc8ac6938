import {
  BUFFERS,
  type DemoSpace,
  type DemoStage,
  type DemoUnit,
  IOVA,
  RAM_BYTES,
  RID,
  STRAY,
} from './demo-unit.js';
import { checksum, DmaDevice, pattern } from './dma-device.js';
import { READ_ONLY } from './page-table.js';
import { emptyReport, SimDemoFailure, type SimDemoOptions, type SimReport } from './sim-report.js';
import { SmmuDemo } from './smmu-demo.js';
import { SimVm } from './vm.js';
import { vtdDemos } from './vtd-demo.js';

/**
 * Connects a simulated VM to a daemon and drives its unit as a guest would: enable, map, DMA with
 * checksums, unmap, stray DMA and the fault that it leaves. Blocks its thread: call it from a
 * worker or a process of its own. Throws {@link SimDemoFailure} when a result is wrong,
 * `CodedError` when the daemon refuses.
 */
export function runSimDemo(
  socketPath: string,
  options: SimDemoOptions,
  print: (line: string) => void,
): SimReport {
  const vm = SimVm.connect(socketPath, {
    name: options.name ?? 'simulated',
    model: options.model ?? 'vtd',
    ramBytes: RAM_BYTES,
    options: options.options ?? {},
  });
  try {
    const demo = new SimDemo(vm, options.bytes ?? 4 * 2 ** 20, print);
    vm.addDevice(1, RID, 'simulated');
    if (options.model === 'smmuv3') demo.run(new SmmuDemo(vm));
    else for (const unit of vtdDemos(vm, options.modes ?? ['legacy', 'scalable'], demo)) demo.run(unit);
    return demo.end();
  } finally {
    vm.close();
  }
}

class SimDemo implements DemoStage {
  readonly #vm: SimVm;
  readonly #bytes: number;
  readonly #print: (line: string) => void;
  readonly #report = emptyReport();
  #unit: DemoUnit | undefined;

  constructor(vm: SimVm, bytes: number, print: (line: string) => void) {
    this.#vm = vm;
    this.#bytes = bytes;
    this.#print = print;
  }

  run(unit: DemoUnit): void {
    this.#unit = unit;
    this.say(unit.title);
    unit.start();
    for (const space of unit.spaces()) this.#dma(unit, space);
    unit.more(this);
    unit.stop();
    this.#report.descriptors += unit.submitted;
  }

  end(): SimReport {
    const { hits, misses } = this.#vm.iotlb.counters;
    return Object.assign(this.#report, { hits, misses, invalidations: this.#vm.traffic.invalidations });
  }

  say(line: string): void {
    this.#report.steps.push(line);
    this.#print(line);
  }

  fail(text: string): never {
    throw new SimDemoFailure(text);
  }

  countFault(): void {
    this.#report.expectedFaults++;
  }

  noFaults(): void {
    const faults = this.#unit?.faults() ?? [];
    this.#report.unexpectedFaults += faults.length;
    if (faults.length > 0) this.fail(`unprovoked fault: ${faults.map(({ text }) => text).join('; ')}`);
  }

  #dma(unit: DemoUnit, space: DemoSpace): void {
    const { name, pasid, seed } = space;
    const bytes = this.#bytes;
    space.attach();
    const device = new DmaDevice(this.#vm, RID, pasid);
    space.map(IOVA, this.#buffer(space));
    const sent = pattern(bytes / 4, seed);
    const before = this.#vm.iotlb.counters.misses;
    this.#transfer(device.write(IOVA, sent).failedAt, `${name}: write`);
    const back = new Uint32Array(sent.length);
    this.#transfer(device.read(IOVA, back).failedAt, `${name}: read`);
    const misses = this.#vm.iotlb.counters.misses - before;
    const sums = [checksum(sent), this.#checksumInMemory(space), checksum(back)];
    if (sums[0] !== sums[1] || sums[0] !== sums[2]) this.fail(`${name}: checksums differ: ${sums}`);
    this.say(
      `${name}: ${bytes} bytes each way, checksum 0x${sums[0].toString(16)}, ${misses} translations asked`,
    );
    this.#report.bytesMoved += device.moved;
    this.noFaults();
    this.#refusals(unit, space, device);
    space.detach();
    if (unit.reportsDetached) this.#expectFault(unit, device, STRAY, `${name}: after detach`);
  }

  /**
   * Unmapped pages, read-only pages and addresses that never were mapped are refused with a fault.
   */
  #refusals(unit: DemoUnit, space: DemoSpace, device: DmaDevice): void {
    const { name, pageBytes } = space;
    const { unmapped, readOnly } = unit.faultNames;
    space.unmap(IOVA, this.#bytes);
    this.#expectFault(unit, device, IOVA + 0x3000n, `${name}: after unmap`, unmapped);
    this.#expectFault(unit, device, STRAY, `${name}: stray`, unmapped);
    space.map(STRAY, [space.base + BUFFERS], READ_ONLY);
    this.#transfer(device.read(STRAY, new Uint32Array(4)).failedAt, `${name}: read of a read-only page`);
    this.#expectFault(unit, device, STRAY, `${name}: write to a read-only page`, readOnly);
    space.unmap(STRAY, pageBytes);
  }

  /** Addresses of the buffer's pages; neighbours are not contiguous. */
  #buffer({ base, pageBytes }: DemoSpace): number[] {
    const outputs: number[] = [];
    for (let at = 0; at < this.#bytes; at += pageBytes) outputs.push(base + this.#page(at, pageBytes));
    return outputs;
  }

  /** Where the buffer's page at offset `at` lies: blocks of eight pages, in reverse order. */
  #page(at: number, pageBytes: number): number {
    const block = 8 * pageBytes;
    return BUFFERS + (this.#bytes - block - (at - (at % block))) + (at % block);
  }

  #checksumInMemory({ pageBytes }: DemoSpace): number {
    const data = new Uint32Array(this.#bytes / 4);
    for (let at = 0; at < this.#bytes; at += pageBytes) {
      const page = this.#page(at, pageBytes);
      for (let i = 0; i < pageBytes; i += 4) data[(at + i) / 4] = this.#vm.ram.load32(page + i);
    }
    return checksum(data);
  }

  /** Expects a write to be refused, with an interrupt and exactly one fault, of `name` if given. */
  #expectFault(unit: DemoUnit, device: DmaDevice, address: bigint, what: string, name?: string): void {
    const interrupts = this.#vm.interrupts.length;
    const { failedAt } = device.write(address, pattern(1, 1));
    if (failedAt === undefined) this.fail(`${what}: the write to 0x${address.toString(16)} went through`);
    unit.waitUntil(() => this.#vm.interrupts.length > interrupts, 'the fault interrupt');
    this.#vm.interrupts.length = 0;
    this.#report.interrupts++;
    const faults = unit.faults();
    const [fault] = faults;
    const right =
      faults.length === 1 &&
      fault.rid === device.rid &&
      fault.address === unit.faultAddress(address) &&
      (name === undefined || fault.name === name);
    if (!right) this.fail(`${what}: faults are ${faults.map(({ text }) => text).join('; ') || 'none'}`);
    this.countFault();
    this.say(`${what}: ${fault.text}`);
  }

  #transfer(failedAt: bigint | undefined, what: string): void {
    if (failedAt !== undefined) this.fail(`${what} refused at 0x${failedAt.toString(16)}`);
  }
}
