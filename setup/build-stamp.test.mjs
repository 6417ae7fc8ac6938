import { cpSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Build, bridgeSources, isFresh, requireFresh, requireFreshBridge } from './build-stamp.mjs';

let root;

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'viommu-build-'));
  mkdirSync(join(root, 'src/base'), { recursive: true });
  put('src/main.ts', '1');
  put('src/base/u64.ts', '2');
  put('src/base/u64.test.ts', '3');
  put('tsconfig.json', '{}');
});

afterEach(() => rmSync(root, { recursive: true, force: true }));

function put(path, text) {
  writeFileSync(join(root, path), text);
}

/** What a compiler leaves. */
function compile(build) {
  mkdirSync(join(root, 'dist.next'));
  put('dist.next/main.js', '1');
  build.finish();
}

describe('a build', () => {
  it('is fresh until one of its sources changes', () => {
    compile(new Build(root));
    expect(isFresh(root)).toBe(true);
    expect(() => requireFresh(root)).not.toThrow();
    put('src/base/u64.ts', 'another');
    expect(isFresh(root)).toBe(false);
    put('src/base/u64.ts', '2');
    expect(isFresh(root), 'by what is in the files, not by when they were written').toBe(true);
  });

  it.each([
    ['a new source', () => put('src/base/new.ts', '4')],
    ['a source that is gone', () => rmSync(join(root, 'src/base/u64.ts'))],
    ['another configuration', () => put('tsconfig.json', '{ }')],
  ])('is stale after %s', (_what, change) => {
    compile(new Build(root));
    change();
    expect(() => requireFresh(root)).toThrow(
      /not compiled from the sources as they are now: run npm run build/,
    );
  });

  it('does not depend on unit tests', () => {
    compile(new Build(root));
    put('src/base/u64.test.ts', 'another');
    put('src/base/more.test.ts', 'another');
    expect(isFresh(root)).toBe(true);
  });

  it('of sources that changed while they were compiled is stale', () => {
    const build = new Build(root);
    put('src/main.ts', 'another');
    compile(build);
    expect(isFresh(root)).toBe(false);
  });

  it('replaces the one before, and leaves nothing of it', () => {
    compile(new Build(root));
    put('dist/gone.js', '');
    compile(new Build(root));
    expect(existsSync(join(root, 'dist/gone.js'))).toBe(false);
  });

  it('that failed leaves the one before as it was', () => {
    compile(new Build(root));
    const build = new Build(root);
    mkdirSync(join(root, 'dist.next'));
    build.abandon();
    expect([isFresh(root), existsSync(join(root, 'dist.next'))]).toEqual([true, false]);
  });

  it('that is missing is said to be', () => {
    expect(() => requireFresh(root)).toThrow(/dist is missing: run npm run build/);
  });
});

describe('a bridge', () => {
  beforeEach(() => {
    mkdirSync(join(root, 'qemu-bridge/test'), { recursive: true });
    put('qemu-bridge/walk.c', '1');
    put('qemu-bridge/Makefile', '2');
  });

  it('of other sources is refused, with what to run', () => {
    const made = bridgeSources(root);
    put('qemu-bridge/test/walk-test.c', 'no part of it');
    expect(() => requireFreshBridge(root, made)).not.toThrow();
    put('qemu-bridge/walk.c', 'another');
    expect(() => requireFreshBridge(root, made)).toThrow(
      'the bridge was not built from the sources as they are now: run npm run setup',
    );
  });

  it("that the user brought is the user's affair", () => {
    expect(() => requireFreshBridge(root, undefined)).not.toThrow();
  });

  it('is the same in a clone somewhere else', () => {
    const clone = mkdtempSync(join(tmpdir(), 'viommu-clone-'));
    try {
      cpSync(root, clone, { recursive: true });
      expect(bridgeSources(clone)).toBe(bridgeSources(root));
    } finally {
      rmSync(clone, { recursive: true });
    }
  });
});
