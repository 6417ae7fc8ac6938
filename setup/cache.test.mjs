import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { Cache } from './cache.mjs';

let root;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'viommu-cache-'));
});
afterEach(() => rmSync(root, { recursive: true }));

it('a directory that two ask for at once is made once', async () => {
  const cache = new Cache(root);
  let built = 0;
  const build = async (scratch) => {
    built++;
    await sleep(5);
    writeFileSync(join(scratch, 'file'), 'whole');
  };
  const paths = await Promise.all([cache.directory('thing', build), cache.directory('thing', build)]);
  expect(paths).toEqual([join(root, 'thing'), join(root, 'thing')]);
  expect(readFileSync(join(root, 'thing/file'), 'utf8')).toBe('whole');
  expect(built).toBe(1);
});

it('one that could not be made is absent, and is made at the next try', async () => {
  const cache = new Cache(root);
  const failing = cache.directory('thing', () => Promise.reject(new Error('no network')));
  await expect(failing).rejects.toThrow('no network');
  expect(await cache.directory('thing', async () => {})).toBe(join(root, 'thing'));
});
