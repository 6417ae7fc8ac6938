/**
 * Writes an initramfs: a cpio archive in the "newc" format (Linux,
 * Documentation/driver-api/early-userspace/buffer-format.rst). Written here rather than by cpio(1)
 * because device nodes then need no root.
 */

const S_IFDIR = 0o040000;
const S_IFREG = 0o100000;
const S_IFLNK = 0o120000;
const S_IFCHR = 0o020000;

const padded = (length) => (length + 3) & ~3;

export class CpioWriter {
  constructor() {
    this.parts = [];
    this.inode = 1;
    this.directories = new Set();
  }

  /** One header and its body. Numbers are eight hexadecimal digits each. */
  entry(name, mode, body, major = 0, minor = 0) {
    const fields = [this.inode++, mode, 0, 0, 1, 0, body.length, 0, 0, major, minor, name.length + 1, 0];
    const header = `070701${fields.map((n) => n.toString(16).padStart(8, '0')).join('')}${name}\0`;
    const buffer = Buffer.alloc(padded(header.length) + padded(body.length));
    buffer.write(header, 'latin1');
    body.copy(buffer, padded(header.length));
    this.parts.push(buffer);
  }

  directory(path) {
    const parts = path.split('/').filter(Boolean);
    for (let i = 1; i <= parts.length; i++) {
      const name = parts.slice(0, i).join('/');
      if (!this.directories.has(name)) {
        this.directories.add(name);
        this.entry(name, S_IFDIR | 0o755, Buffer.alloc(0));
      }
    }
  }

  file(path, body, mode = 0o644) {
    this.directory(path.split('/').slice(0, -1).join('/'));
    this.entry(path, S_IFREG | mode, Buffer.from(body));
  }

  link(path, target) {
    this.directory(path.split('/').slice(0, -1).join('/'));
    this.entry(path, S_IFLNK | 0o777, Buffer.from(target));
  }

  character(path, major, minor) {
    this.directory(path.split('/').slice(0, -1).join('/'));
    this.entry(path, S_IFCHR | 0o600, Buffer.alloc(0), major, minor);
  }

  /** The whole archive. */
  end() {
    this.entry('TRAILER!!!', 0, Buffer.alloc(0));
    return Buffer.concat(this.parts);
  }
}
