import { existsSync, statSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { WebSocket } from 'ws';
import { machineName } from '../base/text.js';
import type { HostDifference } from '../shadow/check.js';
import { ControlClient } from './control-client.js';
import type { ControlEvent } from './control-protocol.js';
import { run } from './program.js';
import { type FakeSession, fakeServices, type TestContext, testContext, until } from './testing/fakes.js';

let context: TestContext;
let services: ReturnType<typeof fakeServices>;
let socket: string;
let serving: Promise<number>;
const peers: Socket[] = [];

async function cli(...argv: string[]): Promise<{ code: number; out: string; err: string }> {
  const other = { ...testContext(context.env as Record<string, string>) };
  const code = await run(other, services, argv);
  other.cleanUp();
  return { code, out: other.out(), err: other.err() };
}

async function connectVm(name: string): Promise<void> {
  const count = services.sessionsMade.length;
  peers.push(connect(socket));
  await until(() => services.sessionsMade.length > count, 'the session');
  services.sessionsMade[count]?.hello(name);
}

beforeEach(async () => {
  context = testContext();
  services = fakeServices();
  socket = join(context.dir, 'v.sock');
  serving = run(context, services, ['serve', '--socket', socket]);
  await until(() => existsSync(`${socket}.ctl`) && context.err().includes('listening'), 'the daemon');
});

afterEach(async () => {
  context.raise('SIGTERM');
  await serving;
  for (const peer of peers.splice(0)) peer.destroy();
  context.cleanUp();
});

describe('viommu serve', () => {
  it('stops its sessions, removes its sockets and its note, and exits 0 on SIGTERM', async () => {
    await connectVm('a');
    await connectVm('b');
    expect(statSync(`${socket}.ctl`).mode & 0o777).toBe(0o600);
    expect(context.raise('SIGTERM')).toBe(true);
    expect(await serving).toBe(0);
    expect(services.sessionsMade.map((session) => session.stopped)).toEqual([true, true]);
    expect([existsSync(socket), existsSync(`${socket}.ctl`)]).toEqual([false, false]);
    expect((await cli('list')).code).toBe(3);
  });

  it('ends at once on a second signal', async () => {
    context.raise('SIGINT');
    context.raise('SIGINT');
    expect(context.exits).toEqual([1]);
    await serving;
  });

  it('refuses a control socket on which a daemon answers, and leaves that one alone', async () => {
    const second = await cli('serve', '--socket', join(context.dir, 'w.sock'), '--control', `${socket}.ctl`);
    expect(second.code).toBe(1);
    expect(second.err).toContain('in use');
    expect(existsSync(join(context.dir, 'w.sock'))).toBe(false);
    expect((await cli('list')).code).toBe(0);
  });

  it('does not overwrite a file that is no socket', async () => {
    const file = join(context.dir, 'precious');
    writeFileSync(file, 'data');
    const second = await cli('serve', '--socket', join(context.dir, 'w.sock'), '--control', file);
    expect(second.code).toBe(1);
    expect(second.err).toContain('not a socket');
    expect(existsSync(file)).toBe(true);
  });
});

describe('commands that look at a daemon', () => {
  it('find the only daemon and the only machine by themselves', async () => {
    await connectVm('debian');
    const { code, out } = await cli('dump');
    expect(code).toBe(0);
    expect(out).toBe('GSTS_REG  0x80000000  TES=1\n');
    expect(services.sessionsMade[0]?.dumps).toEqual([{ registers: true, tables: true, maxLeaves: 64 }]);
  });

  it('take a name as it is listed and as its maker wrote it, which is cut once, between characters', async () => {
    const given = `${'a'.repeat(60)}\u001bbbbb`;
    const shown = `${'a'.repeat(60)}\\u{1b}bbb`;
    // As a session makes it of HELLO.
    await connectVm(machineName(given));
    await connectVm('other');
    const listed = await cli('list', '--json', '--control', `${socket}.ctl`);
    expect(JSON.parse(listed.out)).toMatchObject([{ vms: [{ vm: shown }, { vm: 'other' }] }]);
    for (const wanted of [given, shown]) {
      const { out } = await cli('dump', '--json', '--vm', wanted, '--control', `${socket}.ctl`);
      expect(JSON.parse(out)).toMatchObject({ vm: shown });
    }
  });

  it('ask for a name when several machines are connected, and number equal names', async () => {
    await connectVm('twin');
    await connectVm('twin');
    const unnamed = await cli('dump');
    expect(unnamed.code).toBe(3);
    expect(unnamed.err).toContain('twin, twin-2');
    const options = ['--vm', 'twin-2', '--rid', '00:03.0', '--tables', '--max-leaves', '5', '--json'];
    const named = await cli('dump', ...options);
    expect(JSON.parse(named.out)).toMatchObject({ vm: 'twin-2', nodes: [{ label: 'GSTS_REG' }] });
    expect(services.sessionsMade[1]?.dumps).toEqual([
      { registers: false, tables: true, maxLeaves: 5, rid: 0x18 },
    ]);
    expect((await cli('dump', '--vm', 'nobody')).code).toBe(3);
    expect((await cli('dump', '--rid', 'nonsense')).code).toBe(2);
  });

  it('list machines and report counters', async () => {
    await connectVm('debian');
    expect((await cli('list')).out).toContain('debian');
    expect(JSON.parse((await cli('report')).out)).toMatchObject({ vm: 'debian', report: { session: 'vm1' } });
  });

  it('stream events of one machine until it is told to stop', async () => {
    await connectVm('a');
    await connectVm('b');
    const client = await ControlClient.connect(`${socket}.ctl`);
    const heard: ControlEvent[] = [];
    await client.watch('b', (event) => heard.push(event));
    for (const session of services.sessionsMade) session.callbacks.event({ kind: 'reset' });
    await services.sessionsMade[1]?.stop();
    await until(() => heard.length === 2, 'two events');
    expect(heard.map(({ vm, event }) => [vm, event.kind])).toEqual([
      ['b', 'reset'],
      ['b', 'disconnected'],
    ]);
    client.close();
    await client.closed;
  });
});

describe('viommu diff --watch', () => {
  const difference = {
    ...{ device: 1, rid: 0x28, first: '0x1000', last: '0x1fff', wanted: '0x2000 rw', refused: false },
    cause: 'not invalidated',
    entries: [{ level: 1, name: 'PT', index: 1, address: '0x5008', raw: '0x2003', verdict: 'leaf' }],
  };

  async function watching(): Promise<{ other: TestContext; code: Promise<number>; session: FakeSession }> {
    await connectVm('a');
    const session = services.sessionsMade.at(-1) as FakeSession;
    const other = testContext(context.env as Record<string, string>);
    const code = run(other, services, ['diff', '--watch', '--vm', 'a']);
    await until(() => session.watchers === 1, 'the checks');
    return { other, code, session };
  }

  it('prints each difference and a summary at Ctrl-C, and the checks end with it', async () => {
    const { other, code, session } = await watching();
    session.completed = 7;
    session.differences.push(difference as unknown as HostDifference);
    await until(() => other.out() !== '', 'the difference');
    session.completed = 9;
    other.raise('SIGINT');
    expect(await code).toBe(1);
    expect(other.out()).toBe(
      [
        '00:05.0 0x1000-0x1fff  tables: 0x2000 rw  host: not mapped  (the guest has changed its tables and not invalidated)',
        '    PT[1] at 0x5008: 0x2003  leaf',
        '9 completions checked: 1 differences: 0 refused, 1 not invalidated, 0 not followed',
        '',
      ].join('\n'),
    );
    await until(() => session.watchers === 0, 'the end of the checks');
    other.cleanUp();
  });

  it('ends well when nothing was found, also with the machine', async () => {
    const { other, code, session } = await watching();
    session.completed = 3;
    await until(() => session.reads > 2, 'a look');
    await session.stop();
    expect(await code).toBe(0);
    expect(other.out()).toBe('3 completions checked: no difference\n');
    other.cleanUp();
  });
});

describe('the control channel', () => {
  async function raw(text: string): Promise<unknown> {
    const ws = new WebSocket(`ws+unix://${socket}.ctl:/`);
    const messages: unknown[] = [];
    ws.on('message', (data) => messages.push(JSON.parse(String(data))));
    await until(() => messages.length === 1, 'the greeting');
    expect(messages[0]).toMatchObject({ viommu: 1, version: '9.9.9' });
    ws.send(text);
    await until(() => messages.length === 2, 'the answer');
    ws.terminate();
    return messages[1];
  }

  it('answers nonsense with coded errors and goes on', async () => {
    expect(await raw('not json')).toMatchObject({ id: null, error: { code: 'badRequest' } });
    expect(await raw('{"id":1}')).toMatchObject({ id: null, error: { code: 'badRequest' } });
    expect(await raw('{"id":1,"method":"explode"}')).toMatchObject({
      id: 1,
      error: { code: 'unknownMethod' },
    });
    expect(await raw('{"id":2,"method":"dump","params":{"maxLeaves":-1}}')).toMatchObject({
      id: 2,
      error: { code: 'badParams' },
    });
    expect(await raw('{"id":3,"method":"dump"}')).toMatchObject({ id: 3, error: { code: 'noSuchVm' } });
    expect(await raw('{"id":4,"method":"list"}')).toEqual({ id: 4, result: [] });
  });

  it('drops an asker whose request is too long, not the daemon', async () => {
    const ws = new WebSocket(`ws+unix://${socket}.ctl:/`);
    let closed = false;
    ws.on('close', () => {
      closed = true;
    });
    ws.on('error', () => undefined);
    await until(() => ws.readyState === WebSocket.OPEN, 'the connection');
    ws.send(`"${'x'.repeat(70_000)}"`);
    await until(() => closed, 'the end of the connection');
    expect(await raw('{"id":4,"method":"list"}')).toEqual({ id: 4, result: [] });
  });
});
