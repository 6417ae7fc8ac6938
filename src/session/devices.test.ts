import { describe, expect, it } from 'vitest';
import { NOTIFY } from '../wire/frame.js';
import { DeviceTable } from './devices.js';

describe('devices behind the IOMMU', () => {
  it('are notified by requester id while they are there and want to be, each id once', () => {
    const table = new DeviceTable();
    for (const device of [1, 2, 3]) table.add(device, device === 3 ? 16 : device * 8, `device ${device}`);
    expect(table.notifiedRids).toEqual([]);
    for (const device of [1, 2, 3]) table.notify(device, NOTIFY.UNMAP);
    expect(table.notifiedRids).toEqual([8, 16]);
    table.remove(1);
    expect([table.notifiedRids, table.count, table.find(1)]).toEqual([[16], 2, undefined]);
    table.add(2, 24, 'moved');
    expect(table.notifiedRids).toEqual([24, 16]);
    const handles: number[] = [];
    table.handles([16, 24, 99], 2, handles);
    table.handles([99, 24], 1, handles);
    expect(handles).toEqual([2, 3]);
    table.notify(3, 0);
    expect(table.notifiedRids).toEqual([24]);
  });

  it('of a shadow are notified of nothing, but by what does not map', () => {
    const table = new DeviceTable();
    table.shadowing = true;
    table.add(1, 8, '');
    table.add(2, 16, '');
    table.notify(1, NOTIFY.MAP | NOTIFY.UNMAP);
    table.notify(2, NOTIFY.DEVICE_IOTLB);
    expect(table.notifiedRids).toEqual([16]);
  });

  it('are as many as a segment has functions, with names that can be shown', () => {
    const table = new DeviceTable();
    for (let device = 0; device < 65536; device++) table.add(device, 0xffff, 'x'.repeat(300));
    expect(() => table.add(65536, 0, '')).toThrow(expect.objectContaining({ reason: 'BAD_ARGUMENT' }));
    table.add(7, 1, 'known\u0007');
    expect(table.find(6)?.name).toHaveLength(256);
    expect(table.find(7)?.name).not.toContain('\u0007');
    expect([...table.all()]).toHaveLength(65536);
  });

  it.each([
    ['a requester id of 17 bits', (table: DeviceTable) => table.add(1, 0x1_0000, ''), 'BAD_ARGUMENT'],
    ['flags that there are not', (table: DeviceTable) => table.notify(1, 8), 'BAD_ARGUMENT'],
    ['notifiers of another device', (table: DeviceTable) => table.notify(2, 1), 'OUT_OF_ORDER'],
    ['another device’s end', (table: DeviceTable) => table.remove(2), 'OUT_OF_ORDER'],
  ])('are without %s', (_, wrong, reason) => {
    const table = new DeviceTable();
    table.add(1, 8, '');
    expect(() => wrong(table)).toThrow(expect.objectContaining({ reason }));
  });
});
