import { describe, expect, it } from 'vitest';
import { contextEntry, descriptor, READ, TestMachine, WRITE } from '../../../test/support/vtd-unit.js';
import { NO_PASID } from '../../base/ids.js';
import { decode } from '../../spec/define.js';
import { DESCRIPTOR, INV_WAIT_DSC } from '../../spec/vtd/descriptors.js';
import { FAULT } from '../../spec/vtd/faults.js';
import { CAP_REG, ECAP_REG, IQERCD_REG, TTM } from '../../spec/vtd/registers.js';
import { PAGE_RESPONSE, REQUEST, TRANSLATE_STATUS } from '../iommu.js';

const RID = 0x0018;

/** A unit whose requester has a mapping that is cached; then it aborts DMA. */
function aborting(options: Readonly<Record<string, string>> = {}): TestMachine {
  const vm = new TestMachine(options);
  const root = vm.page();
  vm.mapSecond(root, 4, 0x1000n, 0x20_0000n);
  vm.context(RID, ...contextEntry(root, 5));
  vm.setRoot(TTM.LEGACY);
  vm.enable();
  expect(vm.translate(RID, 0x1000n, READ).ok).toBe(true);
  vm.setRoot(TTM.ABORT_DMA);
  return vm;
}

describe('abort-dma mode', () => {
  it('is offered, with ESRTPS', () => {
    const { registers } = new TestMachine({ 'scalable-mode': 'off' });
    expect(decode(ECAP_REG, registers, ECAP_REG.offset >> 2)).toMatchObject({ ADMS: 1 });
    expect(decode(CAP_REG, registers, CAP_REG.offset >> 2)).toMatchObject({ ESRTPS: 1 });
  });

  it.each([
    ['reads', 0x1000n, READ, NO_PASID],
    ['writes', 0x1000n, WRITE, NO_PASID],
    ['requests with PASID', 0x1000n, READ, 4],
    ['of no requester that is known', 0x7_0000_0000n, READ, NO_PASID],
  ])('blocks %s', (_, address, access, pasid) => {
    const vm = aborting();
    expect(vm.translate(RID, address, access, pasid)).toMatchObject({ ok: false, count: 0 });
    const pp = pasid === NO_PASID ? 0 : 1;
    expect(vm.faults()).toMatchObject([{ reason: FAULT.RTA_4, sid: RID, address: Number(address), PP: pp }]);
  });

  it('tells the caches outside, and lets the peer walk nothing', () => {
    const vm = aborting();
    expect(vm.invalidations.at(-1)).toMatchObject({ log2Size: 64, rid: 0xffffffff, structures: true });
    expect(vm.model.peerWalk?.describe(RID, NO_PASID, 0, {} as never)).toBe(false);
  });

  it('concerns no interrupts', () => {
    const vm = aborting();
    expect(vm.translate(RID, 0xfee01000n, WRITE, NO_PASID, REQUEST.UNTRANSLATED, 4).ok).toBe(true);
    expect(vm.faults()).toEqual([]);
  });

  it('refuses to translate ahead', () => {
    const vm = aborting({ 'device-tlb': 'on', 'page-requests': 'on' });
    for (const kind of [REQUEST.TRANSLATION, REQUEST.TRANSLATED]) {
      const answer = vm.translate(RID, 0x1000n, READ, NO_PASID, kind);
      expect(answer).toMatchObject({ status: TRANSLATE_STATUS.FAULT, count: 0 });
    }
    vm.model.devices?.pageRequest?.({
      ...{ rid: RID, pasid: NO_PASID, access: READ, lo: 0x1000, hi: 0, group: 3, last: true },
    });
    expect(vm.devices.pageResponses).toMatchObject([{ rid: RID, group: 3, code: PAGE_RESPONSE.INVALID }]);
    expect(vm.faults().map(({ reason }) => reason)).toEqual([FAULT.RTA_4, FAULT.RTA_4, FAULT.RTA_4]);
  });

  it.each([true, false])('has an invalidation queue; of 256 bits: %s', (wide) => {
    const vm = aborting();
    vm.enableQueue(wide);
    const status = vm.page();
    const wait = { TypeLow: DESCRIPTOR.WAIT, SW: 1, StatusData: 7, StatusAddress: status };
    vm.submit(descriptor(INV_WAIT_DSC, wait));
    expect(vm.memory.peek(status)).toBe(7n);
    expect(vm.read(IQERCD_REG.offset)).toBe(0);
  });

  it('ends with another root table', () => {
    const vm = aborting();
    vm.setRoot(TTM.LEGACY);
    expect(vm.translate(RID, 0x1000n, READ).ok).toBe(true);
  });
});
