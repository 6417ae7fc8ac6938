import { describe, expect, it } from 'vitest';
import type { DumpNode } from '../device/iommu.js';
import { DEFAULT_DUMP_STYLE, formatDump, formatRid, parseRid } from './dump-lines.js';

const TREE: DumpNode[] = [
  {
    label: 'registers',
    children: [
      { label: 'GSTS_REG', raw: '0xc6000000', fields: { TES: 1, RTPS: 1, QIES: 1, IRES: 0 } },
      { label: 'RTADDR_REG', raw: '0x0000000001234000', fields: { TTM: 0, RTA: 0x1234000 } },
    ],
  },
  {
    label: 'root table',
    children: [
      {
        label: 'root[00]',
        raw: '0x1235001',
        fields: { P: 1, CTP: 0x1235000 },
        children: [{ label: '0x0-0xfff → 0x5000', fields: { R: 1, W: 1 } }],
        note: '3 more ranges',
      },
    ],
  },
];

describe('formatDump', () => {
  it('draws a tree with the values of siblings in one column and without zero fields', () => {
    expect(formatDump(TREE)).toEqual([
      'registers',
      '├─ GSTS_REG    0xc6000000          TES=1 RTPS=1 QIES=1',
      '└─ RTADDR_REG  0x0000000001234000  RTA=0x1234000',
      'root table',
      '└─ root[00]  0x1235001  P=1 CTP=0x1235000',
      '   ├─ 0x0-0xfff → 0x5000  R=1 W=1',
      '   └─ (3 more ranges)',
    ]);
  });

  it('prints zero fields and ASCII lines when asked', () => {
    const lines = formatDump(TREE, { ...DEFAULT_DUMP_STYLE, zeros: true, ascii: true });
    expect(lines[1]).toBe('|- GSTS_REG    0xc6000000          TES=1 RTPS=1 QIES=1 IRES=0');
    expect(lines[4]).toContain('`- root[00]');
  });

  it('wraps long field lists under the fields', () => {
    const fields = Object.fromEntries(Array.from({ length: 20 }, (_, index) => [`FIELD${index}`, 1]));
    const lines = formatDump([{ label: 'CAP_REG', raw: '0x1', fields }], {
      ...DEFAULT_DUMP_STYLE,
      width: 60,
    });
    expect(lines.length).toBeGreaterThan(3);
    for (const line of lines) expect(line.length).toBeLessThanOrEqual(60);
    expect(lines[1]?.search(/\S/)).toBe(lines[0]?.indexOf('FIELD0'));
  });
});

describe('requester ids', () => {
  it('are read as they are printed', () => {
    for (const rid of [0, 0x18, 0xffff, 0x0100, 0x00fb]) expect(parseRid(formatRid(rid))).toBe(rid);
    expect(parseRid('0000:00:1f.3')).toBe(0x00fb);
  });

  it('are refused when they are none', () => {
    for (const text of ['', '00:20.0', '00:1f', '00:1f.8', 'x', '100:00.0'])
      expect(parseRid(text)).toBeUndefined();
  });
});
