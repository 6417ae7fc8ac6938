import { ACCESS, DEVICE_TLB, REQUEST, TRANSLATE_STATUS } from '../../src/device/iommu.js';
import { ArrayMemory } from '../../src/memory/array.js';
import { VtdDriver } from '../../src/sim/vtd-driver.js';
import {
  BASE_REGISTERS,
  CAP_REG,
  ECAP_REG,
  FRCD_OFFSET,
  GCMD_REG,
  IQA_REG,
  IQT_REG,
  PAGE_REQUEST_REGISTERS,
  PQA_REG,
  PQH_REG,
  PRS_REG,
  RTADDR_REG,
  VCMD_REG,
  VER_REG,
  VIRTUAL_COMMAND_REGISTERS,
} from '../../src/spec/vtd/registers.js';
import { LocalMachine } from '../support/local-machine.js';
import { CountingMemory } from './counting-memory.js';
import { type Fuzzer, must, type Trace } from './fuzzer.js';
import { WORDS_PER_TRANSLATION, WORDS_PER_WRITE } from './limits.js';
import type { Rng } from './rng.js';
import { fillRing } from './world.js';

const RAM = 2 * 2 ** 20;
const STEPS = 400;
const TABLES: readonly [number, number] = [0x10_0000, 0x1f_0000];

const OFFSETS = [...BASE_REGISTERS, ...PAGE_REQUEST_REGISTERS, ...VIRTUAL_COMMAND_REGISTERS].map(
  (register) => register.offset,
);
const OPTIONS: readonly Readonly<Record<string, string>>[] = [
  {},
  { 'caching-mode': 'on' },
  { 'caching-mode': 'on', 'virtual-commands': 'on' },
  { 'scalable-mode': 'off' },
  { 'scalable-mode': 'off', 'device-tlb': 'on' },
  { 'device-tlb': 'on', 'page-requests': 'on' },
  { 'device-tlb': 'on', 'page-requests': 'on', 'cache-policy': 'hostile' },
  { 'aw-bits': '57', 'cache-policy': 'none' },
  { 'aw-bits': '39' },
  { 'cache-policy': 'hostile', 'fault-records': '1' },
];

/** Random stores to the register page over random memory, with requests in between. */
export class MmioFuzzer implements Fuzzer {
  readonly name = 'mmio';
  #mostPerWrite = 0;
  #mostPerTranslation = 0;

  facts(): Readonly<Record<string, number>> {
    return { wordsPerWrite: this.#mostPerWrite, wordsPerTranslation: this.#mostPerTranslation };
  }

  run(rng: Rng, trace: Trace): void {
    const memory = new CountingMemory(new ArrayMemory([{ base: 0, bytes: RAM }]));
    scatter(rng, memory);
    const options = rng.pick(OPTIONS);
    const machine = new LocalMachine(memory, options);
    trace.say(JSON.stringify(options));
    for (const rid of [0, 1, 2, 3]) {
      const { DONE, UNSUPPORTED, TIMEOUT } = DEVICE_TLB;
      machine.deviceTlbs.set(rid, () => rng.pick([DONE, DONE, DONE, UNSUPPORTED, TIMEOUT]));
    }
    const fresh = machine.registers.slice();
    if (rng.chance(0.7)) this.#start(rng, machine, options, trace);
    for (let step = 0; step < STEPS; step++) {
      memory.taken();
      const what = rng.below(20);
      if (what < 14) this.#write(rng, machine, memory, trace);
      else if (what < 17) this.#request(rng, machine, memory, trace);
      else if (what < 18) this.#devices(rng, machine, memory, trace);
      else if (what === 18) {
        machine.outputs.holdAcks = rng.chance(0.3);
        if (!machine.outputs.holdAcks) machine.ack();
        trace.say(`holdAcks ${machine.outputs.holdAcks}`);
      } else if (rng.chance(0.05)) {
        trace.say('reset');
        machine.outputs.pending = 0;
        machine.model.reset();
        must(same(machine.registers, fresh), () => 'registers after reset are not those of power-on');
      }
      if (machine.outputs.events.length > 1000) machine.outputs.events.length = 0;
      machine.outputs.scopes.length = 0;
      machine.interrupts.length = 0;
    }
    for (const register of [VER_REG, CAP_REG, ECAP_REG]) {
      const at = register.offset / 4;
      for (let i = at; i < at + register.wordCount; i++) {
        must(machine.registers[i] === fresh[i], () => `${register.name} changed`);
      }
    }
  }

  /** What a driver does first, so that the stores that follow meet a unit at work. */
  #start(rng: Rng, machine: LocalMachine, options: Readonly<Record<string, string>>, trace: Trace): void {
    const scalable = rng.chance(0.5) && (machine.readRegister(ECAP_REG.offset, 8) >> 43n) % 2n === 1n;
    const mode = scalable ? 'scalable' : 'legacy';
    const driver = new VtdDriver(machine, { mode, pages: TABLES, queueSize: rng.pick([0, 0, 1, 4, 7]) });
    driver.start();
    const domain = driver.createDomain('second', 3);
    const { 'device-tlb': ats, 'page-requests': pri } = options;
    for (const rid of [0, 1, 2])
      driver.attach(rid, domain, { ats: ats === 'on', pri: scalable && pri === 'on' });
    domain.table?.map(0n, 0, RAM / 2);
    fillRing(driver);
    trace.say(`driver ${mode}, ring of ${driver.queue?.bytes} bytes`);
  }

  #write(rng: Rng, machine: LocalMachine, memory: CountingMemory, trace: Trace): void {
    const [offset, size, value] = rng.chance(0.35) ? meaningful(rng) : arbitrary(rng, machine.registerBytes);
    trace.say(`write ${size} bytes 0x${offset.toString(16)} = 0x${value.toString(16)}`);
    machine.writeRegister(offset, size, value);
    const words = memory.taken();
    if (words > this.#mostPerWrite) this.#mostPerWrite = words;
    must(words <= WORDS_PER_WRITE, () => `one write touched ${words} words of memory`);
  }

  #request(rng: Rng, machine: LocalMachine, memory: CountingMemory, trace: Trace): void {
    const rid = rng.chance(0.7) ? rng.below(4) : rng.below(0x10000);
    const pasid = rng.chance(0.5) ? -1 : rng.chance(0.7) ? rng.below(70) : rng.below(0x100000);
    const access = rng.chance(0.8) ? rng.pick([ACCESS.READ, ACCESS.WRITE]) : rng.below(16);
    const address = rng.chance(0.6) ? BigInt(rng.below(RAM)) : rng.odd64();
    const { UNTRANSLATED, TRANSLATION, TRANSLATED } = REQUEST;
    const kind = rng.pick([UNTRANSLATED, UNTRANSLATED, TRANSLATION, TRANSLATED]);
    trace.say(`request ${kind} rid ${rid} pasid ${pasid} access ${access} 0x${address.toString(16)}`);
    const result = machine.ask(rid, pasid, access, address, kind);
    const words = memory.taken();
    if (words > this.#mostPerTranslation) this.#mostPerTranslation = words;
    must(words <= WORDS_PER_TRANSLATION, () => `one translation touched ${words} words of memory`);
    must(
      result.count <= 64 && (result.status === TRANSLATE_STATUS.OK) === result.count > 0,
      () => 'status and count disagree',
    );
  }

  /** Devices answer, and ask for pages. */
  #devices(rng: Rng, machine: LocalMachine, memory: CountingMemory, trace: Trace): void {
    const pasid = rng.chance(0.5) ? -1 : rng.below(70);
    const page = { rid: rng.below(4), pasid, access: rng.below(16), address: rng.odd64() & ~0xfffn };
    trace.say(`page request rid ${page.rid} pasid ${pasid} access ${page.access}`);
    machine.tellDevices();
    memory.taken();
    machine.requestPage({ ...page, group: rng.below(512), last: rng.chance(0.6) });
    const words = memory.taken();
    must(words <= WORDS_PER_WRITE, () => `one page request touched ${words} words of memory`);
    machine.pageResponses.length = 0;
  }
}

/** Memory half full of things that look like entries and descriptors that point into it. */
function scatter(rng: Rng, memory: CountingMemory): void {
  for (let n = 0; n < 6000; n++) {
    const at = rng.below(RAM / 8) * 8;
    const pointer = rng.below(RAM / 4096) * 4096;
    const low = rng.chance(0.6) ? pointer | rng.below(16) : rng.u32();
    memory.store64(at, low, rng.chance(0.8) ? 0 : rng.u32());
  }
  for (let n = 0; n < 2000; n++) {
    const at = rng.below(RAM / 16) * 16;
    memory.store64(at, rng.below(10) | (rng.u32() & 0x70), rng.u32() & rng.u32());
  }
}

/** A store that a driver might make. */
function meaningful(rng: Rng): readonly [number, number, bigint] {
  const page = BigInt(rng.below(RAM / 4096)) << 12n;
  switch (rng.below(11)) {
    case 0:
      return [RTADDR_REG.offset, 8, page | (BigInt(rng.below(4)) << 10n)];
    case 1:
      return [IQA_REG.offset, 8, page | BigInt(rng.below(8)) | (rng.chance(0.5) ? 1n << 11n : 0n)];
    case 2:
      return [IQT_REG.offset, 8, BigInt(rng.below(1 << rng.pick([8, 12, 15]))) << 4n];
    case 3:
      return [GCMD_REG.offset, 4, rng.pick([0x8000_0000n, 0x4000_0000n, 0x0400_0000n, 0x8400_0000n, 0n])];
    case 4:
      return [GCMD_REG.offset, 4, BigInt(rng.u32())];
    case 5:
      return [0x34, 4, 0x7fn];
    case 6:
      return [VCMD_REG.offset, 8, (BigInt(rng.below(8)) << 16n) | BigInt(rng.below(4))];
    case 7:
      return [PQA_REG.offset, 8, page | BigInt(rng.below(8))];
    case 8:
      return [PQH_REG.offset, 8, BigInt(rng.below(1 << 12)) << 5n];
    case 9:
      return [PRS_REG.offset, 4, BigInt(rng.below(4))];
    default:
      return [FRCD_OFFSET + rng.below(8) * 16 + 12, 4, 0x8000_0000n];
  }
}

/**
 * Any store: near a register, or anywhere; any size, also sizes and alignments that no CPU makes.
 */
function arbitrary(rng: Rng, bytes: number): readonly [number, number, bigint] {
  const size = rng.pick([1, 2, 4, 4, 4, 8, 8]);
  const near = rng.pick(OFFSETS) + (rng.chance(0.2) ? rng.below(8) : rng.chance(0.3) ? 4 : 0);
  const offset = rng.chance(0.8) ? near : rng.below(bytes - 8);
  return [offset, size, rng.odd64() & ((1n << BigInt(size * 8)) - 1n)];
}

function same(a: Uint32Array, b: Uint32Array): boolean {
  return a.every((word, i) => word === b[i]);
}
