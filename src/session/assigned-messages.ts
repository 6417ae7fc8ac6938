/** HOST_DEVICE and HOST_EVENT, checked and in the port's words. */
import {
  type Container,
  DEVICE_KINDS,
  type DeviceKind,
  type HostCapabilities,
} from '../assignment/request.js';
import { CodedError } from '../base/errors.js';
import { NO_PASID } from '../base/ids.js';
import { PAGE_OFFSET, pageOf } from '../base/page.js';
import { EVENT_TYPE, hardwareAbilities, toWords } from '../host/kernel-structures.js';
import type { HostDevice, HostFault, PageRange } from '../host/port.js';
import { maskIn, shiftOf } from '../spec/define.js';
import { F_TRANSLATION } from '../spec/smmuv3/events.js';
import { FRCD_REG } from '../spec/vtd/registers.js';
import type * as M from '../wire/messages.js';
import type { AnnouncedDevice } from './wire-host.js';

/** Bits of HostDevice.abilities. */
export const ABILITY = {
  NEST_PARENT: 1,
  VIOMMU: 2,
  PAGE_REQUESTS: 4,
  EVENTS: 8,
  PASIDS: 16,
  PASID_ALLOCATION: 32,
} as const;

/** HostDevice.container. */
const CONTAINER_NUMBERS: readonly Container[] = ['iommufd', 'type1', 'type1-nesting'];

const MOST_INFO_BYTES = 64;
const MOST_RANGES = 64;
const RANGE_WORDS = 4;
const MAX_PASID_BITS = 20;

export function deviceKind(number: number): DeviceKind {
  return DEVICE_KINDS[number] as DeviceKind;
}

/** Throws `BAD_ARGUMENT`. */
export function announcedDevice(message: M.HostDevice): AnnouncedDevice {
  const { kind, container, info, infoType, pasidBits, ranges, mappings } = message;
  const wrong = (what: string): never => {
    throw new CodedError('BAD_ARGUMENT', `HOST_DEVICE ${message.device}: ${what}`);
  };
  if (kind >= DEVICE_KINDS.length) wrong(`kind ${kind}`);
  if (container >= CONTAINER_NUMBERS.length) wrong(`container ${container}`);
  if (pasidBits > MAX_PASID_BITS) wrong(`PASIDs of ${pasidBits} bits`);
  if (info.length > MOST_INFO_BYTES) wrong(`${info.length} bytes of hardware information`);
  if (ranges.length % RANGE_WORDS !== 0 || ranges.length > MOST_RANGES * RANGE_WORDS) {
    wrong(`${ranges.length} words of ranges`);
  }
  const hardware = hardwareAbilities(infoType, info);
  if (hardware === undefined) return wrong(`hardware information of type ${infoType}`);
  const can = (ability: number): boolean => (message.abilities & ability) !== 0;
  // An SMMUv3's guest tables are named for a vDEVICE of a vIOMMU, and have its PASIDs in them.
  const smmu = hardware.kind === 'smmuv3';
  const nests = can(ABILITY.NEST_PARENT) && (!smmu || can(ABILITY.VIOMMU));
  const bits = smmu && kind === 0 ? nests || can(ABILITY.PASIDS) : can(ABILITY.PASIDS);
  const capabilities: HostCapabilities = {
    kind: hardware.kind,
    stage1: hardware.stage1,
    stage2: hardware.stage2,
    nesting: hardware.nesting && nests,
    pasidBits: bits ? Math.min(pasidBits, hardware.pasidBits) : 0,
    pageRequests: hardware.pageRequests && can(ABILITY.PAGE_REQUESTS),
    container: CONTAINER_NUMBERS[container] as Container,
  };
  const limits = {
    mappings: mappings === 0 ? Number.POSITIVE_INFINITY : mappings,
    ranges: rangesOf(ranges, wrong),
    readOnlyParents: hardware.readOnlyParents,
  };
  return { capabilities, limits };
}

function rangesOf(words: ArrayLike<number>, wrong: (what: string) => never): PageRange[] {
  const ranges: PageRange[] = [];
  let from = 0;
  for (let at = 0; at < words.length; at += RANGE_WORDS) {
    const first = pageOf(words[at], words[at + 1]);
    const last = pageOf(words[at + 2], words[at + 3]);
    const whole = (words[at] & PAGE_OFFSET) === 0 && (words[at + 2] & PAGE_OFFSET) === PAGE_OFFSET;
    if (!whole || first < from || last < first) wrong(`range of pages ${first} to ${last}`);
    ranges.push({ first, last });
    from = last + 1;
  }
  return ranges;
}

/** Bits and fields of an SMMUv3's event record that say who asked. IHI 0070 §7.3 */
const SSV = maskIn(F_TRANSLATION.fields.SSV);
const SUBSTREAM_SHIFT = shiftOf(F_TRANSLATION.fields.SubstreamID);
const SMMU_RECORD_WORDS = F_TRANSLATION.wordCount;
const VTD_RECORD_WORDS = FRCD_REG.wordCount;

/** A fault in the port's words; undefined when its device is not known. Throws `BAD_ARGUMENT`. */
export function faultOf(
  message: M.HostEvent,
  deviceOf: (streamId: number) => HostDevice | undefined,
): HostFault | undefined {
  const { type, device, pasid } = message;
  const record = toWords(message.record);
  if (record.length === 0 && message.lost) return undefined;
  const smmu = type === EVENT_TYPE.SMMUV3 && record.length === SMMU_RECORD_WORDS;
  if (!smmu && !(type === EVENT_TYPE.VTD_FAULT && record.length === VTD_RECORD_WORDS && device > 0)) {
    throw new CodedError('BAD_ARGUMENT', `HOST_EVENT of type ${type} with ${message.record.length} bytes`);
  }
  const found = device > 0 ? device - 1 : deviceOf(record[1]);
  if (found === undefined) return undefined;
  const substream = (record[0] & SSV) !== 0 ? record[0] >>> SUBSTREAM_SHIFT : NO_PASID;
  const who = device > 0 ? pasid - 1 : substream;
  return { device: found, pasid: who, format: smmu ? 'smmuv3' : 'vtd', record };
}
