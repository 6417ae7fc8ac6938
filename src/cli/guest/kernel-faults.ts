/** DMA faults as the guest's kernel reports them in its log. */
import { EVENT, eventName, F_TRANSLATION } from '../../spec/smmuv3/events.js';

/** A DMA fault as the kernel's IOMMU driver reports it. */
export interface KernelFault {
  readonly operation: 'read' | 'write';
  /** The requester: `00:05.0`. */
  readonly device: string;
  /** Hexadecimal with 0x; VT-d: page-aligned. */
  readonly address: string;
  /** Of a request with one: PASID or SubstreamID. */
  readonly pasid?: number;
  /** VT-d: fault reason. SMMUv3: event number. */
  readonly reason: number;
  readonly text: string;
}

/** The faults that lines of the kernel's log report, in order. */
export function parseKernelFaults(lines: readonly string[]): KernelFault[] {
  const faults: KernelFault[] = [];
  for (let at = 0; at < lines.length; at++) {
    const fault = dmarFault(lines[at] as string) ?? smmuEvent(lines, at);
    if (fault !== undefined) faults.push(fault);
  }
  return faults;
}

const DMAR =
  /\[DMA (Read|Write)(?: NO_PASID| PASID (\w+))?\] Request device \[([0-9a-f:.]+)\] (?:PASID \S+ )?fault addr (0x)?([0-9a-f]+) \[fault reason (0x[0-9a-f]+|\d+)\] (.*)/;

/** The Intel driver's line: hexadecimal without 0x before 6.1. */
function dmarFault(line: string): KernelFault | undefined {
  const match = DMAR.exec(line);
  if (match === null) return undefined;
  const [, operation = '', pasid, device = '', , address = '', reason = '', text = ''] = match;
  return {
    operation: operation === 'Read' ? 'read' : 'write',
    device,
    address: `0x${address}`,
    ...(pasid === undefined ? {} : { pasid: Number(pasid) }),
    reason: Number(reason),
    text: text.trim(),
  };
}

const EVENT_DOUBLEWORDS = 4;

/** The SMMUv3 driver's: a line that announces an event, then its record, a doubleword a line. */
function smmuEvent(lines: readonly string[], at: number): KernelFault | undefined {
  if (!/arm-smmu-v3 \S+: event 0x[0-9a-f]+ received:/.test(lines[at] as string)) return undefined;
  const record = new BigUint64Array(EVENT_DOUBLEWORDS);
  for (let i = 0; i < EVENT_DOUBLEWORDS; i++) {
    const value = /arm-smmu-v3 \S+:\s+(0x[0-9a-f]{16})$/.exec(lines[at + 1 + i]?.trimEnd() ?? '')?.[1];
    if (value === undefined) return undefined;
    record[i] = BigInt(value);
  }
  const words = new Uint32Array(record.buffer);
  // The fields that this needs stand in the same place in every event that has them.
  const { EventNumber, StreamID, SSV, SubstreamID, RnW } = F_TRANSLATION.get;
  const sid = StreamID(words);
  const number = EventNumber(words);
  // The one event that is about a SubstreamID does not say that there is one.
  const substream = SSV(words) === 1 || number === EVENT.C_BAD_SUBSTREAMID;
  const hex = (value: number): string => value.toString(16).padStart(2, '0');
  return {
    operation: RnW(words) === 1 ? 'read' : 'write',
    device: `${hex(sid >> 8)}:${hex((sid >> 3) & 31)}.${sid & 7}`,
    address: `0x${(record[2] as bigint).toString(16)}`,
    ...(substream ? { pasid: SubstreamID(words) } : {}),
    reason: number,
    text: eventName(number),
  };
}
