/**
 * The headers that a shared object for one QEMU version is compiled against: upstream's own, plus
 * those that QEMU's build generates. A configured tree makes the generated ones in seconds, without
 * compiling QEMU. What is kept is a small tree and the compiler flags that go with it.
 */
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { filesBelow } from './cache.mjs';
import { capture, runLogged, SYSTEM_ENVIRONMENT } from './exec.mjs';
import { thisMachine } from './hosts.mjs';

/** Raised when what a header tree contains changes, so that old ones are made anew. */
const LAYOUT = 1;

/** QEMU's name of a target → the directory of its CPU. */
const TARGETS = { 'x86_64-softmmu': 'i386', 'aarch64-softmmu': 'arm' };

/** Parts of the source tree whose headers a device may include. */
const KEPT = [
  'accel',
  'hw',
  'host',
  'include',
  'linux-headers',
  'migration',
  'tcg',
  'trace',
  'target/i386',
  'target/arm',
];

/**
 * Options of configure. Features are off, because only headers are wanted; what changes the layout
 * of a structure has the value of Debian's build: modules and plugins on (CPUState), debugging off.
 * CONFIG_LINUX_AIO and CONFIG_LINUX_IO_URING change AioContext, which a device holds by pointer
 * only.
 */
const CONFIGURE = [
  '--python=/usr/bin/python3',
  '--without-default-features',
  '--enable-tcg',
  '--enable-kvm',
  '--enable-system',
  '--enable-modules',
  '--enable-plugins',
  '--enable-fdt=system',
  '--disable-tools',
  '--disable-docs',
  '--disable-download',
  '--disable-install-blobs',
];

const configureOptions = ({ configure, targets }) => [
  ...CONFIGURE,
  ...configure,
  `--target-list=${targets.join(',')}`,
];

/**
 * Debian strips these; the build description wants the files to exist, and never reads them here.
 */
function standInForStrippedFiles(source) {
  const lists = [
    { file: 'pc-bios/meson.build', names: /'(edk2-[a-z0-9_-]+\.fd)'/g, suffix: '.bz2' },
    // Compiled device trees, since 10.1.
    { file: 'pc-bios/dtb/meson.build', names: /'([a-z0-9_-]+\.dtb)'/g, suffix: '' },
  ].filter(({ file }) => existsSync(join(source, file)));
  for (const { file, names, suffix } of lists) {
    for (const [, name] of readFileSync(join(source, file), 'utf8').matchAll(names)) {
      writeFileSync(join(source, dirname(file), `${name}${suffix}`), '');
    }
  }
}

function copyHeaders(from, to, accept) {
  for (const file of filesBelow(from)) {
    if (/\.(h|h\.inc|def)$/.test(file) && accept(file)) {
      const target = join(to, file.slice(from.length + 1));
      mkdirSync(dirname(target), { recursive: true });
      cpSync(file, target);
    }
  }
}

/** Flags for one target, for gcc's @file: one argument a line. `root` is where the tree will be. */
function compilerFlags(root, target, { parts, flags, environment }) {
  const cpu = TARGETS[target];
  const quoted = [
    'build',
    'src',
    'src/include',
    `src/host/include/${parts.include}`,
    'src/host/include/generic',
    `src/tcg/${parts.tcg}`,
  ];
  const searched = [
    'build',
    'build/qapi',
    'build/trace',
    'build/ui',
    'src',
    'src/include',
    `build/target/${cpu}`,
    `src/target/${cpu}`,
  ];
  const libraries = capture('pkg-config', ['--cflags', 'glib-2.0', 'pixman-1'], { env: environment })
    .trim()
    .split(/\s+/);
  return [
    ...flags,
    '-std=gnu11',
    ...['src', 'build'].map((part) => `-isystem\n${root}/${part}/linux-headers`),
    ...quoted.map((part) => `-iquote\n${root}/${part}`),
    ...searched.map((part) => `-I${root}/${part}`),
    ...libraries,
    '-pthread',
    '-D_GNU_SOURCE',
    '-D_FILE_OFFSET_BITS=64',
    '-D_LARGEFILE_SOURCE',
    '-fno-strict-aliasing',
    '-fno-common',
    '-fwrapv',
    '-DCOMPILING_PER_TARGET',
    `-DCONFIG_TARGET=\\"${target}-config-target.h\\"`,
    `-DCONFIG_DEVICES=\\"${target}-config-devices.h\\"`,
  ];
}

/** Copies what is kept out of a configured source tree. */
function keep(source, tree, root, version, host) {
  const build = join(source, 'build');
  for (const part of KEPT) {
    copyHeaders(join(source, part), join(tree, 'src', part), () => true);
  }
  for (const name of readdirSync(source).filter((entry) => entry.endsWith('.h') || entry === 'COPYING')) {
    cpSync(join(source, name), join(tree, 'src', name));
  }
  copyHeaders(
    build,
    join(tree, 'build'),
    (file) => !/\/build\/(pyvenv|subprojects|qemu-bundle|tests)\//.test(file),
  );
  mkdirSync(join(tree, 'build/linux-headers'), { recursive: true });
  symlinkSync(`../../src/linux-headers/${host.parts.asm}`, join(tree, 'build/linux-headers/asm'));
  for (const target of host.targets) {
    writeFileSync(join(tree, `cflags-${target}`), `${compilerFlags(root, target, host).join('\n')}\n`);
  }
  writeFileSync(
    join(tree, 'config.json'),
    `${JSON.stringify({ version, layout: LAYOUT, configure: configureOptions(host) }, null, 2)}\n`,
  );
}

/** For each target a header that its bridge needs, and a type of it. */
const PROBES = {
  'x86_64-softmmu': ['hw/i386/intel_iommu.h', 'IntelIOMMUState'],
  'aarch64-softmmu': ['hw/arm/virt.h', 'VirtMachineState'],
};

/** One compilation for each target, so that a tree that can't be used is not kept. */
async function proveUsable(cache, tree, root, host) {
  const [compiler, ...options] = host.compiler;
  for (const target of host.targets) {
    const [header, type] = PROBES[target];
    const program = ['qemu/osdep.h', 'hw/pci/pci.h', header, 'cpu.h'].map((name) => `#include "${name}"`);
    const probe = join(tree, 'probe.c');
    writeFileSync(probe, `${program.join('\n')}\n#include CONFIG_DEVICES\nint probe = sizeof(${type});\n`);
    const flags = readFileSync(join(tree, `cflags-${target}`), 'utf8').replaceAll(root, tree);
    writeFileSync(join(tree, 'probe.flags'), flags);
    const what = `trying the headers for ${target.replace('-softmmu', '')}`;
    const args = [...options, `@${tree}/probe.flags`, '-fsyntax-only', probe];
    await runLogged(what, cache.log('qemu-headers'), compiler, args);
    rmSync(probe);
    rmSync(join(tree, 'probe.flags'));
  }
}

/**
 * Fetches, unpacks and configures the sources of a QEMU version, for headers and single objects.
 * @param {import('./qemu-sources.mjs').QemuSources} sources
 * @param {string} log file for the output of the steps
 * @param {(source: string) => void} [change] what to do to the sources before they are configured
 * @param {import('./hosts.mjs').Host} [host] the machine that they are configured for
 * @returns {Promise<string>} the source directory, a scratch one, with everything that was
 *   configured in build/
 */
export async function configuredSource(
  cache,
  sources,
  version,
  log,
  change = () => {},
  host = thisMachine(),
) {
  const source = cache.scratch('qemu-source');
  const download = cache.scratch('qemu-tarball');
  const tarball = await sources.tarball(version, download);
  const skipped = ['--exclude=*/roms', '--exclude=*/tests/data'];
  const unpack = ['-xf', tarball, '-C', source, '--strip-components=1', ...skipped];
  await runLogged('unpacking them', log, 'tar', unpack);
  rmSync(download, { recursive: true });
  standInForStrippedFiles(source);
  change(source);
  const build = join(source, 'build');
  mkdirSync(build);
  const inBuild = { cwd: build, env: host.environment };
  await runLogged('configuring them', log, '../configure', configureOptions(host), inBuild);
  return source;
}

/** Everything that ninja can make in a build directory, by name. */
export function buildTargets(build) {
  const all = capture('ninja', ['-t', 'targets', 'all'], { cwd: build, env: SYSTEM_ENVIRONMENT });
  return all
    .split('\n')
    .filter((line) => line !== '' && !line.endsWith(': phony'))
    .map((line) => line.split(': ')[0]);
}

/** Makes some targets in a build directory. */
export async function makeTargets(what, log, build, targets) {
  await runLogged(what, log, 'ninja', targets, { cwd: build, env: SYSTEM_ENVIRONMENT });
}

/**
 * Makes the header tree of a QEMU version unless it is there.
 * @param {import('./qemu-sources.mjs').QemuSources} sources
 * @param {string} version upstream version, as in "10.0.2"
 * @param {import('./hosts.mjs').Host} [host] the machine that QEMU runs on
 * @returns {Promise<string>} directory with src/, build/, cflags-<target> and config.json
 */
export async function ensureHeaders(cache, sources, version, host = thisMachine()) {
  const name = `qemu-headers-${version}${host.suffix}`;
  if (cache.readJson(`${name}/config.json`)?.layout !== LAYOUT) {
    rmSync(cache.path(name), { recursive: true, force: true });
  }
  return cache.directory(name, async (tree, root) => {
    const log = cache.log('qemu-headers');
    const source = await configuredSource(cache, sources, version, log, undefined, host);
    const build = join(source, 'build');
    // Those of QEMU's own tests are of no use.
    const headers = buildTargets(build).filter(
      (name) => name.endsWith('.h') && !/^(tests|ui\/shader)\//.test(name),
    );
    await makeTargets('generating their headers', log, build, headers);
    keep(source, tree, root, version, host);
    await proveUsable(cache, tree, root, host);
    rmSync(source, { recursive: true, force: true });
  });
}
