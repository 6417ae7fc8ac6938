/**
 * Tables whose walks are not snooped (PWSNP clear, VT-d §9.6): a model sets no Accessed or Dirty
 * bit in them and refuses what would need one, so the shadow sets none either, and maps what the
 * model would let through.
 */
import { describe, expect, it } from 'vitest';
import { ShadowMachine } from '../../test/support/shadow-machine.js';
import { ACCESS, TRANSLATE_STATUS, type TranslateResult } from '../device/iommu.js';
import { ArrayMemory } from '../memory/array.js';
import { type VtdDomain, VtdDriver } from '../sim/vtd-driver.js';
import { differences } from './check.js';

const MIB = 2 ** 20;
const TABLES = MIB;
const DATA = 8 * MIB;
const END = 16 * MIB;
const RID = 0x18;
const INPUT = 0x4000_0000;
const PAGES = 3;
const LARGE = 1 << 7;
const PWSNP = 1 << 23;
const SSADE = 1 << 9;
/** Accessed and Dirty by stage: VT-d tables 4 and 6 of §9.7 and §9.8. */
const FIRST = { accessed: 1 << 5, dirty: 1 << 6 };
const SECOND = { accessed: 1 << 8, dirty: 1 << 9 };

type Kind = 'first' | 'second' | 'nested';

const KINDS: readonly (readonly [Kind, typeof FIRST])[] = [
  ['first', FIRST],
  ['second', SECOND],
  ['nested', FIRST],
];

class UnsnoopedScene {
  readonly memory = new ArrayMemory([{ base: 0, bytes: END }]);
  readonly machine = new ShadowMachine(this.memory, { 'caching-mode': 'on' });
  readonly driver: VtdDriver;
  readonly #domain: VtdDomain;
  readonly #entry: number;

  constructor(kind: Kind) {
    const { machine } = this;
    machine.addRam(1, 0, END);
    this.driver = new VtdDriver(machine, { mode: 'scalable', pasidDevices: false, pages: [TABLES, DATA] });
    const { driver } = this;
    driver.start();
    const parent = kind === 'nested' ? driver.createDomain('second') : undefined;
    const domain = kind === 'nested' ? driver.createNested(parent as VtdDomain) : driver.createDomain(kind);
    this.#domain = domain;
    // What the second stage does not keep needs nothing set: the first stage of a nested domain
    // decides.
    if (parent !== undefined) driver.map(parent, 0n, 0, END);
    driver.map(domain, BigInt(INPUT), DATA, PAGES * 4096);
    driver.attach(RID, domain);
    this.#entry = driver.scalable?.pasidEntry(RID, 0) as number;
    if (kind === 'second') this.change(0, SSADE);
    this.change(8, 0, PWSNP);
    machine.addHost(1, RID);
  }

  /** Sets and clears bits of the device's PASID-table entry, and says so. */
  change(offset: number, set: number, clear = 0): void {
    const { ram } = this.machine;
    ram.store32(this.#entry + offset, (ram.load32(this.#entry + offset) & ~clear) | set);
    this.invalidate();
  }

  invalidate(): void {
    const { invalidate } = this.driver;
    invalidate.pasidCacheGlobal();
    invalidate.iotlbGlobal();
    invalidate.sync();
  }

  /** Everything that tables hold. */
  tables(): Buffer {
    const words = new Uint32Array((DATA - TABLES) / 4);
    this.memory.loadWords(TABLES, words, words.length);
    return Buffer.from(words.buffer);
  }

  /**
   * The guest's processor sets bits of the entries of a stage that `which` chooses by where they
   * lead.
   */
  set(stage: 'first' | 'second', bits: number, which: (address: number) => boolean): void {
    const { ram } = this.machine;
    const under = (table: number, level: number): void => {
      for (let at = table; at < table + 4096; at += 8) {
        const lo = ram.load32(at);
        if ((lo & 3) === 0) continue;
        const address = lo & ~0xfff;
        if (which(address)) ram.store32(at, lo | bits);
        if (level > 1 && (lo & LARGE) === 0) under(address, level - 1);
      }
    };
    const domain = this.#domain.kind === 'nested' && stage === 'second' ? this.#domain.parent : this.#domain;
    under(Number(domain?.table?.rootAddress), 4);
  }

  /** ACCESS bits of each page, as the host has them and as the model allows them. */
  get rights(): { host: number[]; model: number[] } {
    const host: number[] = [];
    const model: number[] = [];
    const { held } = this.machine.shadow.deviceSpace(1) ?? {};
    for (let lo = INPUT; lo < INPUT + PAGES * 4096; lo += 4096) {
      const mapped = held?.seek(lo / 4096) === true && held.first <= lo / 4096;
      host.push(mapped ? (held?.access as number) : 0);
      model.push(this.#allows(lo, ACCESS.READ) | this.#allows(lo, ACCESS.WRITE));
    }
    return { host, model };
  }

  #allows(lo: number, access: number): number {
    const request = { rid: RID, pasid: -1, access, lo, hi: 0, kind: 0, mayStall: false };
    const result = { status: 0, count: 0, spans: new Uint32Array(64 * 6), space: 0, sub: 0, stall: 0 };
    this.machine.model.translate(request, result satisfies TranslateResult);
    return result.status === TRANSLATE_STATUS.OK ? access : 0;
  }

  get differences(): number {
    const { shadow, model } = this.machine;
    return differences(shadow, model, this.memory, undefined, 16).differences.length;
  }
}

describe.each(KINDS)('a %s-stage device whose walks are not snooped', (kind, { accessed, dirty }) => {
  it('reaches what needs no bit set, and no bit is set for it', () => {
    const stage = kind === 'second' ? 'second' : 'first';
    const scene = new UnsnoopedScene(kind);
    const tables = scene.tables();
    expect(scene.rights).toEqual({ host: [0, 0, 0], model: [0, 0, 0] });
    expect([scene.tables().equals(tables), scene.differences]).toEqual([true, 0]);

    // Leaves alone: what leads to them is not accessed.
    scene.set(stage, accessed, (address) => address >= DATA);
    scene.invalidate();
    expect(scene.rights).toEqual({ host: [0, 0, 0], model: [0, 0, 0] });

    scene.set(stage, accessed, () => true);
    scene.set(stage, dirty, (address) => address === DATA + 4096);
    scene.invalidate();
    const before = scene.tables();
    const { READ, WRITE } = ACCESS;
    const expected = [READ, READ | WRITE, READ];
    expect(scene.rights).toEqual({ host: expected, model: expected });
    expect([scene.tables().equals(before), scene.differences]).toEqual([true, 0]);
  });

  it('has bits set for it from when they are', () => {
    const scene = new UnsnoopedScene(kind);
    scene.change(8, PWSNP);
    expect([scene.rights.host, scene.differences]).toEqual([[3, 3, 3], 0]);
    scene.change(8, 0, PWSNP);
    expect([scene.rights.host, scene.differences]).toEqual([[3, 3, 3], 0]);
  });
});

it('a nested device reaches nothing where the second stage would have to set a bit', () => {
  const scene = new UnsnoopedScene('nested');
  scene.change(0, SSADE);
  scene.set('first', FIRST.accessed | FIRST.dirty, () => true);
  scene.invalidate();
  expect(scene.rights).toEqual({ host: [0, 0, 0], model: [0, 0, 0] });
  scene.set('second', SECOND.accessed | SECOND.dirty, () => true);
  scene.invalidate();
  expect(scene.rights).toEqual({ host: [3, 3, 3], model: [3, 3, 3] });
  expect(scene.differences).toBe(0);
});
