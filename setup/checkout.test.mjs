import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
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

/** A clone whose bridge and loader are texts: this set-up, and sources that make both. */
function clone(parent, bridge) {
  const root = join(scratch, parent, 'viommu');
  mkdirSync(join(root, 'qemu-bridge'), { recursive: true });
  cpSync(import.meta.dirname, join(root, 'setup'), { recursive: true });
  change(root, bridge);
  return root;
}

function change(root, bridge) {
  const rule = (goal, text, object) => `${goal}:\n\techo ${text} > $(OUT)/${object}\n`;
  const recipe = [rule('all', bridge, 'viommu-bridge-$(TARGET).so'), rule('loader', '-', 'viommu-bridge.so')];
  writeFileSync(join(root, 'qemu-bridge/Makefile'), recipe.join(''));
}

/** Builds the bridge as the set-up of that clone does, and notes it. */
const SET_UP = `
  import { bridgeInputs, bridgeName, ensureBridge, ensureLoader, LOADER } from './setup/bridge.mjs';
  import { bridgeSources } from './setup/build-stamp.mjs';
  import { Cache } from './setup/cache.mjs';
  import { Checkout } from './setup/checkout.mjs';
  const cache = new Cache(process.argv[1]);
  const checkout = new Checkout(cache, process.cwd());
  const loader = await ensureLoader(cache);
  let directory;
  for (const version of process.argv.slice(2)) {
    const object = await ensureBridge(cache, 'headers', 'uapi', bridgeInputs(version, 'p'), 'x86_64');
    const name = bridgeName('x86_64', { version, package: 'p (1:2)' });
    directory = checkout.keepBridges(bridgeSources(process.cwd()), { [name]: object, [LOADER]: loader });
  }
  checkout.note({ bridge: directory + '/' + LOADER }, 'as asked');
`;

function setUp(root, ...versions) {
  const args = [
    '--input-type=module',
    '-e',
    SET_UP,
    cache.root,
    ...(versions.length ? versions : ['10.0.2']),
  ];
  const { status, stderr } = spawnSync(process.execPath, args, { cwd: root, encoding: 'utf8' });
  expect(status, stderr).toBe(0);
}

/** The bridge of one QEMU that `viommu qemu` of that clone would load. */
function loaded(root, version = '10.0.2') {
  const context = { env: { VIOMMU_CACHE: cache.root }, root };
  const directory = dirname(bridgePath(context, 'amd64', undefined));
  return readFileSync(join(directory, `viommu-bridge-x86_64-${version}-p__1_2_.so`), 'utf8').trim();
}

/** Files in a clone's directory of bridges that differ by QEMU. */
const bridges = (root) =>
  readdirSync(dirname(new Checkout(cache, root).paths.bridge)).filter((name) => name.includes('x86_64'));

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
  expect([loaded(first), loaded(second)]).toEqual(['one', 'one']);
  expect(readdirSync(cache.path('bridge'))).toHaveLength(1);
});

it('bridges for several QEMUs lie side by side, of the same sources only', () => {
  const root = clone('a', 'one');
  setUp(root, '10.0.2');
  const { bridge } = new Checkout(cache, root).paths;
  setUp(root, '11.1.3');
  expect([loaded(root, '10.0.2'), loaded(root, '11.1.3')]).toEqual(['one', 'one']);
  expect(new Checkout(cache, root).paths.bridge, 'what names the loader stays right').toBe(bridge);
  change(root, 'two');
  setUp(root, '11.1.3');
  expect(bridges(root)).toEqual(['viommu-bridge-x86_64-11.1.3-p__1_2_.so']);
  expect(loaded(root, '11.1.3')).toBe('two');
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
