import { RULES } from '../assignment/plan-rules.js';
import {
  CONTAINER_NAMES,
  type Container,
  DEVICE_NAMES,
  type DeviceKind,
  fullHost,
  GUEST_NAMES,
  type GuestModel,
  HOST_KINDS,
  HOST_NAMES,
  type HostCapabilities,
  type HostKind,
  type Mode,
  nativeGuest,
} from '../assignment/request.js';
import { type Cell, COLUMN_NAMES, COLUMNS, planTable } from '../assignment/table.js';
import { type CliContext, EXIT } from './context.js';

/** What a host may lack: `--without`. */
export const LACKS = ['stage1', 'stage2', 'nesting', 'pasids', 'page-requests'] as const;
export type Lack = (typeof LACKS)[number];

interface PlanOptions {
  readonly host?: HostKind;
  readonly device?: DeviceKind;
  readonly mode: Mode;
  readonly guest?: Exclude<GuestModel, 'none'>;
  readonly container: Container;
  readonly without: readonly Lack[];
  readonly json?: boolean;
}

interface HostTable {
  readonly host: HostCapabilities;
  readonly guest: GuestModel;
  readonly rows: readonly (readonly Cell[])[];
}

const PLAIN_WIDTH = 110;
const ROW_WIDTH = 6;

/**
 * `viommu plan`: the table of what can be assigned, for one host or each kind of host. Fails when a
 * mode was forced that is impossible in a cell with a vIOMMU.
 */
export function plan(context: CliContext, options: PlanOptions): number {
  const tables = (options.host === undefined ? HOST_KINDS : [options.host]).map((kind) =>
    tableOf(kind, options),
  );
  const refused = options.mode === 'auto' ? [] : tables.flatMap((table) => refusals(table));
  if (options.json === true) {
    context.stdout.write(`${JSON.stringify(tables.map(asData), null, 2)}\n`);
  } else {
    const width = Math.max(context.stdout.columns ?? PLAIN_WIDTH, 60);
    const texts = tables.map((table) => tableText(table, options.mode, width).join('\n'));
    context.stdout.write(`${texts.join('\n\n')}\n`);
  }
  for (const line of refused) context.stderr.write(`viommu: ${line}\n`);
  return refused.length === 0 ? EXIT.OK : EXIT.FAILED;
}

function tableOf(kind: HostKind, options: PlanOptions): HostTable {
  const host = capabilities(kind, options);
  const guest = options.guest ?? nativeGuest(kind);
  const devices = options.device === undefined ? undefined : [options.device];
  const question = { host, guest, mode: options.mode };
  return { host, guest, rows: planTable(devices ? { ...question, devices } : question) };
}

function capabilities(kind: HostKind, { container, without }: PlanOptions): HostCapabilities {
  const lacks = (what: Lack): boolean => without.includes(what);
  const full = fullHost(kind, container);
  return {
    ...full,
    stage1: !lacks('stage1'),
    stage2: !lacks('stage2'),
    nesting: !lacks('nesting'),
    pasidBits: lacks('pasids') ? 0 : full.pasidBits,
    pageRequests: !lacks('page-requests'),
  };
}

/** One line for each cell in which the forced mode is impossible. */
function refusals({ host, rows }: HostTable): string[] {
  return rows.flat().flatMap((cell) => {
    if (cell.plan.ok) return [];
    const where = `${HOST_NAMES[host.kind]}, ${DEVICE_NAMES[cell.device]}, ${COLUMN_NAMES[cell.column]}`;
    const { code, rule } = cell.plan;
    return [`${where}: no ${cell.request.mode} (${code}): ${rule}. What would work: ${cell.wouldWork}.`];
  });
}

function asData({ host, guest, rows }: HostTable): object {
  return {
    host,
    guest,
    cells: rows.flat().map(({ device, column, request, plan: planned, also, wouldWork }) => ({
      device,
      column,
      mode: request.mode,
      ...planned,
      ...(also === undefined ? {} : { also }),
      ...(wouldWork === undefined ? {} : { wouldWork }),
    })),
  };
}

function tableText({ host, guest, rows }: HostTable, mode: Mode, width: number): string[] {
  const column = Math.floor((width - ROW_WIDTH) / COLUMNS.length) - 3;
  const line = (first: string, cells: readonly string[]): string =>
    [first.padEnd(ROW_WIDTH), ...cells.map((text) => text.padEnd(column))].join(' | ').trimEnd();
  const rule = ['-'.repeat(ROW_WIDTH), ...COLUMNS.map(() => '-'.repeat(column))].join('-+-');
  const lines = [
    `Host ${HOST_NAMES[host.kind]}: ${abilities(host)}; mappings in ${CONTAINER_NAMES[host.container]}.`,
    `Guest: ${GUEST_NAMES[guest]}; mode ${mode}.`,
    '',
    line(
      '',
      COLUMNS.map((name) => COLUMN_NAMES[name]),
    ),
  ];
  for (const row of rows) {
    const texts = row.map((cell) => wrap(cellText(cell), column));
    const height = Math.max(...texts.map((text) => text.length));
    lines.push(rule);
    for (let at = 0; at < height; at++) {
      const name = at === 0 ? DEVICE_NAMES[row[0]!.device] : '';
      lines.push(
        line(
          name,
          texts.map((text) => text[at] ?? ''),
        ),
      );
    }
  }
  return lines;
}

function abilities(host: HostCapabilities): string {
  const has = [
    host.stage1 ? 'first level' : 'no first level',
    host.stage2 ? 'second level' : 'no second level',
    host.nesting ? 'nesting' : 'no nesting',
    host.pasidBits > 0 ? `${host.pasidBits}-bit PASIDs` : 'no PASIDs',
    host.pageRequests ? 'page requests' : 'no page requests',
  ];
  return has.join(', ');
}

/** Choice, then the reason. */
function cellText({ plan: planned, also, wouldWork }: Cell): string[] {
  if (!planned.ok) return [`refused: ${planned.code}`, `${planned.rule}.`, `What would work: ${wouldWork}.`];
  const pv = planned.pv === 'none' ? '' : ' + PV';
  const or = also === undefined ? '' : ` (or ${also})`;
  const fills = `fills the ${planned.fills} level`;
  const text = [`${planned.choice}${pv}${or}, ${fills}`, `${capital(planned.reason)}.`];
  if (planned.notNested !== undefined) text.push(`No nesting: ${RULES[planned.notNested]}.`);
  return text;
}

const capital = (text: string): string => text.charAt(0).toUpperCase() + text.slice(1);

/** Paragraphs broken between words; a word longer than a line is cut. */
function wrap(paragraphs: readonly string[], width: number): string[] {
  return paragraphs.flatMap((text) => {
    const lines: string[] = [];
    let line = '';
    for (const word of text.split(' ')) {
      if (line !== '' && line.length + 1 + word.length > width) {
        lines.push(line);
        line = '';
      }
      line = line === '' ? word : `${line} ${word}`;
      while (line.length > width) {
        lines.push(line.slice(0, width));
        line = line.slice(width);
      }
    }
    return line === '' ? lines : [...lines, line];
  });
}
