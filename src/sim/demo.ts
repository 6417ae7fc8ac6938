import { hex64 } from '../base/u64.js';
import { CAP_REG, ECAP_REG } from '../spec/vtd/registers.js';
import { checksum, DmaDevice, pattern } from './dma-device.js';
import { READ_ONLY } from './page-table.js';
import { rightsText } from './sim-iotlb.js';
import { emptyReport, SimDemoFailure, type SimDemoOptions, type SimReport } from './sim-report.js';
import { SmmuStory } from './smmu-demo.js';
import { SimVm } from './vm.js';
import { type DriverOptions, type VtdDomain, VtdDriver } from './vtd-driver.js';
import type { FaultRecord } from './vtd-faults.js';

const RAM_BYTES = 96 * 2 ** 20;
/** Tables and rings. */
const TABLES: DriverOptions['pages'] = [2 ** 20, 32 * 2 ** 20];
/** DMA buffers. */
const BUFFERS = 32 * 2 ** 20;
const MSI = { address: 0xfee0_0000, data: 0x4021 } as const;
const RID = 0x0018;
const IOVA = 0x1_0000_0000n;
const STRAY = 0xdead_0000n;
/** A nested first stage sees guest memory this far up. */
const NESTED_OFFSET = 2n ** 36n;

/**
 * Plugs a simulated VM into a daemon and drives its unit as a guest would: enable, map, DMA with checksums,
 * unmap, stray DMA and the fault it leaves. Blocks its thread: call it from a worker or a process of its own.
 * Throws {@link SimDemoFailure} when anything differs from what it must be, `CodedError` when the daemon
 * refuses.
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
    if (options.model === 'smmuv3') return new SmmuStory(vm, options, print).run();
    return new Story(vm, options, print).run();
  } finally {
    vm.close();
  }
}

class Story {
  readonly #report = emptyReport();
  readonly #bytes: number;

  constructor(
    private readonly vm: SimVm,
    private readonly options: SimDemoOptions,
    private readonly print: (line: string) => void,
  ) {
    this.#bytes = options.bytes ?? 4 * 2 ** 20;
  }

  run(): SimReport {
    this.vm.addDevice(1, RID, 'simulated');
    const modes = this.options.modes ?? ['legacy', 'scalable'];
    for (const mode of modes) this.#mode(mode);
    const { hits, misses } = this.vm.iotlb.counters;
    Object.assign(this.#report, { hits, misses, invalidations: this.vm.traffic.invalidations });
    return this.#report;
  }

  #mode(mode: 'legacy' | 'scalable'): void {
    this.vm.reset();
    const driver = new VtdDriver(this.vm, { mode, pages: TABLES, faultMsi: MSI });
    const { capabilities: caps } = driver;
    if (mode === 'scalable' && !caps.scalable) {
      this.#say('scalable mode: the unit does not have it (ECAP_REG.SMTS = 0)');
      return;
    }
    const cap = hex64(caps.cap[0], caps.cap[1]);
    const ecap = hex64(caps.ecap[0], caps.ecap[1]);
    this.#say(`${mode} mode: VER ${caps.version} CAP ${cap} ECAP ${ecap}`);
    driver.start();
    for (const [name, domain, pasid] of this.#domains(driver, mode)) this.#dma(driver, name, domain, pasid);
    driver.stop();
    this.#report.descriptors += driver.queue?.submitted ?? 0;
  }

  /** The kinds of address space that this mode and unit have; −1 = requests without PASID. */
  #domains(driver: VtdDriver, mode: 'legacy' | 'scalable'): (readonly [string, VtdDomain, number])[] {
    const { cap, ecap } = driver.capabilities;
    const fourLevels = (CAP_REG.get.SAGAW(cap) & 4) !== 0;
    const levels = fourLevels ? 4 : 3;
    const second = driver.createDomain('second', levels);
    if (mode === 'legacy') return [[`second-stage, ${levels} levels`, second, -1]];
    const found: (readonly [string, VtdDomain, number])[] = [['second-stage, RID_PASID', second, -1]];
    if (ECAP_REG.get.FSTS(ecap) === 1) {
      found.push(['first-stage, PASID 5', driver.createDomain('first'), 5]);
    }
    if (ECAP_REG.get.NEST(ecap) === 1) {
      const parent = driver.createDomain('second', levels);
      parent.table?.map(NESTED_OFFSET, 0, RAM_BYTES, undefined, 21);
      const nested = driver.createNested(parent, 4, (gpa) => NESTED_OFFSET + BigInt(gpa));
      found.push(['nested, PASID 6', nested, 6]);
    }
    return found;
  }

  #dma(driver: VtdDriver, name: string, domain: VtdDomain, pasid: number): void {
    driver.attach(RID, domain, pasid >= 0 ? { pasid } : {});
    const device = new DmaDevice(this.vm, RID, pasid);
    const bytes = this.#bytes;
    this.#mapScattered(driver, domain, bytes);
    const sent = pattern(bytes / 4, domain.did * 64 + pasid + 1);
    const before = this.vm.iotlb.counters.misses;
    this.#transfer(device.write(IOVA, sent).failedAt, `${name}: write`);
    const back = new Uint32Array(sent.length);
    this.#transfer(device.read(IOVA, back).failedAt, `${name}: read`);
    const misses = this.vm.iotlb.counters.misses - before;
    const sums = [checksum(sent), this.#checksumInMemory(bytes), checksum(back)];
    if (sums[0] !== sums[1] || sums[0] !== sums[2]) this.#fail(`${name}: checksums differ: ${sums}`);
    this.#say(
      `${name}: ${bytes} bytes each way, checksum 0x${sums[0].toString(16)}, ${misses} translations asked`,
    );
    this.#report.bytesMoved += device.moved;
    this.#noFaults(driver);
    this.#refusals(driver, name, domain, device);
    driver.detach(RID, domain, pasid >= 0 ? pasid : undefined);
    this.#expectFault(driver, device, STRAY, `${name}: after detach`);
  }

  /** Withdrawn pages, read-only pages and addresses that never were mapped are refused, and said so. */
  #refusals(driver: VtdDriver, name: string, domain: VtdDomain, device: DmaDevice): void {
    driver.unmap(domain, IOVA, this.#bytes);
    this.#expectFault(driver, device, IOVA + 0x3000n, `${name}: after unmap`);
    this.#expectFault(driver, device, STRAY, `${name}: stray`);
    driver.map(domain, STRAY, outputBase(domain) + BUFFERS, 4096, READ_ONLY);
    const status = device.read(STRAY, new Uint32Array(4));
    this.#transfer(status.failedAt, `${name}: read of a read-only page`);
    this.#expectFault(driver, device, STRAY, `${name}: write to a read-only page (${rightsText(1)})`);
    driver.unmap(domain, STRAY, 4096);
  }

  /** Every page of the buffer at an address that is not next to its neighbour's. */
  #mapScattered(driver: VtdDriver, domain: VtdDomain, bytes: number): void {
    const base = outputBase(domain);
    for (let at = 0; at < bytes; at += 4096) {
      const output = base + this.#page(at, bytes);
      domain.table?.map(IOVA + BigInt(at), output, 4096);
    }
    if (driver.capabilities.cachingMode) driver.invalidateRange(domain, IOVA, bytes);
    driver.invalidate.sync();
  }

  /** Where the buffer's page at offset `at` lies: blocks of eight pages, in reverse order. */
  #page(at: number, bytes: number): number {
    const block = 8 * 4096;
    return BUFFERS + (bytes - block - (at - (at % block))) + (at % block);
  }

  #checksumInMemory(bytes: number): number {
    const data = new Uint32Array(bytes / 4);
    for (let at = 0; at < bytes; at += 4096) {
      for (let i = 0; i < 4096; i += 4) data[(at + i) / 4] = this.vm.ram.load32(this.#page(at, bytes) + i);
    }
    return checksum(data);
  }

  #expectFault(driver: VtdDriver, device: DmaDevice, address: bigint, what: string): void {
    const interrupts = this.vm.interrupts.length;
    const { failedAt } = device.write(address, pattern(1, 1));
    if (failedAt === undefined) this.#fail(`${what}: the write to 0x${address.toString(16)} went through`);
    driver.registers.waitUntil(() => this.vm.interrupts.length > interrupts, 'the fault event');
    this.vm.interrupts.length = 0;
    this.#report.interrupts++;
    const records = driver.faults.drain();
    const record = records[0];
    if (records.length !== 1 || record.rid !== device.rid || record.address !== (address & ~0xfffn)) {
      this.#fail(`${what}: fault records are ${records.map(describe).join('; ') || 'none'}`);
    }
    this.#report.expectedFaults++;
    this.#say(`${what}: ${describe(record)}`);
  }

  #noFaults(driver: VtdDriver): void {
    const records = driver.faults.drain();
    this.#report.unexpectedFaults += records.length;
    if (records.length > 0) this.#fail(`fault nobody provoked: ${records.map(describe).join('; ')}`);
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

/** Where guest memory begins in what the domain's own table maps to. */
function outputBase(domain: VtdDomain): number {
  return domain.kind === 'nested' ? Number(NESTED_OFFSET) : 0;
}

/** A fault record as a driver's log would have it. */
export function describe(record: FaultRecord): string {
  const rid = record.rid;
  const bdf = `${hex2(rid >> 8)}:${hex2((rid >> 3) & 31)}.${rid & 7}`;
  const pasid = record.pasid < 0 ? '' : ` PASID 0x${record.pasid.toString(16)}`;
  const reason = `0x${hex2(record.reason)}`;
  return `[DMA ${record.type}] ${bdf}${pasid} address 0x${record.address.toString(16)} reason ${reason} (${record.text})`;
}

function hex2(value: number): string {
  return value.toString(16).padStart(2, '0');
}
