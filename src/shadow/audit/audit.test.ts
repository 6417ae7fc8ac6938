/**
 * The audit beside a real model and a shadow that is told everything, too little, or the wrong
 * thing.
 */
import { describe, expect, it } from 'vitest';
import { CountingMemory } from '../../../test/fuzz/counting-memory.js';
import { ShadowMachine } from '../../../test/support/shadow-machine.js';
import { spoiling } from '../../../test/support/spoil.js';
import { ANY } from '../../base/ids.js';
import type { InvalidateScope } from '../../device/iommu.js';
import { ArrayMemory } from '../../memory/array.js';
import { type DriverOptions, type VtdDomain, VtdDriver } from '../../sim/vtd-driver.js';
import { pack } from '../../spec/define.js';
import { CMDQ_BASE, CMDQ_CONS, CMDQ_PROD, CR0ACK, IDR1 } from '../../spec/smmuv3/registers.js';
import { FSTS_REG, IQT_REG } from '../../spec/vtd/registers.js';
import { CAUSE } from '../check.js';
import { Audit } from './audit.js';
import { SmmuCommands } from './smmuv3.js';
import { VtdCommands } from './vtd.js';

const MIB = 2 ** 20;
const RID = 0x18;
const DATA = 8 * MIB;
const INPUT = 0x4000_0000n;
const PAGE = Number(INPUT) / 4096;

class AuditScene {
  readonly machine = new ShadowMachine(new ArrayMemory([{ base: 0, bytes: 16 * MIB }]), {
    'caching-mode': 'on',
  });
  readonly driver: VtdDriver;
  readonly one: VtdDomain;
  readonly two: VtdDomain;

  constructor(options: Partial<DriverOptions> = {}) {
    const { machine } = this;
    machine.addRam(1, 0, 16 * MIB);
    this.driver = new VtdDriver(machine, {
      ...{ mode: 'scalable', pasidDevices: false, pages: [MIB, DATA] },
      ...options,
    });
    this.driver.start();
    machine.addHost(1, RID);
    this.one = this.driver.createDomain('second');
    this.two = this.driver.createDomain('second');
    for (const domain of [this.one, this.two]) this.driver.map(domain, INPUT, DATA + domain.did * 4096, 4096);
    this.driver.attach(RID, this.one);
  }

  get causes(): (string | undefined)[] {
    return this.machine.audit.answer(0).differences.map(({ cause }) => cause);
  }

  /** Completions that have nothing to do with the page. */
  others(count: number, domain = this.one): void {
    for (let n = 0; n < count; n++) {
      this.driver.invalidate.iotlbPage(domain.did, 0x7000_0000n, 0);
      this.driver.invalidate.sync();
    }
  }
}

describe.each([
  ['scalable', {}],
  ['legacy', { mode: 'legacy' }],
  ['legacy, by registers', { mode: 'legacy', invalidation: 'registers' }],
] as const)('the audit of completions, %s', (_name, options) => {
  it('finds nothing where everything is announced and followed', () => {
    const scene = new AuditScene(options);
    scene.driver.unmap(scene.one, INPUT, 4096);
    scene.driver.map(scene.one, INPUT, DATA, 4096);
    scene.driver.replace(RID, scene.one, scene.two);
    scene.driver.detach(RID, scene.two);
    scene.others(100);
    expect(scene.machine.audit.answer(0)).toMatchObject({ differences: [], more: false });
    expect(scene.machine.audit.answer(0).completions).toBeGreaterThan(24);
  });

  it('finds an unmapping that the model does not announce', () => {
    const scene = new AuditScene(options);
    spoiling(
      () => undefined,
      () => scene.driver.unmap(scene.one, INPUT, 4096),
    );
    expect(scene.machine.audit.answer(0).differences).toMatchObject([
      { first: '0x0000000040000000', last: '0x0000000040000fff', cause: CAUSE.NOT_FOLLOWED },
    ]);
  });

  it('finds one that is announced of another domain, or of another page', () => {
    for (const change of [{ space: 77 }, { lo: 0x5000_0000 }]) {
      const scene = new AuditScene(options);
      spoiling(
        (scope) => ({ ...scope, ...change }),
        () => scene.driver.unmap(scene.one, INPUT, 4096),
      );
      expect(scene.causes).toEqual([CAUSE.NOT_FOLLOWED]);
    }
  });

  it('finds an entry that was cleared, of which the shadow hears by no tag that it knows', () => {
    const scene = new AuditScene(options);
    spoiling(
      (scope) => ({ ...scope, ...(scope.rid === ANY ? { space: 77 } : { rid: 0x99 }) }),
      () => scene.driver.detach(RID, scene.one),
    );
    expect(scene.causes).toEqual([CAUSE.NOT_FOLLOWED]);
  });

  it('tells that the guest has forgotten to invalidate, after a while', () => {
    const scene = new AuditScene(options);
    scene.one.table?.unmap(INPUT, 4096);
    scene.others(4);
    expect(scene.causes).toEqual([]);
    scene.others(800);
    expect(scene.causes).toEqual([CAUSE.NOT_INVALIDATED]);
    expect(scene.machine.audit.answer(1).differences).toEqual([]);
  });

  it('tells that an entry was changed and never invalidated', () => {
    const scene = new AuditScene(options);
    scene.driver.legacy?.setContext(RID, {});
    scene.driver.scalable?.setPasid(RID, 0, {});
    scene.others(800, scene.two);
    expect(scene.causes).toEqual([CAUSE.NOT_INVALIDATED]);
  });

  it('finds what the host has lost or gained while tables stayed the same', () => {
    const scene = new AuditScene(options);
    scene.others(100);
    scene.machine.shadow.deviceSpace(1)?.held.removeRange(PAGE, PAGE);
    scene.others(100);
    expect(scene.causes).toEqual([CAUSE.NOT_FOLLOWED]);
  });

  it('has no verdict on a page that changes behind the invalidation that names it', () => {
    const scene = new AuditScene(options);
    const meanwhile = (scope: InvalidateScope): InvalidateScope => {
      // Another processor maps the next page while this one is being invalidated with its
      // neighbour.
      scene.one.table?.map(INPUT + 4096n, DATA, 4096);
      return { ...scope, log2Size: 12 };
    };
    scene.one.table?.unmap(INPUT, 4096);
    spoiling(meanwhile, () => {
      scene.driver.invalidate.iotlbPage(scene.one.did, INPUT, 1);
      scene.driver.invalidate.sync();
    });
    expect(scene.causes).toEqual([]);
    scene.driver.invalidateRange(scene.one, INPUT + 4096n, 4096);
    scene.driver.invalidate.sync();
    scene.others(100);
    expect(scene.causes).toEqual([]);
  });

  it('says what the host refused', () => {
    const scene = new AuditScene(options);
    const host = scene.machine.hosts.get(1);
    if (host !== undefined) host.refuse = (access) => (access === 0 ? 0 : 12);
    scene.driver.map(scene.one, INPUT + 4096n, DATA, 4096);
    scene.others(100);
    expect(scene.causes).toEqual([CAUSE.REFUSED]);
  });

  it('knows from its beginning what a device went through', () => {
    const scene = new AuditScene(options);
    const { machine, driver } = scene;
    const audit = new Audit(
      machine.shadow,
      machine.model,
      machine.memory,
      new VtdCommands(machine.registers, machine.memory),
    );
    machine.audit = audit;
    spoiling(
      () => undefined,
      () => driver.detach(RID, scene.one),
    );
    expect(audit.answer(0).differences).toMatchObject([{ cause: CAUSE.NOT_FOLLOWED }]);
  });
});

describe('what is asked for', () => {
  it('is not done before the unit has come to it, whatever is written to FSTS before that', () => {
    let early = true;
    const memory = new ArrayMemory([{ base: 0, bytes: 16 * MIB }]);
    const machine = new ShadowMachine(memory, { 'caching-mode': 'on' }, () => early);
    machine.addRam(1, 0, 16 * MIB);
    const driver = new VtdDriver(machine, { mode: 'legacy', pages: [MIB, DATA] });
    driver.start();
    machine.addHost(1, RID);
    const domain = driver.createDomain('second');
    driver.map(domain, INPUT, DATA, 8192);
    driver.attach(RID, domain);
    early = false;
    const { queue } = driver;
    if (queue === undefined) throw new Error('no queue');
    let last = queue.submitWait();
    for (const page of [INPUT, INPUT + 4096n]) {
      domain.table?.unmap(page, 4096);
      driver.invalidate.iotlbPage(domain.did, page, 0);
      last = queue.submitWait();
    }
    queue.kick();
    machine.writeRegister(FSTS_REG.offset, 4, 1n);
    queue.await(last);
    expect(machine.audit.answer(0).differences).toEqual([]);
  });

  it('of another domain in legacy mode says nothing of this one', () => {
    const scene = new AuditScene({ mode: 'legacy' });
    scene.one.table?.unmap(INPUT, 4096);
    scene.driver.invalidate.contextDomain(scene.two.did);
    scene.driver.invalidate.sync();
    expect(scene.causes).toEqual([]);
  });

  it('by a queue that says it is larger than it may be is read no further than that', () => {
    const registers = new Uint32Array(0x8000);
    const memory = new ArrayMemory([{ base: 0, bytes: 16 * MIB }]);
    registers[IDR1.offset >> 2] = pack(IDR1, { CMDQS: 15 })[0];
    registers[CMDQ_BASE.offset >> 2] = 31;
    registers[CR0ACK.offset >> 2] = pack(CR0ACK, { CMDQEN: 1 })[0];
    const commands = new SmmuCommands(registers, memory);
    const before = commands.done;
    expect(commands.written(CMDQ_PROD.offset, 4, 0xffff, 0).length).toBeLessThanOrEqual(1024);
    expect(commands.done).toBe(before);
    registers[CMDQ_CONS.offset >> 2] = 0xffff;
    expect(commands.done).toBe(0xffff);
  });

  it('while its queue is off is nothing', () => {
    const scene = new AuditScene();
    scene.driver.stop();
    const { machine } = scene;
    const commands = new VtdCommands(machine.registers, machine.memory);
    expect(commands.written(IQT_REG.offset, 4, 0x40, 0)).toEqual([]);
    expect(commands.written(IQT_REG.offset, 1, 0x80, 0)).toEqual([]);
  });

  it('of tables too large to look at has no verdict, and what it costs is bounded', () => {
    const scene = new AuditScene();
    const { machine, driver, one } = scene;
    const counting = new CountingMemory(machine.memory);
    const audit = new Audit(
      machine.shadow,
      machine.model,
      counting,
      new VtdCommands(machine.registers, counting),
    );
    machine.audit = audit;
    // A table of which every entry leads to itself: more pages than anybody can look at.
    const root = one.table?.root ?? 0;
    for (let entry = 0; entry < 512; entry++) machine.ram.store64(root + entry * 8, BigInt(root) | 3n);
    counting.taken();
    // The shadow hears nothing of it: this is about what looking on costs.
    spoiling(
      () => undefined,
      () => {
        for (let n = 0; n < 20; n++) {
          driver.invalidate.iotlbDomain(one.did);
          driver.invalidate.sync();
        }
      },
    );
    expect(counting.taken()).toBeLessThan(3 * 2 ** 20);
    expect(audit.answer(0).differences).toEqual([]);
  });
});
