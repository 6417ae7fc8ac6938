/**
 * The guest architectures, by Debian's name: which QEMU runs each, and where its parts are kept.
 */

export const ARCHES = {
  amd64: {
    /** QEMU's name of it. */
    target: 'x86_64',
    qemu: '/usr/bin/qemu-system-x86_64',
    package: 'qemu-system-x86',
    busybox: 'busybox',
  },
  arm64: {
    target: 'aarch64',
    qemu: '/usr/bin/qemu-system-aarch64',
    package: 'qemu-system-arm',
    busybox: 'busybox-arm64',
  },
};

export const ALL_ARCHES = Object.keys(ARCHES);

/** The architecture of the machines that this runs on: its programs can be run here. */
export const HOST_ARCH = 'amd64';
