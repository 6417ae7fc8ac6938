import type { DiffAnswer, HostDifference } from '../shadow/check.js';
import { formatRid } from './dump.js';

/** What `viommu diff` prints: a line for each difference, and the entries that it comes from. */
export function formatDiff(answer: DiffAnswer): string[] {
  const { devices, mappings, more } = answer;
  if (answer.differences.length === 0) {
    return [`no difference: ${devices} assigned devices, ${mappings} host mappings`];
  }
  const lines = answer.differences.flatMap(formatDifference);
  return more ? [...lines, 'and more'] : lines;
}

/** One difference, with the entries that it comes from. */
export function formatDifference(difference: HostDifference): string[] {
  const { rid, first, last, wanted, mapped, refused, entries } = difference;
  const host = mapped === undefined ? (refused ? 'refused' : 'not mapped') : mapped;
  return [
    `${formatRid(rid)} ${first}-${last}  tables: ${wanted ?? 'nothing'}  host: ${host}`,
    ...entries.map(({ name, index, address, raw, verdict }) => {
      return `    ${name}[${index}] at ${address}: ${raw ?? 'not memory'}  ${verdict}`;
    }),
  ];
}
