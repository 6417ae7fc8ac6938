/**
 * Which invalidations reach a shadow: an entry that has changed is invalidated with the tags that
 * it had before (VT-d §6.5.3.3), and nothing in the tables says these any more.
 */
import { describe, expect, it } from 'vitest';
import { ShadowMachine } from '../../test/support/shadow-machine.js';
import { ArrayMemory } from '../memory/array.js';
import { type DriverOptions, type VtdDomain, VtdDriver } from '../sim/vtd-driver.js';

const MIB = 2 ** 20;
const RID = 0x18;
const OTHER = 0x20;
const DATA = 8 * MIB;
const INPUT = 0x4000_0000n;
const PAGE = Number(INPUT) / 4096;

type Mode = Pick<DriverOptions, 'mode' | 'invalidation' | 'pasidDevices'>;

const MODES: readonly (readonly [string, Mode])[] = [
  ['scalable, devices without PASIDs', { mode: 'scalable', pasidDevices: false }],
  ['scalable, devices with PASIDs', { mode: 'scalable', pasidDevices: true }],
  ['legacy', { mode: 'legacy' }],
  ['legacy, by registers', { mode: 'legacy', invalidation: 'registers' }],
];

class ScopeScene {
  readonly machine = new ShadowMachine(new ArrayMemory([{ base: 0, bytes: 16 * MIB }]), {
    'caching-mode': 'on',
  });
  readonly driver: VtdDriver;
  readonly one: VtdDomain;
  readonly two: VtdDomain;

  constructor(mode: Mode) {
    const { machine } = this;
    machine.addRam(1, 0, 16 * MIB);
    this.driver = new VtdDriver(machine, { ...mode, pages: [MIB, DATA] });
    this.driver.start();
    machine.addHost(1, RID);
    machine.addHost(2, OTHER);
    this.one = this.driver.createDomain('second');
    this.two = this.driver.createDomain('second');
    this.driver.map(this.one, INPUT, DATA, 4096);
    this.driver.map(this.two, INPUT, DATA + 4096, 4096);
    this.driver.attach(RID, this.one);
    this.driver.attach(OTHER, this.two);
  }

  /** Where the device's page leads on its host, as bytes of guest memory; undefined: nowhere. */
  at(device = 1): number | undefined {
    const { held } = this.machine.shadow.deviceSpace(device) ?? {};
    if (held?.seek(PAGE) !== true || held.first > PAGE) return undefined;
    return (held.out + PAGE - held.first) * 4096;
  }

  /** The device's entry is to be no longer present, and nothing is announced yet. */
  clearEntry(): void {
    this.driver.legacy?.setContext(RID, {});
    this.driver.scalable?.setPasid(RID, 0, {});
  }
}

describe.each(MODES)('an assigned device in %s mode', (_name, mode) => {
  it('reaches nothing of a domain that it was detached from', () => {
    const scene = new ScopeScene(mode);
    expect(scene.at()).toBe(DATA);
    scene.driver.detach(RID, scene.one);
    expect(scene.at()).toBeUndefined();
    expect(scene.at(2)).toBe(DATA + 4096);
  });

  it('reaches the new domain when its entry was replaced in place', () => {
    const scene = new ScopeScene(mode);
    scene.driver.replace(RID, scene.one, scene.two);
    expect(scene.at()).toBe(DATA + 4096);
  });

  it('follows what a domain-selective invalidation of the old domain says', () => {
    const scene = new ScopeScene(mode);
    const { invalidate } = scene.driver;
    scene.clearEntry();
    if (mode.mode === 'legacy') invalidate.contextDomain(scene.one.did);
    else invalidate.pasidCacheDomain(scene.one.did);
    invalidate.iotlbDomain(scene.one.did);
    invalidate.sync();
    expect(scene.at()).toBeUndefined();
  });

  it('is no longer concerned by a domain that it has left', () => {
    const scene = new ScopeScene(mode);
    scene.driver.replace(RID, scene.one, scene.two);
    const before = scene.machine.shadow.passes;
    scene.driver.unmap(scene.one, INPUT, 4096);
    expect(scene.machine.shadow.passes).toBe(before);
    expect(scene.at()).toBe(DATA + 4096);
  });

  it('is concerned by a domain until all of it has been invalidated, however often its entry changed', () => {
    const scene = new ScopeScene(mode);
    const { driver, machine } = scene;
    const third = driver.createDomain('second');
    // Another reason to look at the entry while it is in between: RAM that comes.
    if (mode.mode === 'legacy') driver.legacy?.setContext(RID, {});
    else driver.scalable?.setPasid(RID, 0, {});
    machine.addRam(2, 32 * MIB, 4096);
    expect(scene.at()).toBeUndefined();
    driver.replace(RID, scene.one, third);
    expect(scene.at()).toBeUndefined();
    driver.map(third, INPUT, DATA + 8192, 4096);
    expect(scene.at()).toBe(DATA + 8192);
  });
});
