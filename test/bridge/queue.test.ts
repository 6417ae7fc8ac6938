/**
 * What the bridge makes of an entry of the guest's queue, by the description alone, beside the
 * model that knows the commands: whatever it takes for a plain command is one, and what it drops is
 * what the model announces. Random and hostile entries.
 */
import { spawnSync } from 'node:child_process';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ANY } from '../../src/base/ids.js';
import type { InvalidateScope } from '../../src/device/iommu.js';
import type { QueueDescription } from '../../src/device/peer-queue.js';
import { ArrayMemory } from '../../src/memory/array.js';
import { SmmuDriver } from '../../src/sim/smmu-driver.js';
import { VtdDriver } from '../../src/sim/vtd-driver.js';
import { CMD, CMD_SYNC, COMMAND_LAYOUT, CS } from '../../src/spec/smmuv3/commands.js';
import {
  DESCRIPTOR,
  DESCRIPTOR_LAYOUT,
  INV_WAIT_DSC,
  IOTLB_INV_DSC,
  P_IOTLB_INV_DSC,
} from '../../src/spec/vtd/descriptors.js';
import { CODEC } from '../../src/wire/codec.js';
import { contract } from '../support/contract.js';
import { LocalMachine } from '../support/local-machine.js';
import { Random } from '../walk/world.js';
import { BridgeBuild } from './make.js';

const SEED = Number(process.env['VIOMMU_SEED'] ?? 20261130);
const ENTRIES = 3000;
const RAM = 2 ** 22;
const WORDS = 8;
const PASSES = 64;

let build: BridgeBuild;
let program: string;

beforeAll(() => {
  build = new BridgeBuild('queue-test');
  program = build.path('queue-test');
}, 120_000);

afterAll(() => build.dispose());

function messageOf(description: QueueDescription): Buffer {
  const type = contract.lookupType('viommu.Queue');
  const body = { ...CODEC.Queue.create(), ...description, number: 1 };
  const bytes = type.encode(type.create({ ...body, commands: Array.from(description.commands) })).finish();
  const head = Buffer.alloc(5);
  head.write('Q');
  head.writeUInt32LE(bytes.length, 1);
  return Buffer.concat([head, bytes]);
}

/** What the program says to each entry. */
function ask(queue: Buffer, entries: readonly Uint32Array[]): string[] {
  const parts = entries.flatMap((words) => [Buffer.from('E'), Buffer.from(words.buffer)]);
  const { stdout, stderr, status } = spawnSync(program, { input: Buffer.concat([queue, ...parts]) });
  expect([status, stderr.toString()]).toEqual([0, '']);
  return stdout.toString().trimEnd().split('\n');
}

const hex = (value: number): string => (value >>> 0).toString(16);

/** As the program prints it. */
function dropText(scopes: readonly InvalidateScope[]): string {
  const [first] = scopes;
  if (first === undefined) return 'nothing';
  const blocks = scopes.map(({ lo, hi, log2Size, sub }) => {
    if (log2Size >= 64) return `all of ${hex(sub)}`;
    return `${((BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0)).toString(16)}/${log2Size}`;
  });
  return `drop ${hex(first.space)} ${hex(first.sub)}: ${blocks.join(' ')}`;
}

interface Unit {
  readonly machine: LocalMachine;
  readonly description: QueueDescription;
  /** An entry that is one of its commands, with random fields; the caller spoils some. */
  readonly entry: (random: Random) => Uint32Array;
}

function describeQueue(machine: LocalMachine): QueueDescription {
  const description = CODEC.Queue.create();
  expect(machine.model.peerQueue?.ready).toBe(true);
  machine.model.peerQueue?.describe(description);
  machine.outputs.onInvalidate = () => {};
  machine.outputs.pending = 0;
  return description;
}

function vtd(mode: 'legacy' | 'scalable', options: Readonly<Record<string, string>> = {}): Unit {
  const machine = new LocalMachine(new ArrayMemory([{ base: 0, bytes: RAM }]), options);
  machine.outputs.onInvalidate = () => {
    machine.outputs.pending--;
  };
  new VtdDriver(machine, { mode, pages: [RAM / 2, RAM] }).start();
  const shapes = [IOTLB_INV_DSC, P_IOTLB_INV_DSC, INV_WAIT_DSC, ...Object.values(DESCRIPTOR_LAYOUT)];
  const types: number[] = [DESCRIPTOR.IOTLB, DESCRIPTOR.PASID_IOTLB, DESCRIPTOR.WAIT];
  types.push(...Object.keys(DESCRIPTOR_LAYOUT).map(Number));
  const entry = (random: Random): Uint32Array => {
    const at = random.below(random.below(2) === 0 ? 3 : types.length);
    const words = randomFields(random, WORDS, shapes[at]?.reserved ?? []);
    const type = types[at] as number;
    words[0] = (words[0] & ~0xe0f) | (type & 0xf);
    if (mode === 'legacy') words.fill(0, 4);
    return words;
  };
  return { machine, description: describeQueue(machine), entry };
}

function smmuv3(options: Readonly<Record<string, string>>): Unit {
  const machine = new LocalMachine(new ArrayMemory([{ base: 0, bytes: RAM }]), options, 'smmuv3');
  machine.outputs.onInvalidate = () => {
    machine.outputs.pending--;
  };
  new SmmuDriver(machine, { pages: [RAM / 2, RAM] }).start();
  const opcodes = Object.values(CMD);
  const often = [CMD.TLBI_NH_VA, CMD.TLBI_NH_VAA, CMD.TLBI_S2_IPA, CMD.TLBI_NH_ASID, CMD.SYNC];
  const entry = (random: Random): Uint32Array => {
    const opcode =
      random.below(2) === 0 ? often[random.below(often.length)] : opcodes[random.below(opcodes.length)];
    const words = randomFields(random, 4, COMMAND_LAYOUT[opcode as number]?.reserved ?? []);
    words[0] = (words[0] & ~0x4ff) | (opcode as number);
    // Ranges of a few pages, too: those that become everything tell little.
    if (random.below(2) === 0) words[0] &= ~0x01c0_0000;
    if (opcode === CMD.SYNC && random.below(2) === 0) words[0] = (words[0] & ~0x3000) | (CS.SIG_IRQ << 12);
    if (random.below(4) === 0) words[2] &= ~0x300;
    if (random.below(4) === 0) words[0] &= ~0x01f1_f000;
    const whole = new Uint32Array(WORDS);
    whole.set(words);
    return whole;
  };
  return { machine, description: describeQueue(machine), entry };
}

const word32 = (random: Random): number => random.below(2 ** 32) | 0;

/** Mostly few bits, so that fields are small now and then; one in eight has a reserved bit. */
function randomFields(random: Random, count: number, reserved: readonly number[]): Uint32Array {
  const words = new Uint32Array(WORDS);
  for (let word = 0; word < count; word++) {
    words[word] =
      word32(random) &
      (random.below(2) === 0 ? word32(random) & word32(random) : -1) &
      ~(reserved[word] ?? 0);
  }
  if (random.below(8) === 0) words[random.below(count)] |= 1 << random.below(32);
  return words;
}

const UNITS: readonly (readonly [string, () => Unit])[] = [
  ['vtd, legacy mode', () => vtd('legacy')],
  ['vtd, scalable mode', () => vtd('scalable')],
  [
    'vtd, 57 bits, page requests',
    () => vtd('scalable', { 'aw-bits': '57', 'device-tlb': 'on', 'page-requests': 'on' }),
  ],
  ['smmuv3, nested', () => smmuv3({})],
  ['smmuv3, without ranges', () => smmuv3({ 'range-invalidation': 'off' })],
  ['smmuv3, stage 1', () => smmuv3({ stages: '1' })],
  ['smmuv3, stage 2', () => smmuv3({ stages: '2' })],
];

describe.each(UNITS)('%s', (_, make) => {
  it('takes for plain what is plain, and drops what the model announces', () => {
    const { machine, description, entry } = make();
    const random = new Random(SEED);
    const entries = Array.from({ length: ENTRIES }, () => entry(random));
    const said = ask(messageOf(description), entries);
    const scalable = machine.model.model === 'vtd' && description.entryLog2 === 5;
    const words = new Uint32Array(WORDS);
    const mask = description.indexMask;
    const step = 2 ** description.indexShift;
    const kinds = { drop: 0, store: 0, nothing: 0, '-': 0 };
    let index = (machine.registers[description.head / 4] as number) & mask;
    entries.forEach((bytes, at) => {
      const text = said[at] as string;
      kinds[text.split(' ')[0] as keyof typeof kinds]++;
      if (text === '-') return;
      words.set(bytes);
      machine.outputs.scopes.length = 0;
      index = ((index + step) & mask) >>> 0;
      const about = `entry ${Array.from(bytes, hex).join(' ')}: ${text}`;
      expect(machine.model.peerQueue?.ran(words, 0, 1, index), about).toBe(true);
      const scopes = machine.outputs.scopes;
      if (text.startsWith('store')) expect(text, about).toBe(storeText(machine, bytes));
      else if (scalable && (bytes[0] & 0x3f) === 0x32) expect(text, about).toBe(wholeDomain(bytes));
      else expect(text, about).toBe(dropText(scopes));
      if (machine.model.model === 'smmuv3' && (bytes[0] & 0xff) !== CMD.SYNC)
        expect(scopes.length, about).toBeGreaterThan(0);
    });
    expect(kinds.drop).toBeGreaterThan(PASSES);
    expect(kinds.store).toBeGreaterThan(0);
    expect(kinds['-']).toBeGreaterThan(PASSES);
  });
});

/**
 * A page-selective IOTLB invalidation of scalable mode: first-stage mappings of the domain go,
 * whatever their address.
 */
function wholeDomain(words: Uint32Array): string {
  return `drop ${hex(IOTLB_INV_DSC.get.DID(words))} ${hex(ANY)}: all of ${hex(ANY)}`;
}

function storeText(machine: LocalMachine, words: Uint32Array): string {
  const smmu = machine.model.model === 'smmuv3';
  const haw = smmu ? 52 : hostWidth(machine);
  const address = ((BigInt(words[3]) << 32n) | BigInt((words[2] & ~3) >>> 0)) & ((1n << BigInt(haw)) - 1n);
  const data = smmu ? CMD_SYNC.get.MSIData(words) : INV_WAIT_DSC.get.StatusData(words);
  return `store ${(address & ~3n).toString(16)} ${hex(data)}`;
}

/** MGAW is the host's width, at most 52. */
function hostWidth(machine: LocalMachine): number {
  return Math.min(52, (((machine.registers[2] as number) >>> 16) & 0x3f) + 1);
}

describe('positions', () => {
  it.each([
    ['vtd', () => vtd('scalable'), 0xfe0, 0x20, 2, 0x7f],
    ['vtd, 128 bits', () => vtd('legacy'), 0xff0, 0x10, 2, 0xff],
  ] as const)('of %s go around', (_, make, head, tail, count, place) => {
    const input = Buffer.alloc(9);
    input.write('D');
    input.writeUInt32LE(head, 1);
    input.writeUInt32LE(tail, 5);
    const { stdout } = spawnSync(program, { input: Buffer.concat([messageOf(make().description), input]) });
    expect(stdout.toString()).toBe(`${count} ${place}\n`);
  });

  it('of an SMMUv3 have a wrap bit: a queue may be full', () => {
    const { description } = smmuv3({});
    const entries = 2 ** description.entriesLog2;
    const ends = Buffer.alloc(9);
    ends.write('D');
    ends.writeUInt32LE(entries + 3, 1);
    ends.writeUInt32LE(3, 5);
    const { stdout } = spawnSync(program, { input: Buffer.concat([messageOf(description), ends]) });
    expect(stdout.toString()).toBe(`${entries} 3\n`);
  });
});

describe('a description that cannot be', () => {
  const good = (): QueueDescription => ({ ...vtd('legacy').description });
  const spoiled = (word: number, value: number) => (): Partial<QueueDescription> => {
    const commands = Uint32Array.from(good().commands);
    commands[word] = value;
    return { commands };
  };
  it.each<[string, Partial<QueueDescription> | (() => Partial<QueueDescription>)]>([
    ['entries of 64 bytes', { entryLog2: 6 }],
    ['a tail outside of the registers', { tail: 0x20000 }],
    ['a head between registers', { head: 0x81 }],
    ['a mask of other bits than the index has', { indexMask: 0x7fff0 }],
    ['half a command', { commands: [1, 2, 3] }],
    ['a field beyond its word', spoiled(21, 1 | (20 << 8) | (16 << 16))],
    ['a field in no word', spoiled(21, 4 | (16 << 16))],
    ['a kind that is none', spoiled(20, 3)],
    ['blocks of less than a page', spoiled(23, 11)],
  ])('%s', (_, changes) => {
    const changed = typeof changes === 'function' ? changes() : changes;
    expect(ask(messageOf({ ...good(), ...changed }), [])).toEqual(['bad queue']);
  });
});
