import { ACCESS, REQUEST, TRANSLATE_STATUS } from '../../src/device/iommu.js';
import { ArrayMemory } from '../../src/memory/array.js';
import { SmmuDriver } from '../../src/sim/smmu-driver.js';
import { CMD } from '../../src/spec/smmuv3/commands.js';
import {
  AIDR,
  CMDQ_BASE,
  CMDQ_PROD,
  CR0,
  EVENTQ_CONS,
  GERROR,
  GERRORN,
  IDR0,
  IDR1,
  IDR3,
  IDR5,
  PRIQ_CONS,
  SMMU_REGISTERS,
  STRTAB_BASE,
} from '../../src/spec/smmuv3/registers.js';
import {
  VCMD,
  VCRSP,
  VCRSP_STATUS,
  VIRTUAL_COMMAND_REGISTERS,
} from '../../src/spec/smmuv3/virtual-commands.js';
import { LocalMachine } from '../support/local-machine.js';
import { CountingMemory } from './counting-memory.js';
import { type Fuzzer, must, type Trace } from './fuzzer.js';
import { WORDS_PER_TRANSLATION, WORDS_PER_WRITE } from './limits.js';
import type { Rng } from './rng.js';
import { SMMU_OPTIONS } from './smmu-world.js';
import { StallLedger } from './stall-ledger.js';

const RAM = 2 * 2 ** 20;
const STEPS = 400;
const TABLES: readonly [number, number] = [0x10_0000, 0x1f_0000];
const OFFSETS = [...SMMU_REGISTERS, ...VIRTUAL_COMMAND_REGISTERS].map((register) => register.offset);
const OPTIONS = [
  ...SMMU_OPTIONS,
  { ats: 'on', 'virtual-commands': 'on' },
  { ats: 'on', 'virtual-commands': 'on', 'ssid-bits': '5' },
];
const OPCODES = Object.values(CMD);

/**
 * Random stores to the SMMUv3's registers over random memory, with requests of every kind in
 * between.
 */
export class SmmuMmioFuzzer implements Fuzzer {
  readonly name = 'smmu-mmio';
  #mostPerWrite = 0;
  #mostPerTranslation = 0;
  #stalls = 0;

  facts(): Readonly<Record<string, number>> {
    return {
      wordsPerWrite: this.#mostPerWrite,
      wordsPerTranslation: this.#mostPerTranslation,
      stalls: this.#stalls,
    };
  }

  run(rng: Rng, trace: Trace): void {
    const memory = new CountingMemory(new ArrayMemory([{ base: 0, bytes: RAM }]));
    scatter(rng, memory);
    const options = rng.pick(OPTIONS);
    const machine = new LocalMachine(memory, options, 'smmuv3');
    const substreams = 'virtual-commands' in options ? new SubstreamLedger() : undefined;
    const ledger = new StallLedger(machine);
    trace.say(JSON.stringify(options));
    const fresh = machine.registers.slice();
    if (rng.chance(0.8)) start(rng, machine, trace);
    for (let step = 0; step < STEPS; step++) {
      memory.taken();
      const what = rng.below(24);
      if (what < 13) this.#write(rng, machine, memory, trace, substreams);
      else if (what < 19) this.#request(rng, machine, memory, trace, ledger, substreams);
      else if (what < 21) requestPage(rng, machine, trace);
      else if (what < 22) endInvalidation(rng, machine, trace);
      else if (what === 22) {
        machine.outputs.holdAcks = rng.chance(0.3);
        if (!machine.outputs.holdAcks) machine.ack();
        trace.say(`holdAcks ${machine.outputs.holdAcks}`);
      } else if (rng.chance(0.1)) {
        trace.say('reset');
        ledger.settle();
        machine.outputs.pending = 0;
        machine.outputs.deviceTlbs.length = 0;
        machine.model.reset();
        ledger.reset();
        substreams?.reset();
        must(same(machine.registers, fresh), () => 'registers after reset are not those of power-on');
      }
      ledger.settle();
      forget(machine);
    }
    machine.writeRegister(CR0.offset, 4, 0n);
    ledger.empty();
    for (const register of [IDR0, IDR1, IDR3, IDR5, AIDR]) {
      const at = register.offset / 4;
      must(machine.registers[at] === fresh[at], () => `${register.name} changed`);
    }
  }

  #write(
    rng: Rng,
    machine: LocalMachine,
    memory: CountingMemory,
    trace: Trace,
    substreams: SubstreamLedger | undefined,
  ): void {
    const [offset, size, value] = rng.chance(0.5) ? meaningful(rng, machine) : arbitrary(rng, machine);
    trace.say(`write ${size} bytes 0x${offset.toString(16)} = 0x${value.toString(16)}`);
    substreams?.writes(machine, offset, size, value);
    machine.writeRegister(offset, size, value);
    substreams?.look(machine);
    const words = memory.taken();
    if (words > this.#mostPerWrite) this.#mostPerWrite = words;
    must(words <= WORDS_PER_WRITE, () => `one write touched ${words} words of memory`);
  }

  #request(
    rng: Rng,
    machine: LocalMachine,
    memory: CountingMemory,
    trace: Trace,
    ledger: StallLedger,
    substreams: SubstreamLedger | undefined,
  ): void {
    const rid = rng.chance(0.8) ? rng.below(4) : rng.below(0x10000);
    const pasid = rng.chance(0.6) ? -1 : rng.chance(0.7) ? rng.below(70) : rng.below(0x100000);
    const access = rng.chance(0.8) ? rng.pick([ACCESS.READ, ACCESS.WRITE]) : rng.below(16);
    const address = rng.chance(0.6) ? BigInt(rng.below(RAM)) : rng.odd64();
    const kind = rng.chance(0.6) ? REQUEST.UNTRANSLATED : rng.below(3);
    const mayStall = kind === REQUEST.UNTRANSLATED && rng.chance(0.6);
    trace.say(`request ${rid} ${pasid} access ${access} 0x${address.toString(16)} kind ${kind} ${mayStall}`);
    const { status, count, stall } = machine.ask(rid, pasid, access, address, kind, mayStall);
    const words = memory.taken();
    if (words > this.#mostPerTranslation) this.#mostPerTranslation = words;
    must(words <= WORDS_PER_TRANSLATION, () => `one translation touched ${words} words of memory`);
    must(count <= 64 && (status === TRANSLATE_STATUS.OK) === count > 0, () => 'status and count disagree');
    const checked = kind !== REQUEST.TRANSLATED && pasid >= 0 && enabled(machine);
    must(
      substreams === undefined || !checked || count === 0 || substreams.mayUse(machine, pasid),
      () => `SubstreamID ${pasid} is not the guest's`,
    );
    must(status !== TRANSLATE_STATUS.STALLED || mayStall, () => 'stalled, but the device cannot wait');
    if (status !== TRANSLATE_STATUS.STALLED) return;
    ledger.stalled(stall);
    this.#stalls++;
  }
}

function enabled(machine: LocalMachine): boolean {
  return (machine.registers[CR0.offset / 4] & 1) !== 0;
}

/** What a guest has got by virtual commands, by what it wrote and read. */
class SubstreamLedger {
  #command = 0;
  readonly #mine = new Set<number>();

  /** While an allocation has not been shown to end, any number may be what it gives. */
  mayUse(machine: LocalMachine, ssid: number): boolean {
    this.look(machine);
    return this.#mine.has(ssid) || (this.#command & 0xff) === 1;
  }

  reset(): void {
    this.#mine.clear();
    this.#command = 0;
  }

  /** A store that is about to be made. One is freed with the store, not when its end is shown. */
  writes(machine: LocalMachine, offset: number, size: number, value: bigint): void {
    if (offset !== VCMD.offset || size < 4 || (machine.registers[VCRSP.offset / 4] & 1) !== 0) return;
    this.#command = Number(value & 0xffff_ffffn);
    if ((this.#command & 0xff) === 2) this.#mine.delete(this.#command >>> 12);
  }

  look(machine: LocalMachine): void {
    const response = machine.registers[VCRSP.offset / 4];
    if ((response & 1) !== 0) return;
    const allocates = (this.#command & 0xff) === 1;
    this.#command = 0;
    if (!allocates || ((response >>> 1) & 0x7f) !== VCRSP_STATUS.SUCCESS) return;
    const ssid = response >>> 12;
    must(ssid > 0 && !this.#mine.has(ssid), () => `SubstreamID ${ssid} was handed out twice`);
    this.#mine.add(ssid);
  }
}

function forget(machine: LocalMachine): void {
  const { outputs } = machine;
  if (outputs.events.length > 1000) outputs.events.length = 0;
  outputs.scopes.length = 0;
  outputs.pageResponses.length = 0;
  outputs.edges.length = 0;
  machine.interrupts.length = 0;
  if (outputs.deviceTlbs.length > 1000) outputs.deviceTlbRoom = false;
}

/**
 * What a driver does first, so that the stores that follow meet a unit at work, whose ring holds
 * plausible commands.
 */
function start(rng: Rng, machine: LocalMachine, trace: Trace): void {
  const streamTable = rng.pick(['linear', 'two-level'] as const);
  const driver = new SmmuDriver(machine, { pages: TABLES, streamTable, streamBits: 8, queueLog2: 6 });
  driver.start();
  const { stalls, ats } = driver.capabilities;
  const domain = driver.createDomain('first', { stall: stalls, inputBits: 32 });
  for (const sid of [0, 1, 2]) driver.attach(sid, domain, { ssidBits: 4, ...(ats ? { ats: 'full' } : {}) });
  for (const ssid of [1, 2, 5]) driver.attachSubstream(1, ssid, domain);
  driver.map(domain, 0n, 0, RAM / 2);
  for (let n = 0; n < driver.queue.entries; n++) {
    const at = driver.queue.base + n * 16;
    machine.ram.store64(at, BigInt(rng.pick(OPCODES)) | (BigInt(rng.below(4)) << 32n));
    machine.ram.store64(at + 8, rng.chance(0.5) ? 0n : BigInt(rng.below(0x1_0000)));
  }
  trace.say(`driver ${streamTable}`);
}

function requestPage(rng: Rng, machine: LocalMachine, trace: Trace): void {
  const pasid = rng.chance(0.5) ? -1 : rng.below(20);
  const [lo, hi] = [rng.u32(), rng.u32()];
  const request = { rid: rng.below(4), pasid, access: rng.below(16), lo, hi, group: rng.below(512) };
  const last = rng.chance(0.5);
  trace.say(`page request ${JSON.stringify({ ...request, last })}`);
  machine.model.devices?.pageRequest?.({ ...request, last });
}

function endInvalidation(rng: Rng, machine: LocalMachine, trace: Trace): void {
  const { deviceTlbs } = machine.outputs;
  if (deviceTlbs.length === 0) return;
  const [{ tag }] = deviceTlbs.splice(rng.below(deviceTlbs.length), 1);
  machine.outputs.deviceTlbRoom = true;
  const result = rng.below(3);
  trace.say(`device invalidation ${tag} ends with ${result}`);
  machine.model.devices?.invalidated(tag, result);
}

/**
 * Memory half full of things that look like entries, descriptors and commands that point into it.
 */
function scatter(rng: Rng, memory: CountingMemory): void {
  for (let n = 0; n < 6000; n++) {
    const at = rng.below(RAM / 8) * 8;
    const pointer = rng.below(RAM / 4096) * 4096;
    const low = rng.chance(0.6) ? pointer | 0x400 | rng.below(256) : rng.u32();
    memory.store64(at, low, rng.chance(0.8) ? 0 : rng.u32());
  }
  for (let n = 0; n < 2000; n++) {
    const at = rng.below(RAM / 16) * 16;
    memory.store64(at, rng.pick(OPCODES) | (rng.u32() & 0xf00), rng.below(8));
  }
}

/** A store that a driver might make. */
function meaningful(rng: Rng, machine: LocalMachine): readonly [number, number, bigint] {
  const page = BigInt(rng.below(RAM / 4096)) << 12n;
  switch (rng.below(10)) {
    case 8:
    case 9:
      return [VCMD.offset, 4, BigInt(rng.below(3) + 4096 * rng.below(8))];
    case 0:
      return [STRTAB_BASE.offset, 8, page];
    case 1:
      return [CMDQ_BASE.offset, 8, page | BigInt(rng.below(18))];
    case 2:
      return [CMDQ_PROD.offset, 4, BigInt(rng.below(1 << rng.pick([3, 7, 16, 20])))];
    case 3:
      return [CR0.offset, 4, BigInt(rng.pick([0x1f, 0x1d, 0xd, 0xf, 0, 8, 5, 0x1e]))];
    case 4:
      return [GERRORN.offset, 4, BigInt(machine.registers[GERROR.offset / 4] >>> 0)];
    case 5:
      return [EVENTQ_CONS.offset, 4, BigInt(machine.registers[(EVENTQ_CONS.offset - 4) / 4] >>> 0)];
    case 6:
      return [PRIQ_CONS.offset, 4, BigInt(machine.registers[(PRIQ_CONS.offset - 4) / 4] >>> 0)];
    default:
      return [CR0.offset, 4, BigInt(rng.u32() & 0x1ff)];
  }
}

/**
 * Any store: near a register, or anywhere; any size, also sizes and alignments that no CPU makes.
 */
function arbitrary(rng: Rng, machine: LocalMachine): readonly [number, number, bigint] {
  const size = rng.pick([1, 2, 4, 4, 4, 8, 8]);
  const near = rng.pick(OFFSETS) + (rng.chance(0.2) ? rng.below(8) : rng.chance(0.3) ? 4 : 0);
  const offset = rng.chance(0.8) ? near : rng.below(machine.registerBytes - 8);
  return [offset, size, rng.odd64() & ((1n << BigInt(size * 8)) - 1n)];
}

function same(a: Uint32Array, b: Uint32Array): boolean {
  return a.every((word, i) => word === b[i]);
}
