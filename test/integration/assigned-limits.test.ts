import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { planOffer } from '../../src/assignment/offer.js';
import type { ParentPasids } from '../../src/assignment/parent-pasids.js';
import type { RuleCode } from '../../src/assignment/plan-rules.js';
import {
  DEVICE_KINDS,
  type DeviceKind,
  fullHost,
  HOST_KINDS,
  type HostKind,
  nativeGuest,
} from '../../src/assignment/request.js';
import { ERRORS } from '../../src/base/errors.js';
import type { SimDevice } from '../../src/host/sim/sim-device.js';
import { SimHost } from '../../src/host/sim/sim-host.js';
import { SmmuDriver } from '../../src/sim/smmu-driver.js';
import { SmmuVirtualCommands } from '../../src/sim/smmu-virtual.js';
import { VtdDriver } from '../../src/sim/vtd-driver.js';
import { VirtualCommands } from '../../src/sim/vtd-virtual.js';
import { ECAP_REG } from '../../src/spec/vtd/registers.js';
import { Daemon, eventually } from '../support/daemon.js';
import { dmaRead, leftovers } from '../support/host-rig.js';
import { titled } from '../support/titled.js';
import { WiredMachine } from '../support/wired-machine.js';

/**
 * What daemons refuse of assigned devices, and what PASIDs of a parent device are limited by: over
 * the wire.
 */

const RAM = 2 ** 24;
const RID = 0x18;
const HOST_RID = 0x0108;
const IOVA = 0x4000_0000;
const DATA = 0x10_0000;

function clean(host: SimHost): void {
  expect(host.violations).toEqual([]);
  expect(leftovers(host)).toEqual({});
}

interface Forced {
  readonly kind: HostKind;
  readonly device: DeviceKind;
  readonly mode: 'shadow' | 'nest';
  readonly rule: RuleCode;
}

/** Every host and device for which a mode is impossible. */
const IMPOSSIBLE: readonly Forced[] = HOST_KINDS.flatMap((kind) =>
  DEVICE_KINDS.flatMap((device) =>
    (['shadow', 'nest'] as const).flatMap((mode): Forced[] => {
      const request = { device, guest: nativeGuest(kind), pasids: true, mode, host: fullHost(kind) };
      const planned = planOffer(request);
      return planned.ok ? [] : [{ kind, device, mode, rule: planned.code }];
    }),
  ),
);

describe('a mode that is impossible for a device', () => {
  /** By mode; told nothing of hosts. */
  const daemons = new Map<string, Daemon>();
  beforeAll(async () => {
    for (const mode of ['shadow', 'nest']) daemons.set(mode, await Daemon.start(['--mode', mode]));
  });
  afterAll(async () => {
    for (const daemon of daemons.values()) await daemon.dispose();
  });

  it('is what it is', () => {
    expect(IMPOSSIBLE.map(({ kind, device, mode, rule }) => [kind, device, mode, rule])).toEqual([
      ['smmuv3', 'mdev', 'nest', 'ONE_STAGE_2_PER_VF'],
      ['vtd2', 'mdev', 'nest', 'NESTE_IS_PER_CONTEXT'],
      ['vtd3', 'mdev', 'shadow', 'FIRST_LEVEL_IS_THE_GUESTS'],
    ]);
  });

  it.each(
    titled(IMPOSSIBLE, ({ kind, device, mode }) => `${kind}, ${device}, ${mode}: the command does not start`),
  )('%s', async (_title, { kind, device, mode, rule }) => {
    const other = mode === 'nest' ? 'shadow' : 'nest';
    await expect(Daemon.start(['--host', kind, '--device', device, '--mode', mode])).rejects.toThrow(
      new RegExp(`ended with 2:[^]*no ${mode} \\(${rule}\\): .*What would work: .*${other}`),
    );
  });

  it.each(
    titled(
      IMPOSSIBLE,
      ({ kind, device, mode }) => `${kind}, ${device}, ${mode}: a session refuses it, and goes on`,
    ),
  )('%s', async (_title, { kind, mode, rule }) => {
    const daemon = daemons.get(mode) as Daemon;
    const host = new SimHost({ kind, tableBytes: 2 ** 24 });
    host.addParent(HOST_RID);
    const model = kind === 'smmuv3' ? 'smmuv3' : 'vtd';
    const wired = new WiredMachine({ socket: daemon.socket, host, name: 'a', bytes: RAM, model });
    const device = host.addMdev(HOST_RID, wired.guest);
    wired.vm.addDevice(device.number, RID, 'refused');
    const { code, text, choice } = wired.assigned.announce(device);
    expect([code, choice]).toEqual([ERRORS.NOT_ASSIGNABLE.code, 0]);
    const other = mode === 'nest' ? 'shadow' : 'nest';
    expect(text).toMatch(new RegExp(`no ${mode} \\(${rule}\\): .*What would work: .*${other}`));
    wired.settle();
    expect(dmaRead(device, DATA, 1)).toBeUndefined();
    const refusal = () =>
      daemon.log().find((one) => one['device'] === 'refused' && String(one['reason']).includes(rule));
    expect((await eventually(refusal, 'a log line')).msg).toContain('cannot be assigned');
    wired.vm.reset();
    wired.close();
    clean(host);
  });
});

describe('a guest that is offered too little for its device', () => {
  it('is told of in the log, with the options that would do', async () => {
    const daemon = await Daemon.start();
    const host = new SimHost({ kind: 'vtd3', tableBytes: 2 ** 24 });
    host.addParent(HOST_RID);
    const given = { socket: daemon.socket, host, name: 'a', bytes: RAM, model: 'vtd' } as const;
    const wired = new WiredMachine({ ...given, options: { 'caching-mode': 'on' } });
    wired.plug(host.addMdev(HOST_RID, wired.guest), RID);
    const warnings = await eventually(() => {
      const found = daemon.log().filter(({ msg }) => msg.includes('is not offered'));
      return found.length > 0 && found;
    }, 'a warning');
    expect(warnings.map(({ rid, options }) => [rid, options])).toEqual([[RID, 'virtual-commands=on']]);
    wired.close();
    clean(host);
    await daemon.dispose();
  });
});

/** A guest with an mdev and its PASIDs: by the registers of either model. */
class PasidGuest {
  readonly wired: WiredMachine;
  readonly device: SimDevice;
  readonly allocate: () => number | undefined;
  readonly free: (pasid: number) => boolean;
  /** A PASID gets tables that map IOVA to a page. */
  readonly bind: (pasid: number, gpa: number) => void;
  /** They are taken away. */
  readonly unbind: (pasid: number) => void;

  constructor(daemon: Daemon, host: SimHost, kind: HostKind, name: string, pasidQuota?: number) {
    const model = kind === 'smmuv3' ? 'smmuv3' : 'vtd';
    const given = { socket: daemon.socket, host, name, bytes: RAM, model } as const;
    this.wired = new WiredMachine(pasidQuota === undefined ? given : { ...given, pasidQuota });
    this.device = host.addMdev(HOST_RID, this.wired.guest);
    this.wired.plug(this.device, RID);
    const pages = [RAM / 2, RAM] as const;
    if (model === 'smmuv3') {
      const driver = new SmmuDriver(this.wired.vm, { pages });
      driver.start();
      const commands = new SmmuVirtualCommands(driver.registers);
      expect(commands.offered).toBe(true);
      this.allocate = () => commands.allocate();
      this.free = (pasid) => commands.free(pasid);
      const domains = new Map<number, ReturnType<SmmuDriver['createDomain']>>();
      this.bind = (pasid, gpa) => {
        const domain = driver.createDomain('first');
        domains.set(pasid, domain);
        driver.attachSubstream(RID, pasid, domain);
        driver.map(domain, BigInt(IOVA), gpa, 4096);
      };
      this.unbind = (pasid) => {
        const domain = domains.get(pasid);
        if (domain !== undefined) driver.detachSubstream(RID, pasid, domain);
      };
      return;
    }
    const driver = new VtdDriver(this.wired.vm, { mode: 'scalable', pages, pdts: 3 });
    driver.start();
    const commands = new VirtualCommands(driver.registers);
    expect(commands.offered).toBe(true);
    this.allocate = () => commands.allocate();
    this.free = (pasid) => commands.free(pasid);
    // A guest that is shadowed is offered second stages only.
    const stage = driver.registers.field(ECAP_REG, 'FSTS') === 1 ? 'first' : 'second';
    const domains = new Map<number, ReturnType<VtdDriver['createDomain']>>();
    this.bind = (pasid, gpa) => {
      const domain = driver.createDomain(stage);
      domains.set(pasid, domain);
      driver.attach(RID, domain, { pasid });
      driver.map(domain, BigInt(IOVA), gpa, 4096);
    };
    this.unbind = (pasid) => {
      const domain = domains.get(pasid);
      if (domain !== undefined) driver.detach(RID, domain, pasid);
    };
  }

  /** PASIDs until there are none. */
  allocateAll(): number[] {
    const pasids: number[] = [];
    for (let pasid = this.allocate(); pasid !== undefined; pasid = this.allocate()) pasids.push(pasid);
    return pasids;
  }

  read(pasid: number): number | undefined {
    const word = dmaRead(this.device, IOVA, 1, pasid)?.[0];
    this.wired.settle();
    return word;
  }

  close(): void {
    this.wired.close();
  }
}

describe.each<HostKind>(['smmuv3', 'vtd2', 'vtd3'])('PASIDs of a parent device behind %s', (kind) => {
  let daemon: Daemon;
  beforeAll(async () => {
    daemon = await Daemon.start(['--host', kind, '--device', 'mdev']);
  });
  afterAll(() => daemon.dispose());

  /** A parent with seven PASIDs, of which each guest's mdev is one. */
  const parent = (): { host: SimHost; pasids: ParentPasids } => {
    const host = new SimHost({ kind, tableBytes: 2 ** 24 });
    return { host, pasids: host.addParent(HOST_RID, 3) };
  };

  it('end at a guest’s quota, which is no other guest’s', () => {
    const { host } = parent();
    const a = new PasidGuest(daemon, host, kind, 'a', 3);
    const b = new PasidGuest(daemon, host, kind, 'b');
    const pasids = a.allocateAll();
    expect(pasids).toHaveLength(2);
    expect(b.allocate()).toBeDefined();
    expect(a.allocate()).toBeUndefined();
    expect(a.free(pasids[0])).toBe(true);
    expect(a.allocateAll()).toHaveLength(1);
    // A reset gives all of them back.
    a.wired.vm.reset();
    expect(b.allocateAll()).toHaveLength(4);
    for (const guest of [a, b]) guest.close();
    clean(host);
  });

  it('run out for all guests, and come back with the guest that had them', () => {
    const { host } = parent();
    const [a, b, c] = ['a', 'b', 'c'].map((name) => new PasidGuest(daemon, host, kind, name));
    const pasids = a.allocateAll();
    expect(pasids).toHaveLength(4);
    expect([b.allocate(), c.allocate()]).toEqual([undefined, undefined]);
    for (const pasid of pasids) expect(b.free(pasid)).toBe(false);
    expect(a.free(pasids[2])).toBe(true);
    expect(a.free(pasids[2])).toBe(false);
    expect(b.allocate()).toBe(pasids[2]);
    expect(a.allocate()).toBeUndefined();
    // In the middle of it all: with its mdev's own, four are free.
    a.close();
    expect(c.allocateAll()).toHaveLength(4);
    for (const guest of [b, c]) guest.close();
    clean(host);
  });

  it('that were never used go first; one that is not clean goes to no guest, and counts for its owner', () => {
    const { host, pasids } = parent();
    const a = new PasidGuest(daemon, host, kind, 'a', 3);
    const b = new PasidGuest(daemon, host, kind, 'b');
    const used = a.allocate() as number;
    a.wired.vm.ram.store32(DATA, 0xaaaa);
    b.wired.vm.ram.store32(DATA, 0xbbbb);
    a.bind(used, DATA);
    expect(a.read(used)).toBe(0xaaaa);
    expect(a.free(used)).toBe(true);
    expect(a.read(used)).toBeUndefined();
    const second = a.allocate() as number;
    expect(second).not.toBe(used);
    a.bind(second, DATA);
    expect(a.read(second)).toBe(0xaaaa);
    a.unbind(second);
    // The host can't say that its caches are clean. The guest has given the PASID back all the
    // same.
    host.failures.arm('invalidate');
    expect(a.free(second)).toBe(true);
    expect([pasids.live, pasids.dirty]).toEqual([2, 1]);
    expect(a.read(second)).toBeUndefined();
    // The next guest to get this PASID reaches its own memory with it. It is the last one free.
    const rest = b.allocateAll();
    expect(rest).toContain(second);
    expect(rest.indexOf(used)).toBeGreaterThan(0);
    b.bind(second, DATA);
    expect(b.read(second)).toBe(0xbbbb);
    expect(a.read(second)).toBeUndefined();
    for (const guest of [a, b]) guest.close();
    clean(host);
  });
});
