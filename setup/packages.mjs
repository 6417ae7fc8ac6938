/** Debian packages: what is needed, what is missing, and installing exactly that. */
import { capture, INTERRUPTED, runForeground, runLogged, SetupError, say, tryCapture } from './exec.mjs';
import { asRoot } from './platform.mjs';

/**
 * Packages and why. `backports`: taken from there on releases whose own version is too old. The
 * order has no meaning. `minimum`: lowest upstream version that will do. `arch`: needed for guests
 * of that architecture only. `modules`: needed to build our kernel module only.
 */
const PACKAGES = [
  // the virtual machine
  { name: 'qemu-system-x86', backports: true, minimum: '1:10.0', arch: 'amd64' },
  { name: 'qemu-system-arm', backports: true, minimum: '1:10.0', arch: 'arm64' },
  { name: 'qemu-system-common', backports: true, minimum: '1:10.0' },
  { name: 'qemu-system-data', backports: true, minimum: '1:10.0' },
  { name: 'seabios', backports: true, minimum: '1.16.3', arch: 'amd64' },
  // the bridge: a shared object in C, with nanopb for the messages
  { name: 'gcc' },
  { name: 'libc6-dev' },
  { name: 'make' },
  { name: 'pkgconf' },
  { name: 'libglib2.0-dev' },
  { name: 'libpixman-1-dev' },
  { name: 'libfdt-dev' },
  { name: 'nanopb' },
  { name: 'libnanopb-dev' },
  // configuring QEMU's sources, for their generated headers
  { name: 'flex' },
  { name: 'bison' },
  { name: 'bzip2' },
  { name: 'ninja-build' },
  { name: 'python3-venv' },
  { name: 'meson', backports: true, minimum: '1.5' },
  { name: 'python3-pycotap', backports: true },
  // unpacking sources, kernels and modules
  { name: 'xz-utils' },
  { name: 'zstd' },
  // our kernel module and the programs that use it, kernels of our own; libelf for the tools that
  // come with kernels
  { name: 'libelf-dev', modules: true },
  { name: 'bc', modules: true },
  { name: 'gcc-aarch64-linux-gnu', arch: 'arm64', modules: true },
  { name: 'libc6-dev-arm64-cross', arch: 'arm64', modules: true },
];

/** Installed versions by name, from dpkg's database; half-installed packages count as missing. */
function installedVersions(names) {
  const fields = ['binary:Package', 'db:Status-Abbrev', 'Version'].map((name) => `\${${name}}`);
  const format = `${fields.join('\\t')}\\n`;
  // dpkg-query fails when a name is unknown to it, and still prints the others.
  const out =
    tryCapture('sh', ['-c', 'dpkg-query -W -f "$0" "$@" 2>/dev/null || true', format, ...names]) ?? '';
  const versions = new Map();
  for (const line of out.split('\n')) {
    const [name, status, version] = line.split('\t');
    if (status?.startsWith('ii')) {
      versions.set(name.replace(/:.*/, ''), version);
    }
  }
  return versions;
}

const isAtLeast = (version, minimum) =>
  tryCapture('dpkg', ['--compare-versions', version, 'ge', minimum]) !== undefined;

/**
 * Packages that are absent or too old, for guests of these architectures, with our kernel module or
 * without.
 */
function missingPackages(arches, withModules = false) {
  const needed = PACKAGES.filter(
    ({ arch, modules }) => (arch === undefined || arches.includes(arch)) && (withModules || !modules),
  );
  const installed = installedVersions(needed.map((wanted) => wanted.name));
  return needed.filter(({ name, minimum }) => {
    const version = installed.get(name);
    return version === undefined || (minimum !== undefined && !isAtLeast(version, minimum));
  });
}

/** Installed version of one package, or undefined. */
export function installedVersion(name) {
  return installedVersions([name]).get(name);
}

/** Installs packages. Ctrl-C doesn't reach it, so that no package is left half configured. */
async function install(apt, cache, what, args) {
  const command = [
    ...asRoot(),
    'env',
    'DEBIAN_FRONTEND=noninteractive',
    'apt-get',
    ...apt.options(),
    '-y',
    '--no-install-recommends',
    'install',
    ...args,
  ];
  const trap = ['-c', 'trap "" INT; exec "$@"', 'sh', ...command];
  await runLogged(what, cache.log('apt-install'), 'sh', trap, { patient: true });
}

/** Asks for sudo's password while the terminal is free, and ends what was interrupted before. */
async function readyForRoot(cache) {
  const root = asRoot();
  if (root.length > 0) {
    await runForeground('sudo', ['-v']);
  }
  if (capture('dpkg', ['--audit']).trim() !== '') {
    const [command, ...args] = [...root, 'dpkg', '--configure', '-a'];
    const what = 'finishing an interrupted installation';
    await runLogged(what, cache.log('dpkg'), command, args, { patient: true });
  }
}

/** Installs what is missing, from the machine's own mirror. */
export async function ensurePackages(hostApt, cache, platform, arches, modules = false) {
  const missing = missingPackages(arches, modules);
  if (missing.length === 0) {
    return;
  }
  const names = missing.map((wanted) => wanted.name);
  say(`Debian packages to install: ${names.join(' ')}`);
  await readyForRoot(cache);
  const apt = hostApt();
  await apt.update();
  const suite = `${platform.codename}-backports`;
  const exact = missing.map(({ name, backports }) =>
    backports && platform.backports ? `${name}/${suite}` : name,
  );
  const what = `installing ${names.length} Debian packages`;
  try {
    await apt.withFreshLists(() => install(apt, cache, what, exact));
  } catch (error) {
    if (!platform.backports || error.exitCode === INTERRUPTED) {
      throw error;
    }
    // Their dependencies may be in backports only.
    await install(apt, cache, `${what}, with dependencies from backports`, ['-t', suite, ...names]);
  }
  const still = missingPackages(arches, modules);
  if (still.length > 0) {
    const list = still.map(({ name, minimum }) => (minimum ? `${name} ≥ ${minimum}` : name)).join(', ');
    throw new SetupError(
      `apt did not install ${list}: look at ${cache.log('apt-install')}, install them by hand and run the command again.`,
    );
  }
}
