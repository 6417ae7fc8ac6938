import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { zeroCounters } from '../../device/counters.js';
import type { DumpNode, DumpOptions } from '../../device/iommu.js';
import type { SessionReport } from '../../session/report.js';
import type { AuditAnswer } from '../../shadow/audit/audit.js';
import type { DiffAnswer, HostDifference } from '../../shadow/check.js';
import type { CliContext, Output } from '../context.js';
import type { SessionCallbacks, SessionPort } from '../daemon.js';
import type { Services } from '../services.js';

/** Fakes of sessions and of everything outside the process, for the tests of this folder. */

export interface TestContext extends CliContext {
  readonly out: () => string;
  readonly err: () => string;
  /** Delivers a signal to its handlers; true when there was one. */
  readonly raise: (name: NodeJS.Signals) => boolean;
  readonly exits: number[];
  /** Scratch directory, also XDG_RUNTIME_DIR. */
  readonly dir: string;
  readonly cleanUp: () => void;
}

function capture(): Output & { text: string } {
  return {
    text: '',
    isTTY: false,
    columns: undefined,
    write(chunk) {
      this.text += chunk;
    },
  };
}

export function testContext(env: Readonly<Record<string, string>> = {}): TestContext {
  const dir = mkdtempSync(join(tmpdir(), 'viommu-test-'));
  const stdout = capture();
  const stderr = capture();
  const exits: number[] = [];
  const handlers = new Map<(name: NodeJS.Signals) => void, readonly NodeJS.Signals[]>();
  return {
    env: { PATH: process.env['PATH'] ?? '', VIOMMU_CACHE: join(dir, 'none'), XDG_RUNTIME_DIR: dir, ...env },
    now: () => 1_000_000,
    stdout,
    stderr,
    pid: process.pid,
    uid: process.getuid?.() ?? 0,
    root: dir,
    version: '9.9.9',
    onSignals(names, handler) {
      handlers.set(handler, names);
      return () => handlers.delete(handler);
    },
    exitNow: (code) => exits.push(code),
    out: () => stdout.text,
    err: () => stderr.text,
    raise(name) {
      const called = [...handlers].filter(([, names]) => names.includes(name));
      for (const [handler] of called) handler(name);
      return called.length > 0;
    },
    exits,
    dir,
    cleanUp: () => rmSync(dir, { recursive: true, force: true }),
  };
}

/** A real shared object in place of the bridge, so that the loader prints no error. */
export const BRIDGE: string =
  ['/lib/x86_64-linux-gnu/libm.so.6', '/lib64/libm.so.6', '/usr/lib/libm.so.6'].find(existsSync) ?? '';

/** A report with a few numbers that tests look for. */
function fakeReport(session: string): SessionReport {
  const zero = { ...zeroCounters(), translations: 7 };
  const bridge = {
    hits: 11,
    misses: 7,
    walks: 5,
    staleFills: 0,
    droppedEntries: 0,
    refused: 0,
    ...{ interruptHits: 0, interruptsAsked: 0, interruptsBlocked: 0 },
    writesSent: 0,
    writesHandled: 0,
  };
  const interrupts = {
    ...{ asked: 0, blocked: 0, looks: 0, invalidationsSent: 0, invalidationsSuppressed: 0 },
  };
  const zeroNesting = { devices: 0, operations: 0, refused: 0, faultsForwarded: 0, faultsWithheld: 0 };
  return {
    ...{
      session,
      vm: '',
      peer: 'fake',
      model: 'vtd',
      options: {},
      features: 0,
      regions: 0,
      remoteRegions: 0,
      devices: [],
    },
    ...{ epoch: 0, invalidationsSent: 0, invalidationsSuppressed: 0, invalidationsMerged: 0, pendingAcks: 0 },
    ...{ deviceTlbInvalidations: 0, interrupts },
    ...{ shadow: [], assigned: [], nesting: zeroNesting, shadowPasses: 0 },
    ...{ frontFrames: 0, backendFrames: 0, counters: zero, commandsByPeer: 0, bridge },
  };
}

/** A session that answers from what it was given. */
export class FakeSession implements SessionPort {
  stopped = false;
  readonly dumps: DumpOptions[] = [];
  /** How many clients have completions checked, and the findings. */
  watchers = 0;
  completed = 0;
  /** How often the findings were asked for. */
  reads = 0;
  readonly differences: HostDifference[] = [];

  constructor(
    readonly id: string,
    readonly callbacks: SessionCallbacks,
  ) {}

  async dump(options: DumpOptions): Promise<DumpNode[]> {
    this.dumps.push(options);
    return [{ label: 'GSTS_REG', raw: '0x80000000', fields: { TES: 1, RTPS: 0 } }];
  }

  async diff(): Promise<DiffAnswer> {
    return { devices: 1, mappings: 3, differences: [], more: false };
  }

  async watchCompletions(on: boolean): Promise<AuditAnswer> {
    this.watchers += on ? 1 : -1;
    return await this.completions(0);
  }

  async completions(from: number): Promise<AuditAnswer> {
    this.reads++;
    return { completions: this.completed, differences: this.differences.slice(from), more: false };
  }

  async report(): Promise<SessionReport> {
    return fakeReport(this.id);
  }

  async stop(): Promise<void> {
    if (this.stopped) return;
    this.stopped = true;
    this.callbacks.closed('STOPPED', 'told to stop', fakeReport(this.id));
  }

  /** The machine says who it is. */
  hello(vm: string): void {
    this.callbacks.event({ kind: 'hello', vm, model: 'vtd', peer: 'fake' });
  }
}

/** Services whose listener is real and whose sessions are fake: a connection is one. */
export function fakeServices(): Services & { readonly sessionsMade: FakeSession[] } {
  const sessionsMade: FakeSession[] = [];
  return {
    sessionsMade,
    listen: (path, onConnection) =>
      new Promise((done, failed) => {
        const sockets = new Set<Socket>();
        const server = createServer((socket) => {
          sockets.add(socket);
          onConnection(0);
        });
        server.once('error', failed);
        server.listen(path, () =>
          done({
            close: () => {
              for (const socket of sockets) socket.destroy();
              return new Promise<void>((closed) => server.close(() => closed()));
            },
          }),
        );
      }),
    simulate: () => Promise.reject(new Error('no simulation here')),
    sessions: () => (_fd, id, callbacks) => {
      const session = new FakeSession(id, callbacks);
      sessionsMade.push(session);
      return session;
    },
  };
}

/** Waits until `condition` holds; fails loudly when it never does. */
export async function until(condition: () => boolean, what: string, milliseconds = 30_000): Promise<void> {
  const end = performance.now() + milliseconds;
  while (!condition()) {
    if (performance.now() > end) throw new Error(`waited in vain for ${what}`);
    await new Promise((done) => setTimeout(done, 5));
  }
}
