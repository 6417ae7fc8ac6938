import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { bridgePath, preparedFile } from '../src/cli/paths.js';
import { Cache } from './cache.mjs';
import { Checkout } from './checkout.mjs';

let scratch;
let cache;

beforeEach(() => {
  scratch = mkdtempSync(join(tmpdir(), 'viommu-checkouts-'));
  cache = new Cache(join(scratch, 'cache'));
  mkdirSync(cache.root);
});

afterEach(() => rmSync(scratch, { recursive: true }));

/** A clone whose bridge is a text: this set-up, and sources that make it. */
function clone(parent, bridge) {
  const root = join(scratch, parent, 'viommu');
  mkdirSync(join(root, 'qemu-bridge'), { recursive: true });
  cpSync(import.meta.dirname, join(root, 'setup'), { recursive: true });
  change(root, bridge);
  return root;
}

function change(root, bridge) {
  const recipe = `all:\n\techo ${bridge} > $(OUT)/viommu-bridge-$(TARGET).so\n`;
  writeFileSync(join(root, 'qemu-bridge/Makefile'), recipe);
}

/** Builds the bridge as the set-up of that clone does, and notes it. */
const SET_UP = `
  import { bridgeInputs, ensureBridge } from './setup/bridge.mjs';
  import { Cache } from './setup/cache.mjs';
  import { Checkout } from './setup/checkout.mjs';
  const cache = new Cache(process.argv[1]);
  const bridge = await ensureBridge(cache, 'headers', 'uapi', bridgeInputs('10.0.2', 'p'), 'x86_64');
  new Checkout(cache, '.').note({ bridge }, 'as asked');
`;

function setUp(root) {
  const args = ['--input-type=module', '-e', SET_UP, cache.root];
  const { status, stderr } = spawnSync(process.execPath, args, { cwd: root, encoding: 'utf8' });
  expect(status, stderr).toBe(0);
}

/** What `viommu qemu` of that clone would load. */
function loaded(root) {
  const context = { env: { VIOMMU_CACHE: cache.root }, root };
  return readFileSync(bridgePath(context, 'amd64', undefined), 'utf8').trim();
}

it('two clones that are set up in turn run a bridge of their own each', () => {
  const [first, second] = [clone('a', 'one'), clone('b', 'two')];
  setUp(first);
  setUp(second);
  expect([loaded(first), loaded(second)]).toEqual(['one', 'two']);
  change(first, 'three');
  setUp(first);
  expect([loaded(first), loaded(second)]).toEqual(['three', 'two']);
});

it('clones with the same sources share what was made', () => {
  const [first, second] = [clone('a', 'one'), clone('b', 'one')];
  setUp(first);
  setUp(second);
  const { bridge } = new Checkout(cache, first).paths;
  expect(new Checkout(cache, second).paths.bridge).toBe(bridge);
});

it('commands look where the set-up notes it', () => {
  const root = clone('a', 'one');
  expect(preparedFile({ VIOMMU_CACHE: cache.root }, root)).toBe(new Checkout(cache, root).pathsFile);
});

it("an older set-up's files in the cache say nothing", () => {
  const root = clone('a', 'one');
  cache.writeJson('paths.json', { bridge: '/gone.so' });
  cache.writeJson('state.json', { [root]: { fingerprint: 'as asked', paths: { bridge: '/gone.so' } } });
  const checkout = new Checkout(cache, root);
  expect([checkout.paths, checkout.fingerprint]).toEqual([undefined, undefined]);
  setUp(root);
  expect([loaded(root), checkout.fingerprint]).toEqual(['one', 'as asked']);
  expect(cache.readJson('paths.json')).toEqual({ bridge: '/gone.so' });
});
