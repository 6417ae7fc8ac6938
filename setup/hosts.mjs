/**
 * The machines that the bridge runs on: this one, and arm64 ones, for which a cross compiler builds
 * it. What differs between them in QEMU's headers and in compiling.
 */
import { basename, join } from 'node:path';
import { SYSTEM_ENVIRONMENT } from './exec.mjs';

/** @typedef {ReturnType<typeof thisMachine>} Host */

/** This machine, with the compiler that is installed. */
export const thisMachine = () => ({
  /** Ends the names of what is made for it. */
  suffix: '',
  /** Guests that its QEMU runs, by QEMU's name of the target. */
  targets: ['x86_64-softmmu', 'aarch64-softmmu'],
  /** Names in QEMU's sources: of host/include's directory, tcg's and the one of Linux's headers. */
  parts: { include: 'x86_64', tcg: 'i386', asm: 'asm-x86' },
  compiler: ['gcc'],
  objcopy: 'objcopy',
  /** Options for QEMU's configure, and for its headers. */
  configure: [],
  flags: ['-m64', '-mcx16', '-msse2'],
  /** With pkg-config telling of its libraries. */
  environment: SYSTEM_ENVIRONMENT,
  /** Where Debian 13 has nanopb's headers; Debian 12 has them in /usr/include itself. */
  nanopb: '/usr/include/nanopb',
});

/**
 * An arm64 machine.
 * @param {string} root its root file system, with the libraries' development packages (tree.mjs)
 * @returns {Host}
 */
export function arm64Machine(root) {
  const prefix = 'aarch64-linux-gnu-';
  const sysroot = `--sysroot=${root}`;
  return {
    suffix: `-${basename(root).replace('tree-', '')}`,
    targets: ['aarch64-softmmu'],
    parts: { include: 'aarch64', tcg: 'aarch64', asm: 'asm-arm64' },
    compiler: [`${prefix}gcc`, sysroot],
    objcopy: `${prefix}objcopy`,
    configure: [`--cross-prefix=${prefix}`, `--cc=${prefix}gcc ${sysroot}`, '--host-cc=gcc', '--cpu=aarch64'],
    flags: [],
    environment: {
      ...SYSTEM_ENVIRONMENT,
      // Otherwise QEMU's configure looks for one with the prefix.
      PKG_CONFIG: '/usr/bin/pkg-config',
      PKG_CONFIG_LIBDIR: ['usr/lib/aarch64-linux-gnu/pkgconfig', 'usr/share/pkgconfig']
        .map((part) => join(root, part))
        .join(':'),
      PKG_CONFIG_SYSROOT_DIR: root,
    },
    nanopb: '=/usr/include/nanopb',
  };
}
