import { CAUSE, type DiffAnswer, type HostDifference } from '../shadow/check.js';
import { formatRid } from './dump-lines.js';

const REASON = {
  [CAUSE.NOT_INVALIDATED]: 'the guest has changed its tables and not invalidated',
  [CAUSE.NOT_FOLLOWED]: 'the guest has invalidated, and the host does not follow: a defect of viommu',
} as const;

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
  const { rid, first, last, wanted, mapped, refused, cause, entries } = difference;
  const host = mapped === undefined ? (refused ? 'refused' : 'not mapped') : mapped;
  const why = cause === undefined || cause === CAUSE.REFUSED ? '' : `  (${REASON[cause]})`;
  return [
    `${formatRid(rid)} ${first}-${last}  tables: ${wanted ?? 'nothing'}  host: ${host}${why}`,
    ...entries.map(({ name, index, address, raw, verdict }) => {
      return `    ${name}[${index}] at ${address}: ${raw ?? 'not memory'}  ${verdict}`;
    }),
  ];
}
