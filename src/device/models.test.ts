import { describe, expect, it } from 'vitest';
import { LocalOutputs } from '../../test/support/local-machine.js';
import { ArrayMemory } from '../memory/array.js';
import { createModel, modelRegisterBytes } from './models.js';

const ports = (words: number) => ({
  memory: new ArrayMemory([{ base: 0, bytes: 4096 }]),
  registers: new Uint32Array(words),
  outputs: new LocalOutputs(),
});

describe('models by name', () => {
  it('makes a VT-d unit with one page of registers', () => {
    expect(modelRegisterBytes('vtd')).toBe(4096);
    const model = createModel('vtd', {}, ports(1024));
    expect([model.model, model.registerBytes]).toEqual(['vtd', 4096]);
  });

  it('makes an SMMUv3 with 128 KiB of registers', () => {
    expect(modelRegisterBytes('smmuv3')).toBe(0x20000);
    const model = createModel('smmuv3', { 'ssid-bits': '0' }, ports(0x8000));
    expect([model.model, model.registerBytes]).toEqual(['smmuv3', 0x20000]);
  });

  it.each([
    ['vtd', 1024],
    ['smmuv3', 0x8000],
  ] as const)('%s: answers may be kept, but for those of a unit that keeps nothing itself', (name, words) => {
    const kept = (policy: string): boolean =>
      createModel(name, { 'cache-policy': policy }, ports(words)).answersMayBeKept;
    expect(['faithful', 'hostile', 'none'].map(kept)).toEqual([true, true, false]);
  });

  it('refuses what it does not know with a coded error', () => {
    expect(() => modelRegisterBytes('amdvi')).toThrow(expect.objectContaining({ reason: 'UNKNOWN_MODEL' }));
    const bad = { 'aw-bits': '64' };
    expect(() => createModel('vtd', bad, ports(1024))).toThrow(
      expect.objectContaining({ reason: 'BAD_OPTION' }),
    );
    expect(() => createModel('vtd', {}, ports(8))).toThrow(/needs 4096 bytes/);
  });
});
