import { formatDiff } from '../observe/diff.js';
import { formatDump, parseRid } from '../observe/dump-lines.js';
import { formatEvent } from '../observe/event.js';
import { timeOfDay } from '../observe/log.js';
import { type CliContext, CliError, EXIT } from './context.js';
import { ControlClient, findControl } from './control-client.js';
import {
  type ControlEvent,
  type DiffReply,
  type DumpAnswer,
  isNamed,
  type ReportAnswer,
  type VmSummary,
} from './control-protocol.js';
import { type DaemonNote, runningDaemons } from './runtime-dir.js';

/** Commands that look at a running daemon: `dump`, `list`, `report`, `watch`. */

export interface InspectOptions {
  readonly control?: string;
  readonly vm?: string;
  readonly json?: boolean;
}

interface DumpCommandOptions extends InspectOptions {
  readonly rid?: string;
  readonly registers?: boolean;
  readonly tables?: boolean;
  readonly maxLeaves?: number;
  readonly zeros?: boolean;
  readonly ascii?: boolean;
}

const PLAIN_WIDTH = 120;

/** Asks the daemon that the user means. */
export async function withClient<T>(
  context: CliContext,
  options: InspectOptions,
  use: (client: ControlClient) => Promise<T>,
): Promise<T> {
  const client = await ControlClient.connect(await locate(context, options));
  try {
    return await use(client);
  } finally {
    client.close();
  }
}

/**
 * The daemon that is meant: the one that `--control` names, that has `--vm` connected, or the only
 * one.
 */
async function locate(context: CliContext, { control, vm }: InspectOptions): Promise<string> {
  const daemons = control === undefined && vm !== undefined ? runningDaemons(context) : [];
  if (daemons.length > 1) {
    const listed = await Promise.all(daemons.map((daemon) => machinesOf(daemon.control)));
    const having = daemons.filter((_, index) =>
      listed[index]?.some((machine) => isNamed(machine.vm, vm ?? '')),
    );
    if (having.length === 0) {
      throw new CliError(`no virtual machine ${vm} is connected to any of your daemons`, EXIT.NOT_FOUND);
    }
    if (having.length === 1 && having[0] !== undefined) return having[0].control;
  }
  return findControl(context, control);
}

/** The machines of one daemon; none if the daemon has just ended. */
async function machinesOf(control: string): Promise<readonly VmSummary[]> {
  try {
    const client = await ControlClient.connect(control);
    try {
      return (await client.request('list')) as VmSummary[];
    } finally {
      client.close();
    }
  } catch {
    return [];
  }
}

const json = (value: unknown): string => `${JSON.stringify(value, null, 2)}\n`;
const named = (vm: string | undefined): Readonly<Record<string, unknown>> => (vm === undefined ? {} : { vm });

/** `viommu dump`: registers with named bits; root → context → PASID → page tables as a tree. */
export async function dump(context: CliContext, options: DumpCommandOptions): Promise<number> {
  const both = options.registers === undefined && options.tables === undefined;
  const params: Record<string, unknown> = {
    ...named(options.vm),
    registers: both || options.registers === true,
    tables: both || options.tables === true,
  };
  if (options.maxLeaves !== undefined) params['maxLeaves'] = options.maxLeaves;
  if (options.rid !== undefined) {
    params['rid'] = ridOf(options.rid);
  }
  const answer = (await withClient(context, options, (client) =>
    client.request('dump', params),
  )) as DumpAnswer;
  if (options.json === true) {
    context.stdout.write(json(answer));
    return EXIT.OK;
  }
  const style = {
    width: Math.max(context.stdout.columns ?? PLAIN_WIDTH, 40),
    zeros: options.zeros === true,
    ascii: options.ascii === true,
  };
  context.stdout.write(`${formatDump(answer.nodes, style).join('\n')}\n`);
  return EXIT.OK;
}

interface Listed {
  readonly daemon: DaemonNote | { readonly control: string };
  readonly vms: readonly VmSummary[];
}

/**
 * `viommu list`: the machines of every daemon of this user, or of the one that `--control` names.
 */
export async function list(context: CliContext, options: InspectOptions): Promise<number> {
  const daemons = options.control === undefined ? runningDaemons(context) : [{ control: options.control }];
  const listed: Listed[] = [];
  for (const daemon of daemons) {
    const one = { ...options, control: daemon.control };
    const vms = (await withClient(context, one, (client) => client.request('list'))) as VmSummary[];
    listed.push({ daemon, vms });
  }
  if (options.json === true) {
    context.stdout.write(json(listed));
    return EXIT.OK;
  }
  if (listed.length === 0) {
    context.stderr.write('no daemon of yours is running\n');
    return EXIT.NOT_FOUND;
  }
  for (const { daemon, vms } of listed) context.stdout.write(listText(context, daemon, vms));
  return EXIT.OK;
}

function listText(context: CliContext, daemon: Listed['daemon'], vms: readonly VmSummary[]): string {
  const who = 'pid' in daemon ? `viommu ${daemon.command} (process ${daemon.pid}), ` : '';
  const lines = [`${who}control ${daemon.control}`];
  if (vms.length === 0) lines.push('  no virtual machine is connected');
  for (const { vm, since } of vms) {
    const seconds = Math.max(0, Math.round((context.now() - since) / 1000));
    lines.push(`  ${vm.padEnd(24)} connected for ${seconds} s`);
  }
  return `${lines.join('\n')}\n`;
}

/** `viommu report`: counters of one machine, as JSON. */
export async function report(context: CliContext, options: InspectOptions): Promise<number> {
  const params = named(options.vm);
  const answer = (await withClient(context, options, (client) =>
    client.request('report', params),
  )) as ReportAnswer;
  context.stdout.write(json(answer));
  return EXIT.OK;
}

/** `viommu diff`: guest tables against host mappings in force; fails when there are differences. */
export async function diff(context: CliContext, options: DumpCommandOptions): Promise<number> {
  const params: Record<string, unknown> = { ...named(options.vm) };
  if (options.maxLeaves !== undefined) params['maxLeaves'] = options.maxLeaves;
  if (options.rid !== undefined) params['rid'] = ridOf(options.rid);
  const answer = (await withClient(context, options, (client) =>
    client.request('diff', params),
  )) as DiffReply;
  context.stdout.write(options.json === true ? json(answer) : `${formatDiff(answer).join('\n')}\n`);
  return answer.differences.length === 0 ? EXIT.OK : EXIT.FAILED;
}

function ridOf(text: string): number {
  const rid = parseRid(text);
  if (rid === undefined) throw new CliError(`--rid ${text}: not a requester id like 00:03.0`, EXIT.USAGE);
  return rid;
}

/** `viommu watch`: events as they happen, until the daemon ends or the user stops it. */
export async function watch(context: CliContext, options: InspectOptions): Promise<number> {
  return await withClient(context, options, async (client) => {
    const print = (event: ControlEvent): void => {
      context.stdout.write(
        options.json === true
          ? `${JSON.stringify(event)}\n`
          : `${timeOfDay(event.time)} [${event.vm}] ${eventText(event)}\n`,
      );
    };
    const off = context.onSignals(['SIGINT', 'SIGTERM'], () => client.close());
    await client.watch(options.vm ?? '', print);
    await client.closed;
    off();
    return EXIT.OK;
  });
}

function eventText({ event }: ControlEvent): string {
  return event.kind === 'disconnected' ? `disconnected: ${event.detail}` : formatEvent(event);
}
