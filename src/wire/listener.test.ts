import { existsSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { closeFd, connectUnix, listenUnix } from '../base/native.js';
import { Channel, FILL } from './channel.js';
import { CODEC } from './codec.js';
import { MESSAGE } from './frame.js';
import { type Listener, listen } from './listener.js';

let directory = '';
let path = '';
const listeners: Listener[] = [];
const accepted: number[] = [];

async function start(): Promise<Listener> {
  const listener = await listen(path, (fd) => accepted.push(fd));
  listeners.push(listener);
  return listener;
}

async function until(condition: () => boolean): Promise<void> {
  for (let i = 0; i < 400; i++) {
    if (condition()) return;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  expect.fail('waited in vain');
}

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'viommu-listener-'));
  path = join(directory, 'socket');
});

afterEach(async () => {
  for (const listener of listeners.splice(0)) await listener.close();
  for (const fd of accepted.splice(0)) closeFd(fd);
  rmSync(directory, { recursive: true });
});

describe('the listener', () => {
  it('has mode 0600 whatever the umask, and leaves the umask alone', async () => {
    const before = process.umask(0);
    try {
      await start();
      expect(statSync(path).mode & 0o777).toBe(0o600);
      expect(process.umask()).toBe(0);
    } finally {
      process.umask(before);
    }
  });

  it('hands over a descriptor that stays connected, with what was already sent', async () => {
    await start();
    const mine = new Channel(connectUnix(path));
    mine.put(MESSAGE.RESET, 0, 9, CODEC.Reset, {});
    mine.flush();
    await until(() => accepted.length === 1);
    const theirs = new Channel(accepted.pop() as number);
    await until(() => theirs.fill() === FILL.DATA);
    expect(theirs.next() && theirs.frame.id).toBe(9);
    theirs.close();
    expect(mine.fill()).toBe(FILL.CLOSED);
    mine.close();
  });

  it('keeps nothing of a connection itself', async () => {
    await start();
    const count = (): number => readdirSync('/proc/self/fd').length;
    const before = count();
    for (let i = 0; i < 20; i++) {
      const fd = connectUnix(path);
      await until(() => accepted.length === 1);
      closeFd(accepted.pop() as number);
      closeFd(fd);
    }
    await until(() => count() === before);
  });

  it('removes its file when it closes, and only its own', async () => {
    const listener = await start();
    await listener.close();
    expect(existsSync(path)).toBe(false);
    const other = await start();
    rmSync(path);
    writeFileSync(path, 'another');
    await other.close();
    expect(existsSync(path)).toBe(true);
    listeners.length = 0;
  });

  it('replaces a socket without a listener', async () => {
    closeFd(listenUnix(path, 1));
    expect(existsSync(path)).toBe(true);
    await start();
    closeFd(connectUnix(path));
    await until(() => accepted.length === 1);
  });

  it('does not replace a socket with a listener, or a file', async () => {
    const first = await start();
    await expect(listen(path, () => undefined)).rejects.toMatchObject({ reason: 'ADDRESS_IN_USE' });
    const fd = connectUnix(path);
    await until(() => accepted.length >= 1);
    closeFd(fd);
    await first.close();
    listeners.length = 0;
    writeFileSync(path, 'precious');
    await expect(listen(path, () => undefined)).rejects.toMatchObject({ reason: 'ADDRESS_IN_USE' });
    expect(existsSync(path)).toBe(true);
  });

  it.each([
    ['in a directory that is not there', '/nonexistent/viommu/socket'],
    ['longer than a socket path may be', `/tmp/${'x'.repeat(120)}`],
    ['empty', ''],
  ])('refuses a path %s', async (_, bad) => {
    await expect(listen(bad, () => undefined)).rejects.toMatchObject({ reason: 'BAD_SOCKET_PATH' });
  });
});
