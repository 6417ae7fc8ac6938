import { describe, expect, it } from 'vitest';
import { EVENT_TYPE, smmuInfo, toBytes } from '../host/kernel-structures.js';
import { SimHost } from '../host/sim/sim-host.js';
import { CODEC } from '../wire/codec.js';
import type * as M from '../wire/messages.js';
import { ABILITY, announcedDevice, faultOf } from './assigned-messages.js';

const VF = 0;
const MDEV = 1;
const ALL = 63;
const VTD = new SimHost({ kind: 'vtd3' }).driver.hardwareInfo();
const SMMU = new SimHost({ kind: 'smmuv3' }).driver.hardwareInfo();

function device(change: Partial<M.HostDevice> = {}, { type, info } = VTD): M.HostDevice {
  const base = { device: 3, kind: VF, abilities: ALL, infoType: type, info, pasidBits: 9 };
  return { ...CODEC.HostDevice.create(), ...base, ...change };
}

const capabilities = (change: Partial<M.HostDevice>, hardware = VTD) =>
  announcedDevice(device(change, hardware)).capabilities;

/** A range of input pages as four words. */
function range(first: number, last: number): number[] {
  return [first * 4096, 0, last * 4096 + 0xfff, 0];
}

describe('HOST_DEVICE', () => {
  it('says what hardware, kernel and device can do together', () => {
    expect(announcedDevice(device({ container: 1, mappings: 5 }))).toEqual({
      capabilities: {
        ...{ kind: 'vtd3', stage1: true, stage2: true, nesting: true, pasidBits: 9, pageRequests: true },
        container: 'type1',
      },
      limits: { mappings: 5, ranges: [], readOnlyParents: true },
    });
    expect(announcedDevice(device()).limits.mappings).toBe(Number.POSITIVE_INFINITY);
    expect(capabilities({ pasidBits: 20 }, SMMU).kind).toBe('smmuv3');
  });

  it.each([
    ['nest parents', ABILITY.NEST_PARENT, { nesting: false }, { nesting: false }],
    ['a vIOMMU', ABILITY.VIOMMU, { nesting: true }, { nesting: false }],
    ['page requests', ABILITY.PAGE_REQUESTS, { pageRequests: false }, { pageRequests: false }],
    ['PASIDs', ABILITY.PASIDS, { pasidBits: 0 }, { pasidBits: 9 }],
  ])('is without what needs %s where the peer has none: VT-d, SMMUv3', (_, ability, vtd, smmu) => {
    const abilities = ALL & ~ability;
    expect(capabilities({ abilities })).toMatchObject(vtd);
    expect(capabilities({ abilities }, SMMU)).toMatchObject(smmu);
  });

  it('of an SMMUv3 has PASIDs in its tables, or bound one by one; an mdev has only these', () => {
    const bits = (kind: number, abilities: number): number =>
      capabilities({ kind, abilities }, SMMU).pasidBits;
    const nesting = ABILITY.NEST_PARENT | ABILITY.VIOMMU;
    expect([bits(VF, nesting), bits(VF, ABILITY.PASIDS), bits(VF, 0)]).toEqual([9, 9, 0]);
    expect([bits(MDEV, nesting), bits(MDEV, ABILITY.PASIDS)]).toEqual([0, 9]);
  });

  it('has no more than its IOMMU has', () => {
    const info = smmuInfo([0, 0]);
    expect(capabilities({}, { type: SMMU.type, info })).toMatchObject({
      ...{ stage1: false, stage2: false, nesting: false, pasidBits: 0, pageRequests: false },
    });
  });

  it('names ranges of whole pages, ascending', () => {
    const { ranges } = announcedDevice(
      device({ ranges: [...range(0, 0), ...range(1, 0xfedff), 0, 1, 0xffff_ffff, 0xff] }),
    ).limits;
    expect(ranges).toEqual([
      { first: 0, last: 0 },
      { first: 1, last: 0xfedff },
      { first: 2 ** 20, last: 2 ** 28 - 1 },
    ]);
    const most = Array.from({ length: 64 }, (_, i) => range(i, i)).flat();
    expect(announcedDevice(device({ ranges: most })).limits.ranges).toHaveLength(64);
  });

  it.each([
    ['a kind that there is not', { kind: 2 }],
    ['a container that there is not', { container: 3 }],
    ['PASIDs of more than 20 bits', { pasidBits: 21 }],
    ['65 bytes of hardware information', { info: new Uint8Array(65) }],
    ['hardware of an unknown type', { infoType: 9 }],
    ['a part of a range', { ranges: [0, 0, 0xfff] }],
    ['65 ranges', { ranges: Array.from({ length: 65 }, (_, i) => range(i, i)).flat() }],
    ['a range that begins within a page', { ranges: [0x800, 0, 0xfff, 0] }],
    ['a range that ends within a page', { ranges: [0, 0, 0x7ff, 0] }],
    ['ranges that overlap', { ranges: [...range(0, 1), ...range(1, 2)] }],
    ['a range that ends before it begins', { ranges: range(5, 4) }],
  ])('with %s ends the connection', (_, change) => {
    expect(() => announcedDevice(device(change))).toThrow(
      expect.objectContaining({ reason: 'BAD_ARGUMENT' }),
    );
  });
});

describe('HOST_EVENT', () => {
  const SID = 0x1234;
  /** F_TRANSLATION of a SubstreamID, and a fault record. IHI 0070 §7.3.13 */
  const smmu = toBytes([0x10 | (1 << 11) | (6 << 12), SID, 0, 0, 0, 0, 0, 0]);
  const vtd = toBytes([0x1000, 0, 0x18, 0]);
  const event = (change: Partial<M.HostEvent>): M.HostEvent => ({
    ...CODEC.HostEvent.create(),
    ...{ type: EVENT_TYPE.SMMUV3, record: smmu },
    ...change,
  });
  const deviceOf = (stream: number): number | undefined => (stream === SID ? 3 : undefined);

  it('of an SMMUv3 names its device and SubstreamID, unless the peer does', () => {
    expect(faultOf(event({}), deviceOf)).toMatchObject({ device: 3, pasid: 6, format: 'smmuv3' });
    const plain = toBytes([0x10 | (6 << 12), SID, 0, 0, 0, 0, 0, 0]);
    expect(faultOf(event({ record: plain }), deviceOf)).toMatchObject({ device: 3, pasid: -1 });
    expect(faultOf(event({ device: 5, pasid: 8 }), deviceOf)).toMatchObject({ device: 4, pasid: 7 });
    expect(faultOf(event({}), () => undefined)).toBeUndefined();
  });

  it('of a VT-d is of the device that the peer names', () => {
    const fault = faultOf(event({ type: EVENT_TYPE.VTD_FAULT, record: vtd, device: 5 }), deviceOf);
    expect(fault).toMatchObject({ device: 4, pasid: -1, format: 'vtd' });
    expect(Array.from(fault?.record ?? [])).toEqual([0x1000, 0, 0x18, 0]);
  });

  it('may say only that others were lost', () => {
    expect(faultOf(event({ record: new Uint8Array(0), lost: true }), deviceOf)).toBeUndefined();
  });

  it.each([
    ['no record', { record: new Uint8Array(0) }],
    ['a record of the other kind', { record: vtd }],
    ['an event of a VT-d', { type: EVENT_TYPE.VTD_FAULT, device: 5 }],
    ['a fault record of no device', { type: EVENT_TYPE.VTD_FAULT, record: vtd }],
    ['an unknown type', { type: 7 }],
  ])('with %s ends the connection', (_, change) => {
    expect(() => faultOf(event(change), deviceOf)).toThrow(
      expect.objectContaining({ reason: 'BAD_ARGUMENT' }),
    );
  });
});
