import { describe, expect, it } from 'vitest';
import {
  command,
  ENABLES,
  EXECUTE,
  PRI_QUEUE,
  PRIVILEGED,
  QUEUE_LOG2,
  READ,
  ROM,
  SID,
  TestSmmu,
  WRITE,
} from '../../../test/support/smmu-unit.js';
import { NO_PASID } from '../../base/ids.js';
import { CMD, CMD_PRI_RESP, PRI_RESP } from '../../spec/smmuv3/commands.js';
import {
  CR0,
  IRQ_CTRL,
  PRIQ_BASE,
  PRIQ_CONS,
  PRIQ_IRQ_CFG0,
  PRIQ_IRQ_CFG2,
  PRIQ_PROD,
} from '../../spec/smmuv3/registers.js';
import { STE_CONFIG } from '../../spec/smmuv3/structures.js';
import { PAGE_RESPONSE, WIRE } from '../iommu.js';

const ENTRIES = 2 ** QUEUE_LOG2;
const OVERFLOW = 0x8000_0000;
const PRIQ_ABT_ERR = 8;
const MSI_PRIQ_ABT_ERR = 64;
const ON = ENABLES.ALL | ENABLES.PRIQEN;
const answer = (code: number, pasid = NO_PASID, group = 3) => ({ rid: SID, pasid, group, code });

function ready(options: Record<string, string> = {}): TestSmmu {
  const vm = new TestSmmu({ ats: 'on', ...options });
  vm.write32(IRQ_CTRL.offset, 2);
  vm.start(ON);
  vm.ste(SID, { Config: STE_CONFIG.BYPASS });
  return vm;
}

/** A queue that has just overflowed. */
function overflown(options: Record<string, string> = {}): TestSmmu {
  const vm = ready(options);
  for (let n = 0; n < ENTRIES; n++) vm.requestPage({ last: false });
  vm.wires.length = 0;
  vm.requestPage({ last: false });
  expect(vm.read(PRIQ_PROD.offset)).toBe((OVERFLOW | ENTRIES) >>> 0);
  return vm;
}

describe('the PRI queue', () => {
  it('takes requests with all they say', () => {
    const vm = ready();
    vm.requestPage({ last: false });
    vm.requestPage({
      pasid: 0x12345,
      access: WRITE | EXECUTE | PRIVILEGED,
      lo: 0xffff_f000,
      hi: 0xfff0_0000,
    });
    vm.requestPage({ access: READ | WRITE | EXECUTE | PRIVILEGED, lo: 0xabc, hi: 0, group: 0x1ff });
    const first = { StreamID: SID, Read: 1, PRGIndex: 3, PageAddr: 7 * 2 ** 32 + 0x5000 };
    const [one, two, three] = vm.pageRequests();
    expect(one).toEqual(first);
    expect(two).toMatchObject({ SSV: 1, SubstreamID: 0x12345, Write: 1, Exec: 1, Priv: 1, Last: 1 });
    expect(two['Read']).toBeUndefined();
    // Execute and privileged come with a PASID; the page offset does not come at all.
    expect(three).toEqual({ StreamID: SID, Read: 1, Write: 1, Last: 1, PRGIndex: 0x1ff });
    expect(vm.devices.pageResponses).toEqual([]);
  });

  it('interrupts when it stops being empty, or with LO for each last request', () => {
    const vm = ready();
    for (let n = 0; n < 3; n++) vm.requestPage({});
    expect(vm.wires).toEqual([WIRE.PRIQ]);
    vm.write32(IRQ_CTRL.offset, 0);
    vm.write32(PRIQ_IRQ_CFG2.offset, OVERFLOW);
    vm.write64(PRIQ_IRQ_CFG0.offset, 0x808_0040);
    vm.write32(PRIQ_IRQ_CFG0.offset + 8, 5);
    vm.write32(IRQ_CTRL.offset, 2);
    vm.requestPage({ last: false });
    vm.requestPage({});
    vm.requestPage({});
    const message = { address: 0x808_0040, data: 5 };
    expect(vm.interrupts).toEqual([message, message]);
    expect(vm.wires).toHaveLength(1);
  });

  it('wraps around, shown on page 0 too', () => {
    const vm = ready();
    for (let n = 0; n < 3 * ENTRIES; n++) {
      vm.requestPage({ group: n });
      expect(vm.pageRequests()).toMatchObject([n === 0 ? {} : { PRGIndex: n }]);
    }
    expect(vm.read(PRIQ_PROD.offset)).toBe((3 * ENTRIES) % (2 * ENTRIES));
    expect(vm.read(0xc8)).toBe(vm.read(PRIQ_PROD.offset));
    expect(vm.read(0xcc)).toBe(vm.read(PRIQ_CONS.offset));
  });

  it('fails every request while it is off, and no Stop Marker', () => {
    for (const enables of [ENABLES.ALL, ENABLES.PRIQEN | ENABLES.CMDQEN]) {
      const vm = ready();
      vm.write32(CR0.offset, enables);
      vm.requestPage({ pasid: 4, last: false });
      vm.requestPage({ pasid: 4 });
      vm.requestPage({ pasid: 4, access: 0 });
      vm.requestPage({ access: 0 });
      expect(vm.devices.pageResponses).toEqual(new Array(3).fill(answer(PAGE_RESPONSE.FAILURE)));
      expect(vm.pageRequests()).toEqual([]);
    }
  });

  it('stores Stop Markers like requests', () => {
    const vm = ready();
    vm.requestPage({ pasid: 4, access: 0, lo: 0, hi: 0, group: 0 });
    expect(vm.pageRequests()).toEqual([{ StreamID: SID, SSV: 1, SubstreamID: 4, Last: 1 }]);
  });

  it('reports a queue that is not in memory, and fails what it could not store', () => {
    const vm = ready();
    vm.write32(CR0.offset, 0);
    vm.write64(PRIQ_BASE.offset, 0x20_0000_0004);
    vm.write32(CR0.offset, ON);
    vm.requestPage({ pasid: 4 });
    expect([vm.activeErrors, vm.read(PRIQ_PROD.offset)]).toEqual([PRIQ_ABT_ERR, 0]);
    vm.write32(CR0.offset, 0);
    vm.write64(PRIQ_BASE.offset, PRI_QUEUE + QUEUE_LOG2);
    vm.write32(CR0.offset, ON);
    vm.requestPage({ pasid: 4 });
    expect(vm.devices.pageResponses).toEqual(new Array(2).fill(answer(PAGE_RESPONSE.FAILURE)));
    vm.acknowledgeErrors();
    vm.requestPage({ pasid: 4 });
    expect(vm.pageRequests()).toHaveLength(1);
  });

  it('reports an interrupt message that memory does not take', () => {
    const vm = ready();
    vm.write32(IRQ_CTRL.offset, 0);
    vm.write64(PRIQ_IRQ_CFG0.offset, ROM);
    vm.write32(IRQ_CTRL.offset, 2);
    vm.requestPage({});
    expect(vm.activeErrors).toBe(MSI_PRIQ_ABT_ERR);
    expect(vm.pageRequests()).toHaveLength(1);
  });
});

describe('an overflow', () => {
  it('answers groups whose last request was lost, until software has acknowledged it', () => {
    const vm = overflown();
    expect(vm.devices.pageResponses).toEqual([]);
    vm.requestPage({});
    vm.requestPage({ last: false });
    expect(vm.devices.pageResponses).toEqual([answer(PAGE_RESPONSE.SUCCESS)]);
    expect(vm.read(PRIQ_PROD.offset)).toBe((OVERFLOW | ENTRIES) >>> 0);
    // Room alone is not enough.
    expect(vm.pageRequests()).toHaveLength(ENTRIES);
    vm.requestPage({});
    expect(vm.pageRequests()).toEqual([]);
    expect(vm.devices.pageResponses).toHaveLength(2);
    vm.write32(PRIQ_CONS.offset, OVERFLOW | ENTRIES);
    vm.requestPage({});
    expect(vm.pageRequests()).toHaveLength(1);
    expect(vm.devices.pageResponses).toHaveLength(2);
  });

  it('answers with a PASID where STE.PPAR says so', () => {
    const vm = overflown();
    vm.requestPage({ pasid: 4 });
    vm.ste(SID, { Config: STE_CONFIG.BYPASS, PPAR: 1 });
    vm.requestPage({ pasid: 4 });
    vm.submit(new Uint32Array([CMD.CFGI_STE, SID, 0, 0]));
    vm.requestPage({ pasid: 4 });
    // Not before it was told of the change.
    expect(vm.devices.pageResponses).toEqual([
      answer(PAGE_RESPONSE.SUCCESS),
      answer(PAGE_RESPONSE.SUCCESS),
      answer(PAGE_RESPONSE.SUCCESS, 4),
    ]);
  });

  it('fails requests with a PASID whose STE is of no use, and records nothing', () => {
    const vm = overflown();
    vm.ste(SID + 1, { V: 0 });
    vm.requestPage({ rid: SID + 1, pasid: 4 });
    vm.requestPage({ rid: SID + 1 });
    vm.requestPage({ rid: 0xffff, pasid: 4 });
    expect(vm.devices.pageResponses.map(({ pasid, code }) => [pasid, code])).toEqual([
      [NO_PASID, PAGE_RESPONSE.FAILURE],
      [NO_PASID, PAGE_RESPONSE.SUCCESS],
      [NO_PASID, PAGE_RESPONSE.FAILURE],
    ]);
    expect(vm.recorded()).toEqual([]);
  });

  it('knows no PASIDs where there are no substreams', () => {
    const vm = overflown({ 'ssid-bits': '0' });
    vm.requestPage({ rid: 0xffff, pasid: 4 });
    expect(vm.devices.pageResponses).toMatchObject([{ pasid: NO_PASID, code: PAGE_RESPONSE.SUCCESS }]);
    expect(vm.pageRequests()[0]['SSV']).toBeUndefined();
  });

  it('drops Stop Markers silently, and interrupts for lost last requests with LO', () => {
    const vm = overflown();
    vm.requestPage({ pasid: 4, access: 0 });
    expect(vm.devices.pageResponses).toEqual([]);
    expect(vm.wires).toEqual([]);
    vm.write32(IRQ_CTRL.offset, 0);
    vm.write32(PRIQ_IRQ_CFG2.offset, OVERFLOW);
    vm.write32(IRQ_CTRL.offset, 2);
    vm.requestPage({});
    vm.requestPage({ last: false });
    expect(vm.wires).toEqual([WIRE.PRIQ]);
  });
});

describe('CMD_PRI_RESP', () => {
  const respond = (fields: Record<string, number>): Uint32Array =>
    command(CMD_PRI_RESP, { Opcode: CMD.PRI_RESP, StreamID: SID, PRGIndex: 0x1f3, ...fields });

  it.each([
    [PRI_RESP.SUCCESS, PAGE_RESPONSE.SUCCESS],
    [PRI_RESP.INVALID_REQUEST, PAGE_RESPONSE.INVALID],
    [PRI_RESP.RESPONSE_FAILURE, PAGE_RESPONSE.FAILURE],
  ])('response %i is code %i of PCI Express', (Resp, code) => {
    const vm = ready();
    vm.submit(respond({ Resp }), respond({ Resp, SSV: 1, SubstreamID: 0xabcde }));
    expect(vm.devices.pageResponses).toEqual([answer(code, NO_PASID, 0x1f3), answer(code, 0xabcde, 0x1f3)]);
  });

  it('is ignored while the SMMU is off, and for streams that cannot be', () => {
    const vm = ready();
    vm.submit(respond({ Resp: 2, StreamID: 0x1_0000 }));
    vm.write32(CR0.offset, ENABLES.CMDQEN);
    vm.submit(respond({ Resp: 2 }));
    expect(vm.devices.pageResponses).toEqual([]);
    expect([vm.consumed, vm.activeErrors]).toEqual([2, 0]);
  });

  it('has no PASID where there are no substreams', () => {
    const vm = ready({ 'ssid-bits': '0' });
    vm.submit(respond({ Resp: 2, SSV: 1, SubstreamID: 5 }));
    expect(vm.devices.pageResponses).toMatchObject([{ pasid: NO_PASID }]);
  });
});
