import { NO_PASID } from '../base/ids.js';
import { hex, hex64 } from '../base/u64.js';
import { ACCESS } from '../device/iommu.js';
import type { ViommuEvent } from '../events/viommu-events.js';
import { formatRid } from './dump-lines.js';

/** One line of text for one happening, in the specification's names. */
export function formatEvent(event: ViommuEvent): string {
  switch (event.kind) {
    case 'fault': {
      const pasid = event.pasid === NO_PASID ? '' : ` pasid ${event.pasid}`;
      const lost = event.recorded ? '' : ' (not recorded)';
      const reason = `${event.name} (0x${event.reason.toString(16)})`;
      if (event.interrupt !== undefined)
        return `fault ${reason} device ${formatRid(event.rid)} interrupt ${event.interrupt}${lost}`;
      return `fault ${reason} device ${formatRid(event.rid)}${pasid} ${accessText(event.access)} ${hex64(event.lo, event.hi)}${lost}`;
    }
    case 'enable':
      return `${event.what} ${event.on ? 'on' : 'off'}`;
    case 'staleInterrupt':
      return `stale interrupt entry ${event.index}: ${event.differs} (cached ${event.cached}, memory ${event.memory})`;
    case 'queueError':
      return `queue error ${event.name}: ${event.detail}`;
    case 'invalidation':
      return `invalidate ${event.name} ${event.detail}`;
    case 'hello':
      return `connected: ${event.peer}, model ${event.model}`;
    case 'regionAdded': {
      const how = event.shared ? 'shared' : 'by messages';
      return `memory region ${event.region}: ${hex(event.gpa)} + ${hex(event.size)}, ${how}`;
    }
    case 'regionRemoved':
      return `memory region ${event.region} removed`;
    case 'deviceAdded':
      return `device ${formatRid(event.rid)} ${event.name}`;
    case 'deviceRemoved':
      return `device handle ${event.device} removed`;
    case 'reset':
      return 'reset';
    case 'hostRefused': {
      const what = event.unmap ? 'unmap' : 'map';
      const more = event.count > 1 ? ` and ${event.count - 1} more` : '';
      return `host refused to ${what} ${hex64(event.lo, event.hi)} + ${hex(event.bytes)}${more} for ${formatRid(event.rid)}: error ${event.error}; ${event.failed} mappings missing`;
    }
    case 'hostAccepted':
      return `host has mapped everything for ${formatRid(event.rid)}`;
    case 'hostSplit':
      return `host mappings split for ${formatRid(event.rid)}: ${event.count}`;
    case 'shadowLimit':
      return `${formatRid(event.rid)} has more ${event.what} than are shadowed`;
    case 'shadowSilent':
      return `${formatRid(event.rid)} has tables to which mappings come unannounced`;
  }
}

function accessText(access: number): string {
  const words: string[] = [];
  if ((access & ACCESS.READ) !== 0) words.push('read');
  if ((access & ACCESS.WRITE) !== 0) words.push('write');
  if ((access & ACCESS.EXECUTE) !== 0) words.push('execute');
  return words.length === 0 ? 'probe' : words.join('+');
}
