/**
 * What is compiled for a guest: the kernel module of test/guests/module, for one Debian kernel with
 * that kernel's own headers, and our programs, as an archive that is appended to a guest's
 * initramfs.
 */
import { cpSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { HOST_ARCH } from './arches.mjs';
import { hashOf } from './cache.mjs';
import { CpioWriter } from './cpio.mjs';
import { capture, INTERRUPTED, runLogged, SetupError, SYSTEM_ENVIRONMENT } from './exec.mjs';
import { ROOT } from './project.mjs';

const SOURCES = join(ROOT, 'test/guests/module');
const PROGRAM_SOURCES = join(ROOT, 'test/guests/programs');
/** Builds that are kept: other checkouts and other kernels use the same cache. */
const KEEP = 8;

/** Programs that use the module, and others, with the files that each is made of. */
const MODULE_PROGRAMS = {
  sva: ['sva.c', 'device.c'],
  domain: ['domain.c', 'device.c'],
  dma: ['dma.c', 'device.c'],
  substreams: ['substreams.c', 'device.c'],
};
const PROGRAMS = {
  vfio: ['vfio.c', 'container.c', 'testdev.c'],
  'vfio-bench': ['vfio-bench.c', 'container.c', 'testdev.c'],
  'vfio-tables': ['vfio-tables.c', 'container.c', 'testdev.c'],
  'read-bench': ['read-bench.c', 'container.c'],
  'net-bench': ['net-bench.c', 'container.c'],
};

/** Compilers by architecture. */
const TOOLS = {
  amd64: { compiler: 'gcc', strip: 'strip' },
  arm64: { compiler: 'aarch64-linux-gnu-gcc', strip: 'aarch64-linux-gnu-strip' },
};

/** The kernel series that the module is for: its driver interfaces change between series. */
export const MODULE_SERIES = '6.12';

/** What the module is made of, for fingerprints. */
export const moduleInputs = () => hashOf([SOURCES, PROGRAM_SOURCES]);

/**
 * Debian's headers of a kernel, unpacked and not installed. What they call /usr is where they lie,
 * and the generated tools are the host's, also for another architecture.
 */
function ensureKernelHeaders(cache, apts, arch, release) {
  const version = release.replace(/-[a-z0-9]+$/, '');
  return cache.directory(`kernel-headers/${release}`, async (directory, target) => {
    const scratch = cache.scratch('kernel-headers-deb');
    const what = `fetching the headers of Linux ${release}`;
    try {
      await apts(arch).download(
        what,
        [`linux-headers-${release}`, `linux-headers-${version}-common`],
        scratch,
      );
      await apts(HOST_ARCH).download(what, [`linux-kbuild-${version}`], scratch);
    } catch (error) {
      if (error.exitCode === INTERRUPTED) {
        throw error;
      }
      throw new SetupError(
        `Debian's mirror has no headers of Linux ${release} any more: delete ${cache.path('kernels', release)} and run the command again, which fetches the newest kernel. ${error.message}`,
      );
    }
    for (const deb of readdirSync(scratch)) {
      capture('dpkg', ['-x', join(scratch, deb), directory]);
    }
    rmSync(scratch, { recursive: true, force: true });
    const headers = join(directory, 'usr/src', `linux-headers-${release}`);
    const makefile = join(headers, 'Makefile');
    const text = readFileSync(makefile, 'utf8');
    writeFileSync(makefile, text.replaceAll('/usr/src', join(target, 'usr/src')));
    // Only there to describe types to debuggers, for which a tool would be needed.
    rmSync(join(headers, 'vmlinux'), { force: true });
  });
}

/** The module and its programs in a directory of the cache. */
function build(cache, arch, release, headers, hash) {
  const { compiler, strip } = TOOLS[arch];
  const log = cache.log('guest-module');
  const run = (what, command, args, cwd) =>
    runLogged(what, log, command, args, { cwd, env: SYSTEM_ENVIRONMENT });
  return cache.directory(`guest-module/${release}-${hash}`, async (directory) => {
    const source = join(directory, 'source');
    cpSync(SOURCES, source, { recursive: true });
    const kernel = join(headers, 'usr/src', `linux-headers-${release}`);
    const what = `building the test module for Linux ${release}`;
    await run(what, 'make', ['-C', kernel, `M=${source}`, `CC=${compiler}`, 'modules'], source);
    const module = join(source, 'viommu-testdev.ko');
    capture(strip, ['--strip-debug', module]);
    const archive = new CpioWriter();
    archive.file('lib/extra/viommu-testdev.ko', readFileSync(module));
    const programs = [
      ...Object.entries(MODULE_PROGRAMS).map(([name, files]) => [name, files, join(source, 'user')]),
      ...Object.entries(PROGRAMS).map(([name, files]) => [name, files, PROGRAM_SOURCES]),
    ];
    for (const [name, files, sources] of programs) {
      const program = join(directory, name);
      const flags = ['-static', '-O2', '-s', '-Wall', '-Wextra', '-Werror', '-o', program];
      await run(`building ${name} for ${arch}`, compiler, [...flags, ...files], sources);
      archive.file(`bin/viommu-${name}`, readFileSync(program), 0o755);
      rmSync(program);
    }
    writeFileSync(join(directory, 'module.cpio'), archive.end());
    rmSync(source, { recursive: true, force: true });
  });
}

/** All but the newest builds. */
function forgetOld(cache) {
  const made = (name) => statSync(cache.path('guest-module', name)).mtimeMs;
  const names = readdirSync(cache.path('guest-module')).sort((a, b) => made(b) - made(a));
  for (const name of names.slice(KEEP)) {
    rmSync(cache.path('guest-module', name), { recursive: true, force: true });
  }
}

/**
 * @param {(arch: string) => import('./apt.mjs').Apt} apts
 * @param {string} release as uname -r has it
 * @returns {Promise<string>} path of the archive
 */
export async function ensureGuestModule(cache, apts, arch, release) {
  const hash = hashOf([SOURCES, PROGRAM_SOURCES, import.meta.filename]);
  const headers = await ensureKernelHeaders(cache, apts, arch, release);
  const directory = await build(cache, arch, release, headers, hash);
  forgetOld(cache);
  return join(directory, 'module.cpio');
}
