import { describe, expect, it } from 'vitest';
import { EXTENDED_CONTEXT_ENTRY, EXTENDED_ROOT_ENTRY, PASID_ENTRY } from '../../src/spec/vtd/extended.js';

/**
 * Structures of extended mode as C bit fields, typed off public headers of drivers for that
 * hardware: widths in the order in which they stand, `_` for what is reserved. Positions follow by
 * counting, not from the tables under test.
 */
const ROOT = 'LP:1 _:11 LCTP:52 UP:1 _:11 UCTP:52';
const CONTEXT =
  'P:1 FPD:1 T:3 EMT:3 DINVE:1 PRE:1 NESTE:1 PASIDE:1 SLPTPTR:52 ' +
  'AW:3 PGE:1 NXE:1 WPE:1 CD:1 EMTE:1 DID:16 SMEP:1 EAFE:1 ERE:1 SLEE:1 _:4 PAT:32 ' +
  'PTS:4 _:8 PASIDPTR:52 _:12 PASIDSTPTR:52';
const PASID = 'P:1 _:2 PWT:1 PCD:1 _:6 SRE:1 FLPTPTR:52';

function positions(text: string): { fields: Record<string, [number, number]>; bits: number } {
  const fields: Record<string, [number, number]> = {};
  let bits = 0;
  for (const part of text.split(' ')) {
    const [name, width] = part.split(':') as [string, string];
    if (name !== '_') fields[name] = [bits + Number(width) - 1, bits];
    bits += Number(width);
  }
  return { fields, bits };
}

describe('structures of VT-d extended mode', () => {
  it.each([
    ['root-entry', EXTENDED_ROOT_ENTRY, ROOT],
    ['context-entry', EXTENDED_CONTEXT_ENTRY, CONTEXT],
    ['PASID entry', PASID_ENTRY, PASID],
  ] as const)('%s: every field stands where the other transcription has it', (_name, shape, text) => {
    const { fields, bits } = positions(text);
    expect(bits).toBe(shape.bytes * 8);
    const declared = Object.fromEntries(
      Object.entries(shape.fields).map(([name, { msb, lsb }]) => [name, [msb, lsb]]),
    );
    expect(declared).toEqual(fields);
  });
});
