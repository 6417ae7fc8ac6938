import { machineName } from '../base/text.js';
import type { DumpOptions } from '../device/iommu.js';
import type { SessionReport } from '../session/report.js';
import type { AuditAnswer } from '../shadow/audit/audit.js';
import type { DiffAnswer } from '../shadow/check.js';
import {
  type CompletionReply,
  ControlError,
  type DiffReply,
  type DumpAnswer,
  isNamed,
  type ReportAnswer,
  type VmSummary,
} from './control-protocol.js';
import type { ControlConnection, ControlMethodHandler } from './control-server.js';

/** What these methods need of a connected machine. */
interface ControlledVm {
  readonly name: string;
  readonly since: number;
  readonly session: {
    dump(options: DumpOptions): Promise<DumpAnswer['nodes']>;
    report(): Promise<SessionReport>;
    diff(rid: number | undefined, most: number): Promise<DiffAnswer>;
    watchCompletions(on: boolean): Promise<AuditAnswer>;
    completions(from: number): Promise<AuditAnswer>;
  };
}

type Params = Readonly<Record<string, unknown>>;

/** Leaf ranges that a dump prints for each address space: by default, and at most. */
const DEFAULT_MAX_LEAVES = 64;
const LIMIT_MAX_LEAVES = 1_000_000;

/** The methods of the control channel, for the machines of `source`. */
export function controlMethods(source: {
  vms(): readonly ControlledVm[];
}): ReadonlyMap<string, ControlMethodHandler> {
  const watched = new WeakMap<ControlConnection, Set<ControlledVm>>();
  return new Map<string, ControlMethodHandler>([
    ['list', async () => source.vms().map(({ name, since }): VmSummary => ({ vm: name, since }))],
    [
      'dump',
      async (params) => {
        const options = dumpOptions(params);
        const vm = choose(source.vms(), params);
        return { vm: vm.name, nodes: await orGone(vm.session.dump(options)) } satisfies DumpAnswer;
      },
    ],
    [
      'report',
      async (params) => {
        const vm = choose(source.vms(), params);
        return { vm: vm.name, report: await orGone(vm.session.report()) } satisfies ReportAnswer;
      },
    ],
    [
      'diff',
      async (params) => {
        const { maxLeaves: most, rid } = dumpOptions(params);
        const vm = choose(source.vms(), params);
        return { vm: vm.name, ...(await orGone(vm.session.diff(rid, most))) } satisfies DiffReply;
      },
    ],
    [
      'completions',
      async (params, connection) => {
        const { from = 0 } = params;
        if (!isIntegerIn(from, 0, Number.MAX_SAFE_INTEGER)) {
          throw new ControlError('badParams', 'from is a number');
        }
        const vm = choose(source.vms(), params);
        await orGone(watchFor(connection, vm, watched));
        return { vm: vm.name, ...(await orGone(vm.session.completions(from))) } satisfies CompletionReply;
      },
    ],
  ]);
}

/** Has every completion of a machine checked until the connection ends. */
async function watchFor(
  connection: ControlConnection,
  vm: ControlledVm,
  watched: WeakMap<ControlConnection, Set<ControlledVm>>,
): Promise<void> {
  const vms = watched.get(connection) ?? new Set();
  watched.set(connection, vms);
  if (vms.has(vm)) return;
  vms.add(vm);
  // Fails if the machine is gone: then there is nothing to stop.
  connection.onClose(() => void vm.session.watchCompletions(false).catch(() => undefined));
  await vm.session.watchCompletions(true);
}

/**
 * A session that ends before it has answered rejects with SESSION_GONE. That is the client's
 * answer, not a defect.
 */
async function orGone<T>(answer: Promise<T>): Promise<T> {
  try {
    return await answer;
  } catch (error) {
    if ((error as { reason?: unknown } | null)?.reason === 'SESSION_GONE') throw new ControlError('gone');
    throw error;
  }
}

function choose(vms: readonly ControlledVm[], params: Params): ControlledVm {
  const wanted = params['vm'];
  if (wanted !== undefined && typeof wanted !== 'string')
    throw new ControlError('badParams', 'vm is not a string');
  const names = vms.map(({ name }) => name).join(', ');
  if (wanted === undefined) {
    const only = vms[0];
    if (only === undefined) throw new ControlError('noSuchVm', 'no virtual machine is connected');
    if (vms.length > 1)
      throw new ControlError('ambiguousVm', `several virtual machines are connected: ${names}`);
    return only;
  }
  const found = vms.find(({ name }) => name === wanted) ?? vms.find(({ name }) => isNamed(name, wanted));
  if (found === undefined) {
    throw new ControlError(
      'noSuchVm',
      `no virtual machine ${machineName(wanted)} is connected (connected: ${names || 'none'})`,
    );
  }
  return found;
}

function dumpOptions(params: Params): DumpOptions {
  const { registers = true, tables = true, rid, maxLeaves = DEFAULT_MAX_LEAVES } = params;
  if (typeof registers !== 'boolean' || typeof tables !== 'boolean') {
    throw new ControlError('badParams', 'registers and tables are booleans');
  }
  if (!isIntegerIn(maxLeaves, 0, LIMIT_MAX_LEAVES)) {
    throw new ControlError('badParams', `maxLeaves is a number from 0 to ${LIMIT_MAX_LEAVES}`);
  }
  if (rid === undefined) return { registers, tables, maxLeaves };
  if (!isIntegerIn(rid, 0, 0xffff)) throw new ControlError('badParams', 'rid is a number from 0 to 65535');
  return { registers, tables, maxLeaves, rid };
}

function isIntegerIn(value: unknown, low: number, high: number): value is number {
  return typeof value === 'number' && Number.isInteger(value) && value >= low && value <= high;
}
