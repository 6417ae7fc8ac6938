/**
 * The kernel proper out of Debian's vmlinuz. A guest under emulation spends two seconds in the
 * kernel's own decompressor; QEMU starts the same bytes as they come out of it (an ELF file with a
 * PVH entry) directly. Nothing in the kernel is changed.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';

/** Linux, Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header": byte offsets. */
const SETUP_SECTS = 0x1f1;
const PAYLOAD_OFFSET = 0x248;
const PAYLOAD_LENGTH = 0x24c;
const SECTOR = 512;

const DECOMPRESSORS = [
  { magic: Buffer.from([0x28, 0xb5, 0x2f, 0xfd]), command: ['zstd', '-dcq'] },
  { magic: Buffer.from([0xfd, 0x37, 0x7a, 0x58, 0x5a]), command: ['xz', '-dc'] },
];

/**
 * The compressed kernel inside a bzImage, and the size it must have when decompressed, which the
 * last four bytes of the payload state.
 */
export function payloadOf(image) {
  const start = ((image[SETUP_SECTS] || 4) + 1) * SECTOR + image.readUInt32LE(PAYLOAD_OFFSET);
  const end = start + image.readUInt32LE(PAYLOAD_LENGTH);
  return { data: image.subarray(start, end - 4), size: image.readUInt32LE(end - 4) };
}

/**
 * Writes the decompressed kernel beside its vmlinuz.
 * @returns {string} path of what to boot: `vmlinux`, or `vmlinuz` when its format is not known here
 */
export function ensureVmlinux(vmlinuz, vmlinux) {
  if (existsSync(vmlinux)) {
    return vmlinux;
  }
  const { data, size } = payloadOf(readFileSync(vmlinuz));
  const format = DECOMPRESSORS.find(({ magic }) => data.subarray(0, magic.length).equals(magic));
  if (!format) {
    return vmlinuz;
  }
  const [command, ...args] = format.command;
  const { stdout, status } = spawnSync(command, args, { input: data, maxBuffer: 1 << 30 });
  if (status !== 0 || stdout.length !== size) {
    return vmlinuz;
  }
  writeFileSync(`${vmlinux}.${process.pid}`, stdout);
  renameSync(`${vmlinux}.${process.pid}`, vmlinux);
  return vmlinux;
}
