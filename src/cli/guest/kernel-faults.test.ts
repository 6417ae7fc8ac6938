import { describe, expect, it } from 'vitest';
import { parseKernelFaults } from './kernel-faults.js';

describe('parseKernelFaults', () => {
  it('reads what Linux 6.x prints of VT-d faults, with and without PASID', () => {
    const line =
      '[    9.1] DMAR: [DMA Write NO_PASID] Request device [00:05.0] fault addr 0xdead0000 [fault reason 0x05] PTE Write access is not set';
    const pasid =
      'DMAR: [DMA Read PASID 0x1] Request device [00:03.0] fault addr 0x1000 [fault reason 0x71] SM: Present bit in first-level paging entry is clear';
    expect(parseKernelFaults(['DMAR: DRHD: handling fault status reg 2', line, pasid])).toEqual([
      {
        operation: 'write',
        device: '00:05.0',
        address: '0xdead0000',
        reason: 5,
        text: 'PTE Write access is not set',
      },
      expect.objectContaining({ operation: 'read', address: '0x1000', pasid: 1, reason: 0x71 }),
    ]);
  });

  const event = (...doublewords: string[]): string[] => [
    '[    3.6] arm-smmu-v3 9050000.smmuv3: event 0x10 received:',
    ...doublewords.map((value) => `[    3.6] arm-smmu-v3 9050000.smmuv3: \t${value}`),
  ];

  it('reads the record of an SMMUv3 event', () => {
    const read = event(
      '0x0000012000000010',
      '0x0000020800000000',
      '0xffff8000dead0123',
      '0x0000000000000000',
    );
    const write = event(
      '0x0000002000005810',
      '0x0000020000000000',
      '0x00000000dead0000',
      '0x0000000000000000',
    );
    expect(parseKernelFaults([...read, ...write])).toEqual([
      {
        operation: 'read',
        device: '01:04.0',
        address: '0xffff8000dead0123',
        reason: 0x10,
        text: 'F_TRANSLATION',
      },
      expect.objectContaining({ operation: 'write', device: '00:04.0', address: '0xdead0000', pasid: 5 }),
    ]);
  });

  it('knows the SubstreamID of an event that is about nothing else', () => {
    const zero = '0x0000000000000000';
    expect(parseKernelFaults(event('0x0000002000003008', zero, zero, zero))).toMatchObject([
      { device: '00:04.0', reason: 8, text: 'C_BAD_SUBSTREAMID', pasid: 3 },
    ]);
  });

  it('takes no half record', () => {
    expect(parseKernelFaults(event('0x0000012000000010', '0x0000020800000000'))).toEqual([]);
  });
});
