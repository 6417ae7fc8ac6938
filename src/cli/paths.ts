import { createHash } from 'node:crypto';
import { accessSync, constants, readFileSync, realpathSync } from 'node:fs';
import { basename, delimiter, join, resolve } from 'node:path';
import { ARCH, type Arch } from './arch.js';
import { type CliContext, CliError, EXIT } from './context.js';

/** One guest kernel that the set-up prepared. */
export interface KernelPaths {
  readonly release: string;
  readonly image: string;
  readonly initramfs: string;
  /**
   * An archive behind the initramfs, with the kernel module of test/guests/module and its programs.
   */
  readonly module?: string;
}

/** What `npm run setup` has put into its cache for one architecture; every part may be missing. */
interface PreparedPaths {
  readonly qemu?: string;
  readonly bridge?: string;
  /** UEFI, for arm64. */
  readonly firmware?: string;
  readonly kernels?: Readonly<Record<string, KernelPaths>>;
}

/**
 * Reads the setup's `paths.json`: the file that `VIOMMU_PATHS` names, or the one that the cache
 * has for this package. Entries of amd64 are at its top, those of other architectures under their
 * names. Without the file the answer is empty, because options may name everything.
 * @throws {CliError} when `VIOMMU_PATHS` names a file that cannot be read.
 */
function preparedPaths(context: CliContext, arch: Arch): PreparedPaths {
  const named = context.env['VIOMMU_PATHS'];
  const path = named ?? preparedFile(context.env, context.root);
  try {
    const all = JSON.parse(readFileSync(path, 'utf8')) as PreparedPaths & { readonly arm64?: PreparedPaths };
    return arch === 'amd64' ? all : (all[arch] ?? {});
  } catch (error) {
    if (named === undefined) return {};
    throw new CliError(`VIOMMU_PATHS names ${named}, which cannot be used: ${String(error)}`);
  }
}

/** Where the set-up notes what it prepared for the package in `root` (setup/checkout.mjs). */
export function preparedFile(env: CliContext['env'], root: string): string {
  const { VIOMMU_CACHE: own, XDG_CACHE_HOME: xdg, HOME: home = '/' } = env;
  const cache = resolve(own || join(xdg || join(home, '.cache'), 'viommu'));
  const path = realpathSync(root);
  const name = `${basename(path)}-${createHash('sha256').update(path).digest('hex').slice(0, 12)}`;
  return join(cache, 'checkouts', name, 'paths.json');
}

const HOW_TO_GET = 'run "npm run setup" in the viommu checkout, or name one with';

/**
 * The bridge to load into QEMU.
 * @throws {CliError} when there is none.
 */
export function bridgePath(context: CliContext, arch: Arch, given: string | undefined): string {
  const path = given === undefined ? preparedPaths(context, arch).bridge : resolve(given);
  if (path === undefined) {
    throw new CliError(`no bridge is built for ${arch}: ${HOW_TO_GET} --bridge`, EXIT.LAUNCH_FAILED);
  }
  if (!readable(path)) throw new CliError(`the bridge ${path} cannot be read`, EXIT.LAUNCH_FAILED);
  return path;
}

/**
 * The QEMU program: as given, else the prepared one, else from PATH.
 * @throws {CliError} with env(1)'s exit codes when there is none or it is not a program.
 */
export function qemuPath(context: CliContext, arch: Arch, given: string | undefined): string {
  const wanted = given ?? preparedPaths(context, arch).qemu ?? ARCH[arch].qemu;
  const candidates = wanted.includes('/')
    ? [resolve(wanted)]
    : (context.env['PATH'] ?? '').split(delimiter).map((dir) => join(dir, wanted));
  const executable = candidates.find((path) => allowed(path, constants.X_OK));
  if (executable !== undefined) return executable;
  const present = candidates.find(readable);
  if (present !== undefined) throw new CliError(`${present} is not a program`, EXIT.NOT_EXECUTABLE);
  throw new CliError(`no ${wanted}: ${HOW_TO_GET} --qemu`, EXIT.NO_SUCH_PROGRAM);
}

/** @throws {CliError} when that kernel was not prepared. */
export function kernelPaths(context: CliContext, arch: Arch, series: string): KernelPaths {
  const kernels = preparedPaths(context, arch).kernels ?? {};
  const found = kernels[series];
  if (found !== undefined) return found;
  const known = Object.keys(kernels).join(', ');
  throw new CliError(
    `no ${arch} guest kernel ${series} is prepared${known === '' ? '' : ` (there is ${known})`}: ${HOW_TO_GET} --kernel and --initramfs`,
  );
}

/**
 * UEFI firmware for arm64 guests.
 * @throws {CliError} when there is none.
 */
export function firmwarePath(context: CliContext, given: string | undefined): string {
  const path = given === undefined ? preparedPaths(context, 'arm64').firmware : resolve(given);
  if (path === undefined) throw new CliError(`no UEFI firmware is prepared: ${HOW_TO_GET} --firmware`);
  if (!readable(path)) throw new CliError(`the firmware ${path} cannot be read`);
  return path;
}

function readable(path: string): boolean {
  return allowed(path, constants.R_OK);
}

function allowed(path: string, mode: number): boolean {
  try {
    accessSync(path, mode);
    return true;
  } catch {
    return false;
  }
}
