import type { DumpNode } from '../device/iommu.js';

/** How a dump is laid out for a person. */
interface DumpStyle {
  /** Columns of the terminal; longer field lists are wrapped under themselves. At least 40. */
  readonly width: number;
  /** Also prints fields that are zero. */
  readonly zeros: boolean;
  /** Tree lines in ASCII only. */
  readonly ascii: boolean;
}

export const DEFAULT_DUMP_STYLE: DumpStyle = { width: 110, zeros: false, ascii: false };

interface Glyphs {
  readonly tee: string;
  readonly last: string;
  readonly line: string;
  readonly none: string;
}

const UNICODE: Glyphs = { tee: '├─ ', last: '└─ ', line: '│  ', none: '   ' };
const ASCII: Glyphs = { tee: '|- ', last: '`- ', line: '|  ', none: '   ' };

/**
 * Widest label that still lines up the values beside it; longer ones push their own value to the
 * right.
 */
const LABEL_LIMIT = 28;

/**
 * The lines of a dump: one node a line, children below it as a tree, raw values of siblings in one
 * column, fields as `NAME=value` after them. Changes nothing and never throws.
 */
export function formatDump(nodes: readonly DumpNode[], style: DumpStyle = DEFAULT_DUMP_STYLE): string[] {
  const lines: string[] = [];
  const glyphs = style.ascii ? ASCII : UNICODE;
  const columns = columnsOf(nodes);
  for (const node of nodes) printNode(lines, node, '', '', columns, glyphs, style);
  return lines;
}

/** Where the raw value and the fields of a row of siblings start. */
interface Columns {
  readonly label: number;
  readonly raw: number;
}

function columnsOf(nodes: readonly DumpNode[]): Columns {
  let label = 0;
  let raw = 0;
  for (const node of nodes) {
    if (node.raw === undefined && node.fields === undefined) continue;
    if (node.label.length <= LABEL_LIMIT) label = Math.max(label, node.label.length);
    raw = Math.max(raw, node.raw?.length ?? 0);
  }
  return { label, raw };
}

function printNode(
  lines: string[],
  node: DumpNode,
  lead: string,
  below: string,
  columns: Columns,
  glyphs: Glyphs,
  style: DumpStyle,
): void {
  const children = node.children ?? [];
  const words = fieldWords(node, style.zeros);
  const plain = node.raw === undefined && words.length === 0;
  const value = columns.raw === 0 ? '' : `  ${(node.raw ?? '').padEnd(columns.raw)}`;
  const head = plain ? `${lead}${node.label}` : `${lead}${node.label.padEnd(columns.label)}${value}`;
  const tail = words.length === 0 ? [] : wrap(words, style.width - head.length - 2);
  const under = below + (children.length > 0 ? glyphs.line : glyphs.none);
  lines.push(tail.length === 0 ? head.trimEnd() : `${head}  ${tail[0]}`);
  for (const more of tail.slice(1)) lines.push(under.padEnd(head.length + 2) + more);
  const childColumns = columnsOf(children);
  for (const [index, child] of children.entries()) {
    const isLast = index === children.length - 1 && node.note === undefined;
    const childLead = below + (isLast ? glyphs.last : glyphs.tee);
    const childBelow = below + (isLast ? glyphs.none : glyphs.line);
    printNode(lines, child, childLead, childBelow, childColumns, glyphs, style);
  }
  if (node.note !== undefined) lines.push(`${below}${glyphs.last}(${node.note})`);
}

function fieldWords(node: DumpNode, zeros: boolean): string[] {
  const words: string[] = [];
  for (const [name, value] of Object.entries(node.fields ?? {})) {
    if (!zeros && value === 0) continue;
    words.push(`${name}=${fieldValue(value)}`);
  }
  return words;
}

/** Small numbers as they are, the rest in hexadecimal: an address or a mask is read that way. */
function fieldValue(value: string | number): string {
  if (typeof value === 'string') return value;
  return Number.isInteger(value) && value >= 10 ? `0x${value.toString(16)}` : String(value);
}

function wrap(words: readonly string[], width: number): string[] {
  const limit = Math.max(width, 24);
  const lines: string[] = [];
  let line = '';
  for (const word of words) {
    if (line.length > 0 && line.length + 1 + word.length > limit) {
      lines.push(line);
      line = word;
    } else {
      line = line.length === 0 ? word : `${line} ${word}`;
    }
  }
  if (line.length > 0) lines.push(line);
  return lines;
}

/** `bb:dd.f` of a requester id. */
export function formatRid(rid: number): string {
  const bus = (rid >> 8).toString(16).padStart(2, '0');
  const device = ((rid >> 3) & 31).toString(16).padStart(2, '0');
  return `${bus}:${device}.${rid & 7}`;
}

/**
 * The requester id that `bb:dd.f` (hexadecimal, as lspci prints it) names; undefined when it is not
 * one.
 */
export function parseRid(text: string): number | undefined {
  const match = /^(?:0000:)?([0-9a-f]{1,2}):([0-9a-f]{1,2})\.([0-7])$/i.exec(text);
  if (match === null) return undefined;
  const [bus, device, fn] = [match[1], match[2], match[3]].map((part) => Number.parseInt(part ?? '', 16));
  if (bus === undefined || device === undefined || fn === undefined || device > 31) return undefined;
  return (bus << 8) | (device << 3) | fn;
}
