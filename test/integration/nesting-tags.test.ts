import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { SimHost } from '../../src/host/sim/sim-host.js';
import { firstStageFields } from '../../src/sim/smmu-domain.js';
import { SmmuDriver } from '../../src/sim/smmu-driver.js';
import { storeStructure } from '../../src/sim/structure.js';
import { VtdDriver } from '../../src/sim/vtd-driver.js';
import { CMD } from '../../src/spec/smmuv3/commands.js';
import { CD, STE_CONFIG } from '../../src/spec/smmuv3/structures.js';
import { PGTT } from '../../src/spec/vtd/structures.js';
import { Daemon, eventually } from '../support/daemon.js';
import { dmaRead, leftovers } from '../support/host-rig.js';
import { WiredMachine } from '../support/wired-machine.js';

/**
 * A completion of a nested guest's says that nothing stale is reached, on a host whose caches keep
 * what they hold when a stream leaves its tables: through a daemon and its socket.
 */

const RAM = 2 ** 24;
const RID = 0x18;
const HOST_RID = 0x0108;
const IOVA = 0x4000_0000;
const DATA = 0x10_0000;

let daemon: Daemon;
beforeAll(async () => {
  daemon = await Daemon.start();
});
afterAll(() => daemon.dispose());

function machine(kind: 'smmuv3' | 'vtd3', options: Readonly<Record<string, string>> = {}) {
  const host = new SimHost({ kind, tableBytes: 2 ** 24 });
  const model = kind === 'smmuv3' ? 'smmuv3' : 'vtd';
  const wired = new WiredMachine({ socket: daemon.socket, host, name: kind, bytes: RAM, model, options });
  const { ram } = wired.vm;
  for (const page of [0, 1, 2]) ram.store32(DATA + page * 4096, page + 1);
  const devices = [0, 1].map((index) => {
    const device = host.addVf(HOST_RID + index, wired.guest);
    wired.plug(device, RID + 8 * index);
    return device;
  });
  const read = (index = 0, pasid = -1) => dmaRead(devices[index], IOVA, 1, pasid)?.[0];
  return { host, wired, read };
}

function end({ host, wired }: ReturnType<typeof machine>): void {
  wired.close();
  expect(host.violations).toEqual([]);
  expect(leftovers(host)).toEqual({});
}

describe('an SMMUv3 guest', () => {
  /** A stream whose ASID 1 has been used. */
  function used() {
    const made = machine('smmuv3');
    const driver = new SmmuDriver(made.wired.vm, { pages: [RAM / 2, RAM] });
    driver.start();
    const own = driver.createDomain('first');
    driver.map(own, BigInt(IOVA), DATA, 4096);
    driver.attach(RID, own);
    expect(made.read()).toBe(1);
    /** Another CD table, with this ASID and a page of its own. */
    const elsewhere = (sid: number, page: number, vmid = 0): void => {
      const domain = { ...driver.createDomain('first'), asid: own.asid };
      driver.map(domain, BigInt(IOVA), DATA + page * 4096, 4096);
      const cd = driver.pages.take();
      storeStructure(made.wired.vm.ram, cd, CD, firstStageFields(domain, driver.capabilities.outputBits));
      const ste = { V: 1, Config: STE_CONFIG.S1_TRANSLATE, S1ContextPtr: cd, S2VMID: vmid };
      driver.streams.set(sid, ste);
      driver.commands.stream(sid);
    };
    return { ...made, driver, own, elsewhere };
  }

  it.each(['TLBI', 'CFGI'])('that exchanges the CD table and invalidates in one batch, %s first', (first) => {
    const guest = used();
    const { driver, own, elsewhere } = guest;
    if (first === 'TLBI') driver.commands.asid(0, own.asid);
    elsewhere(RID, 1);
    if (first === 'CFGI') driver.commands.asid(0, own.asid);
    driver.commands.sync();
    expect(guest.read()).toBe(2);
    end(guest);
  });

  it('that invalidates while its stream has no tables', () => {
    const guest = used();
    const { driver, elsewhere } = guest;
    driver.detach(RID);
    elsewhere(RID, 1);
    driver.commands.sync();
    expect(guest.read()).toBe(2);
    end(guest);
  });

  it('that invalidates after a reset, before SMMUEN: the host hears it', () => {
    const guest = used();
    const { wired, driver, elsewhere } = guest;
    wired.vm.reset();
    const commands: number[] = [];
    const invalidate = wired.guest.invalidate.bind(wired.guest);
    wired.guest.invalidate = (parent, list, done) => {
      for (let at = 0; at < list.count; at++) commands.push((list.words[at * 4] as number) & 0xff);
      invalidate(parent, list, done);
    };
    driver.queue.program();
    driver.control({ CMDQEN: 1 });
    expect(commands).toEqual([]);
    driver.commands.configurationAll();
    driver.commands.translationsAll();
    driver.commands.sync();
    expect(commands).toContain(CMD.CFGI_CD_ALL);
    expect(commands).toContain(CMD.TLBI_NSNH_ALL);
    driver.start();
    elsewhere(RID, 1);
    driver.commands.sync();
    expect(guest.read()).toBe(2);
    end(guest);
  });

  it('whose streams have two VMIDs: one of them is blocked, and said, until the other has gone', async () => {
    const guest = used();
    const { driver, elsewhere } = guest;
    elsewhere(RID + 8, 2, 7);
    driver.commands.sync();
    expect([guest.read(0), guest.read(1)]).toEqual([1, undefined]);
    const said = 'hardware cannot nest stage 1 under VMID 7 beside one under VMID 0: requests there fail';
    await eventually(() => daemon.log().some(({ msg }) => msg === said), 'the log line');
    driver.detach(RID);
    expect([guest.read(0), guest.read(1)]).toEqual([undefined, 3]);
    end(guest);
  });
});

describe('a VT-d guest', () => {
  it('that gives an entry another domain-id, and invalidates under the one that it had', () => {
    const guest = machine('vtd3', { 'caching-mode': 'on' });
    const { wired } = guest;
    const driver = new VtdDriver(wired.vm, { mode: 'scalable', pages: [RAM / 2, RAM], pdts: 3 });
    driver.start();
    const own = driver.createDomain('first');
    driver.attach(RID, own, { pasid: 5 });
    driver.map(own, BigInt(IOVA), DATA, 4096);
    expect(guest.read(0, 5)).toBe(1);
    own.table?.map(BigInt(IOVA), DATA + 4096, 4096);
    const FSPTPTR = Number(own.table?.rootAddress ?? 0n);
    driver.scalable?.setPasid(RID, 5, { P: 1, PWSNP: 1, PGTT: PGTT.FIRST_STAGE, DID: 99, FSPTPTR });
    driver.invalidate.pasidCache(own.did, 5);
    driver.invalidate.pasidIotlb(own.did, 5);
    driver.invalidate.sync();
    expect(guest.read(0, 5)).toBe(2);
    end(guest);
  });
});
