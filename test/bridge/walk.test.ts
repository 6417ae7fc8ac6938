/**
 * The bridge's walks beside the daemon's walker, over random and hostile tables of every format:
 * they find exactly what the daemon would find without setting a bit or recording a fault, and
 * nothing else.
 */
import { spawnSync } from 'node:child_process';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Iommu } from '../../src/device/iommu.js';
import { noWalkTables, type WalkTables } from '../../src/device/tables.js';
import type { ArrayMemory } from '../../src/memory/array.js';
import { PeerWalks } from '../../src/session/peer-walks.js';
import { WalkResult } from '../../src/walk/types.js';
import type { Codec } from '../../src/wire/codec.js';
import { contract } from '../support/contract.js';
import { walkAsPeer } from '../support/peer-walks.js';
import { GRANULES, randomCase, VmsaWorld } from '../walk/vmsa-world.js';
import { allCases, Random, World } from '../walk/world.js';
import { BridgeBuild } from './make.js';

const SEED = Number(process.env['VIOMMU_SEED'] ?? 20261126);
const ADDRESSES = 400;
const PAGE = 4096;
/** Bytes of memory whose entries the bridge looks at together. */
const LINE = 64;

let build: BridgeBuild;
let program: string;

beforeAll(() => {
  build = new BridgeBuild('walk-test');
  program = build.path('walk-test');
}, 120_000);

afterAll(() => build.dispose());

/** Commands for the program, and the lines that it has to print. */
class Script {
  readonly parts: Buffer[] = [];
  readonly expected: string[] = [];
  found = 0;
  readonly #result = new WalkResult();

  memory(memory: ArrayMemory, pages: readonly number[], bytes: number): void {
    this.parts.push(Buffer.from('C'));
    for (const page of pages) {
      const words = new Uint32Array(bytes / 4);
      if (!memory.loadWords(page, words, words.length)) throw new Error(`no memory at ${page}`);
      const head = Buffer.alloc(17);
      head.write('S');
      head.writeBigUInt64LE(BigInt(page), 1);
      head.writeBigUInt64LE(BigInt(bytes), 9);
      this.parts.push(head, Buffer.from(words.buffer));
    }
  }

  tables(tables: WalkTables): void {
    const message = messageOf(tables);
    const head = Buffer.alloc(5);
    head.write('T');
    head.writeUInt32LE(message.length, 1);
    this.parts.push(head, Buffer.from(message));
  }

  ask(memory: ArrayMemory, tables: WalkTables, address: bigint, access: number): void {
    const command = Buffer.alloc(13);
    command.write('A');
    command.writeBigUInt64LE(address, 1);
    command.writeUInt32LE(access, 9);
    this.parts.push(command);
    this.expected.push(this.#answer(memory, tables, address, access));
  }

  /**
   * What the daemon finds with looks that set nothing: at the address, and at those whose entries
   * are in the same line.
   */
  #answer(memory: ArrayMemory, tables: WalkTables, address: bigint, access: number): string {
    const result = this.#result;
    const asked = this.#block(memory, tables, address, access);
    if (asked === undefined) return '-';
    this.found++;
    const blocks = [asked];
    const { entryAddress, log2Size } = result;
    for (let entry = entryAddress + 8, n = 1n; entry % LINE !== 0; entry += 8, n++) {
      const next = BigInt.asUintN(64, address + (n << BigInt(log2Size)));
      const block = this.#block(memory, tables, next, 0);
      if (block !== undefined && result.entryAddress === entry && result.log2Size === log2Size)
        blocks.push(block);
    }
    return blocks.join(', ');
  }

  #block(memory: ArrayMemory, tables: WalkTables, address: bigint, access: number): string | undefined {
    const block = walkAsPeer(memory, tables, access, address, this.#result);
    return (
      block && `${block.input.toString(16)} ${block.output.toString(16)} ${block.log2Size} ${block.rights}`
    );
  }

  /** Runs the program; returns what it printed. */
  run(): string[] {
    const input = Buffer.concat(this.parts);
    const { status, stdout, stderr } = spawnSync(program, { input, maxBuffer: 1 << 28 });
    expect([status, stderr.toString()]).toEqual([0, '']);
    return stdout.toString().split('\n').slice(0, -1);
  }
}

/** The first line that differs says more than all of them. */
function expectSame(actual: readonly string[], expected: readonly string[]): void {
  const at = expected.findIndex((line, index) => line !== actual[index]);
  expect({ at, line: actual[at] }).toEqual({ at, line: expected[at] });
  expect(actual).toHaveLength(expected.length);
}

/** PEER_WALK as the session sends it. */
function messageOf(tables: WalkTables): Uint8Array {
  let bytes: Uint8Array | undefined;
  const walks = new PeerWalks();
  walks.open({
    put<T extends object>(_type: number, _flags: number, _id: number, codec: Codec<T>, message: T): void {
      bytes = contract.lookupType(`viommu.${codec.name}`).encode(message).finish().slice();
    },
  });
  const describe = (_rid: number, _pasid: number, _hi: number, to: WalkTables): boolean => {
    Object.assign(to, tables);
    return true;
  };
  walks.answered(8, -1, 0, { peerWalk: { describe } } as unknown as Iommu);
  if (bytes === undefined) throw new Error('nothing was sent');
  return bytes;
}

describe("the bridge's walks", () => {
  it('VT-d: find what the daemon finds, in every format', { timeout: 120_000 }, () => {
    const script = new Script();
    const random = new Random(SEED);
    const world = new World(random);
    for (const [index, { format, rules }] of allCases().entries()) {
      if (index % 8 === 0) {
        world.shuffle(index % 3 === 0 ? 0.1 : 0.01);
        if (index % 16 === 0) world.tidy(rules.levels);
        script.memory(world.memory, world.pages, PAGE);
      }
      // Somewhere in low memory, so that tables and outputs meet it.
      const first = random.below(40);
      const hole = {
        holeFirst: first,
        holeLast: Math.max(first + random.below(4) - 1, 0),
        holeInput: random.chance(0.5),
      };
      const tables = { ...noWalkTables(), format, root: world.root(), ...hole };
      script.tables(tables);
      for (let n = 0; n < ADDRESSES; n++)
        script.ask(world.memory, tables, world.address(rules.inputBits), 1 + random.below(3));
    }
    expectSame(script.run(), script.expected);
    expect(script.found).toBeGreaterThan(script.expected.length / 20);
  });

  it('SMMUv3: find what the daemon finds, at every granule and stage', { timeout: 120_000 }, () => {
    for (const granule of GRANULES) {
      const script = new Script();
      const random = new Random(SEED + granule);
      const world = new VmsaWorld(random);
      for (let round = 0; round < 48; round++) {
        if (round % 8 === 0) {
          world.shuffle(round % 16 === 0 ? 0.1 : 0.01);
          script.memory(world.memory, world.pages, 0x1_0000);
        }
        const { format, rules } = randomCase(random, random.pick([1, 2] as const), granule);
        // nG, in half of the first stages.
        const expected = rules.stage === 1 && random.chance(0.5) ? 1 << 11 : 0;
        const tables = { ...noWalkTables(), format, root: world.root(), expectedMask: expected, expected };
        script.tables(tables);
        for (let n = 0; n < ADDRESSES; n++)
          script.ask(world.memory, tables, world.address(rules), 1 + random.below(3));
      }
      expectSame(script.run(), script.expected);
      expect(script.found).toBeGreaterThan(script.expected.length / 50);
    }
  });

  it('refuse a description that is none', () => {
    const [{ format }] = allCases() as [ReturnType<typeof allCases>[number]];
    const level = { ...format.root, shift: 70 };
    const wrong = [
      { ...format, root: level },
      { ...format, rights: format.rights.subarray(0, 4) },
      { ...format, lowShift: 40 },
      { ...format, root: { ...format.root, indexMask: 0x1ff_ffff } },
      { ...format, root: { ...format.root, indexMask: 510 } },
    ];
    const script = new Script();
    for (const bad of wrong) script.tables({ ...noWalkTables(), format: bad });
    expect(script.run()).toEqual(wrong.map(() => 'bad tables'));
  });
});
