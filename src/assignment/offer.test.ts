import { describe, expect, it } from 'vitest';
import { createModel, modelRegisterBytes } from '../device/models.js';
import { ArrayMemory } from '../memory/array.js';
import { type AssignmentSettings, guestOf, lackingOptions, offeredOptions, planOffer } from './offer.js';
import { DEVICE_KINDS, fullHost, HOST_KINDS, MODES, nativeGuest } from './request.js';

const offer = (
  model: string,
  host: AssignmentSettings['host'],
  device?: AssignmentSettings['device'],
  mode: AssignmentSettings['mode'] = 'auto',
  given: Readonly<Record<string, string>> = {},
) => offeredOptions(model, given, { mode, host, device });

describe('what a guest is offered', () => {
  it('is nothing in particular where the host is not known, or has no place for it', () => {
    expect(offer('vtd', undefined)).toEqual({});
    expect(offer('smmuv3', 'vtd3', 'vf', 'nest')).toEqual({});
  });

  it('VT-d: second stages only where devices are shadowed, on whatever host', () => {
    expect(offer('vtd', undefined, undefined, 'shadow')).toEqual({ 'first-stage': 'off' });
    expect(offer('vtd', undefined, undefined, 'shadow', { 'first-stage': 'on' })).toEqual({});
    expect(offer('vtd', undefined, undefined, 'shadow', { 'scalable-mode': 'off' })).toEqual({});
    expect(offer('smmuv3', undefined, undefined, 'shadow')).toEqual({});
    expect(offer('vtd', 'vtd3', 'vf', 'nest')).not.toHaveProperty('first-stage');
  });

  it('VT-d: caching mode for all, virtual commands where the parent has one PASID space', () => {
    const paged = { 'device-tlb': 'on', 'page-requests': 'on' };
    expect(offer('vtd', 'vtd3', 'mdev')).toEqual({
      ...{ 'caching-mode': 'on', 'pasid-bits': '20', 'virtual-commands': 'on' },
      ...paged,
    });
    expect(offer('vtd', 'vtd3', 'vf')).toMatchObject({ 'pasid-bits': '20', 'virtual-commands': 'off' });
    expect(offer('vtd', 'vtd3')).toMatchObject({ 'virtual-commands': 'on', ...paged });
    expect(offer('vtd', 'vtd2', 'mdev')).toEqual({
      ...{ 'caching-mode': 'on', 'pasid-bits': '20', 'virtual-commands': 'on', 'first-stage': 'off' },
    });
  });

  it('a VF that is shadowed has no PASIDs and no page requests', () => {
    expect(offer('vtd', 'vtd3', 'vf', 'shadow')).toEqual({
      ...{ 'caching-mode': 'on', 'pasid-bits': '0', 'virtual-commands': 'off', 'first-stage': 'off' },
    });
    expect(offer('smmuv3', 'smmuv3', 'vf', 'shadow')).toMatchObject({ 'ssid-bits': '0', pri: 'off' });
  });

  it('SMMUv3: as many SubstreamIDs as the plan allows, page requests where hardware nests and ATS was asked for', () => {
    expect(offer('smmuv3', 'smmuv3', 'vf')).toEqual({
      ...{ 'ssid-bits': '20', 'virtual-commands': 'off', pri: 'off' },
    });
    expect(offer('smmuv3', 'smmuv3', 'vf', 'auto', { ats: 'on' })).toEqual({
      ...{ 'ssid-bits': '20', 'virtual-commands': 'off', pri: 'on' },
    });
    expect(offer('smmuv3', 'smmuv3', 'vf', 'shadow', { ats: 'on' })).toMatchObject({ pri: 'off' });
    expect(offer('smmuv3', 'smmuv3', 'mdev')).toEqual({
      ...{ 'ssid-bits': '20', 'virtual-commands': 'on', pri: 'off' },
    });
  });

  it('is what the user has chosen, if anything, and nothing that contradicts it', () => {
    expect(offer('vtd', 'vtd3', 'mdev', 'auto', { 'scalable-mode': 'off' })).toEqual({
      'caching-mode': 'on',
    });
    expect(offer('vtd', 'vtd3', 'mdev', 'auto', { 'caching-mode': 'off' })).toMatchObject({
      'virtual-commands': 'off',
    });
    expect(offer('vtd', 'vtd3', 'mdev', 'auto', { 'device-tlb': 'off' })).not.toHaveProperty('page-requests');
    expect(offer('vtd', 'vtd3', 'mdev', 'auto', { 'pasid-bits': '0' })).toMatchObject({
      'virtual-commands': 'off',
    });
    expect(offer('smmuv3', 'smmuv3', 'mdev', 'auto', { 'ssid-bits': '4' })).not.toHaveProperty('ssid-bits');
  });

  it('makes a model, for each host, device and mode', () => {
    const chosen = {
      vtd: [
        {},
        { 'scalable-mode': 'off' },
        { 'caching-mode': 'off' },
        { 'pasid-bits': '0' },
        { 'device-tlb': '0' },
      ],
      smmuv3: [{}, { 'ssid-bits': '0' }, { ats: 'on' }, { stages: '1' }, { stages: '2' }],
    } as const;
    let made = 0;
    for (const model of ['vtd', 'smmuv3'] as const)
      for (const host of HOST_KINDS)
        for (const device of [undefined, ...DEVICE_KINDS])
          for (const mode of MODES)
            for (const given of chosen[model]) {
              const options = { ...offer(model, host, device, mode, given), ...given };
              const registers = new Uint32Array(modelRegisterBytes(model) / 4);
              const memory = new ArrayMemory([{ base: 0, bytes: 4096 }]);
              expect(() =>
                createModel(model, options, { memory, registers, outputs: {} as never }),
              ).not.toThrow();
              made++;
            }
    expect(made).toBe(2 * 3 * 3 * 3 * 5);
  });
});

describe('what a guest lacks', () => {
  it('is nothing where it was offered what follows from the plan, and is named otherwise', () => {
    const lacking: string[] = [];
    for (const host of HOST_KINDS)
      for (const device of DEVICE_KINDS) {
        const model = host === 'smmuv3' ? 'smmuv3' : 'vtd';
        const guest = nativeGuest(host);
        const planned = planOffer({ device, guest, pasids: true, mode: 'auto', host: fullHost(host) });
        if (!planned.ok) throw new Error(planned.rule);
        expect(lackingOptions(offer(model, host, device), planned)).toEqual([]);
        lacking.push(`${host} ${device}: ${lackingOptions({}, planned)}`);
      }
    expect(lacking).toEqual([
      'smmuv3 vf: ',
      'smmuv3 mdev: virtual-commands=on',
      'vtd2 vf: caching-mode=on',
      'vtd2 mdev: caching-mode=on,virtual-commands=on',
      'vtd3 vf: caching-mode=on',
      'vtd3 mdev: caching-mode=on,virtual-commands=on',
    ]);
  });
});

describe('the guest that options describe', () => {
  it('has PASIDs unless they are switched off', () => {
    expect(guestOf('smmuv3', {})).toEqual({ guest: 'smmuv3', pasids: true });
    expect(guestOf('smmuv3', { 'ssid-bits': '0' })).toEqual({ guest: 'smmuv3', pasids: false });
    expect(guestOf('vtd', {})).toEqual({ guest: 'vtd-scalable', pasids: true });
    expect(guestOf('vtd', { 'pasid-bits': '0' })).toEqual({ guest: 'vtd-scalable', pasids: false });
    expect(guestOf('vtd', { 'scalable-mode': 'off' })).toEqual({ guest: 'vtd-legacy', pasids: false });
  });
});
