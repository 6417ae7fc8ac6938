import { describe, expect, it } from 'vitest';
import { LineSplitter, parseRecord } from './console.js';

describe('parseRecord', () => {
  it('reads values, also quoted ones, and passed-on text', () => {
    expect(parseRecord('VIOMMU-GUEST: nvme disk=nvme0n1 bytes=67108864 same=1')).toEqual({
      job: 'nvme',
      values: { disk: 'nvme0n1', bytes: '67108864', same: '1' },
    });
    expect(parseRecord('VIOMMU-GUEST: net reason="no carrier" status=1')).toEqual({
      job: 'net',
      values: { reason: 'no carrier', status: '1' },
    });
    expect(parseRecord('VIOMMU-GUEST: dmesg | [    0.28] DMAR: a=b | c')).toEqual({
      job: 'dmesg',
      values: {},
      text: '[    0.28] DMAR: a=b | c',
    });
    expect(parseRecord('VIOMMU-GUEST: READY')).toEqual({ job: 'READY', values: {} });
  });

  it('finds a record after what firmware left on the line, and none elsewhere', () => {
    expect(parseRecord('\u001b[2JVIOMMU-GUEST: READY')?.job).toBe('READY');
    expect(parseRecord('[    1.0] Run /init as init process')).toBeUndefined();
  });
});

describe('LineSplitter', () => {
  it('joins chunks, drops carriage returns, and gives an unfinished last line at the end', () => {
    const lines: string[] = [];
    const splitter = new LineSplitter((line) => lines.push(line));
    for (const chunk of ['on', 'e\r', '\ntwo\n\nthr', 'ee']) splitter.push(chunk);
    expect(lines).toEqual(['one', 'two', '']);
    splitter.end();
    splitter.end();
    expect(lines).toEqual(['one', 'two', '', 'three']);
  });
});
