import { createHash } from 'node:crypto';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ByteServer, pattern } from './byte-server.js';

let server: ByteServer;
beforeEach(async () => {
  server = await ByteServer.open();
});
afterEach(() => server.close());

const url = (path: string): string => `http://127.0.0.1:${server.port}${path}`;
const md5 = (data: Uint8Array): string => createHash('md5').update(data).digest('hex');

describe('ByteServer', () => {
  it('gives bytes and keeps their sum', async () => {
    const data = new Uint8Array(await (await fetch(url('/download?bytes=200000'))).arrayBuffer());
    expect(data.length).toBe(200_000);
    expect(server.transfers).toEqual([{ direction: 'down', bytes: 200_000, md5: md5(data) }]);
  });

  it('answers an upload with the sum of what came', async () => {
    const body = pattern(100_000);
    const answer = await fetch(url('/upload'), { method: 'POST', body });
    expect(await answer.text()).toBe(md5(body));
    expect(server.transfers).toEqual([{ direction: 'up', bytes: 100_000, md5: md5(body) }]);
  });

  it('refuses other requests', async () => {
    expect((await fetch(url('/'))).status).toBe(404);
    expect((await fetch(url('/download?bytes=-1'))).status).toBe(400);
    expect((await fetch(url('/download?bytes=99999999999'))).status).toBe(400);
  });
});

describe('pattern', () => {
  it('has no two equal pages among the first thousand', () => {
    const data = pattern(1000 * 4096);
    const sums = new Set<string>();
    for (let page = 0; page < 1000; page++) sums.add(md5(data.subarray(page * 4096, (page + 1) * 4096)));
    expect(sums.size).toBe(1000);
  });
});
