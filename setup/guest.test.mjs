import { describe, expect, it } from 'vitest';
import { CpioWriter } from './cpio.mjs';
import { byNumbers } from './kernels.mjs';
import { loadOrder, moduleDepends, moduleName } from './modules.mjs';
import { payloadOf } from './vmlinux.mjs';

describe('kernel modules', () => {
  it('are named as the kernel names them', () => {
    expect(moduleName('kernel/drivers/virtio/virtio-pci.ko.xz')).toBe('virtio_pci');
    expect(moduleName('kernel/drivers/nvme/host/nvme.ko')).toBe('nvme');
  });

  it('state what they depend on between NUL bytes', () => {
    const object = Buffer.from('junk\0license=GPL\0depends=nvme-core,t10-pi\0name=nvme\0');
    expect(moduleDepends(object)).toEqual(['nvme_core', 't10_pi']);
    expect(moduleDepends(Buffer.from('x\0depends=\0name=y\0'))).toEqual([]);
    expect(moduleDepends(Buffer.from('xdepends=no\0'))).toEqual([]);
  });

  it('are loaded dependencies first, each once, and built-in ones not at all', () => {
    const depends = { a: ['b', 'c'], b: ['d'], c: ['d', 'builtin'], d: [] };
    expect(loadOrder(['a', 'c'], (name) => depends[name])).toEqual(['d', 'b', 'c', 'a']);
    expect(() => loadOrder(['x'], () => ['x'])).toThrow(/depends on itself/);
  });
});

describe('kernel releases', () => {
  it('are ordered by their numbers', () => {
    const names = [
      '6.12.95+deb12-amd64',
      '6.12.117+deb12-amd64',
      '6.12.90+deb12.1-amd64',
      '6.12.90+deb12-amd64',
    ];
    expect(names.sort(byNumbers)).toEqual([
      '6.12.90+deb12-amd64',
      '6.12.90+deb12.1-amd64',
      '6.12.95+deb12-amd64',
      '6.12.117+deb12-amd64',
    ]);
  });
});

/** Reads a newc archive back, by the format's text and not by the writer's code. */
function readArchive(buffer) {
  const entries = [];
  let at = 0;
  for (;;) {
    expect(at % 4).toBe(0);
    expect(buffer.toString('latin1', at, at + 6)).toBe('070701');
    const field = (index) =>
      Number.parseInt(buffer.toString('latin1', at + 6 + index * 8, at + 14 + index * 8), 16);
    const [mode, size, nameSize] = [field(1), field(6), field(11)];
    const name = buffer.toString('latin1', at + 110, at + 110 + nameSize - 1);
    const body = (at + 110 + nameSize + 3) & ~3;
    if (name === 'TRAILER!!!') {
      return entries;
    }
    entries.push({
      name,
      mode,
      device: [field(9), field(10)],
      body: buffer.toString('latin1', body, body + size),
    });
    at = (body + size + 3) & ~3;
  }
}

describe('the initramfs archive', () => {
  it('has each directory once before what is in it, and every kind of file', () => {
    const archive = new CpioWriter();
    archive.character('dev/console', 5, 1);
    archive.file('a/b/init', 'hello', 0o755);
    archive.link('a/sh', 'busybox');
    expect(readArchive(archive.end())).toEqual([
      { name: 'dev', mode: 0o040755, device: [0, 0], body: '' },
      { name: 'dev/console', mode: 0o020600, device: [5, 1], body: '' },
      { name: 'a', mode: 0o040755, device: [0, 0], body: '' },
      { name: 'a/b', mode: 0o040755, device: [0, 0], body: '' },
      { name: 'a/b/init', mode: 0o100755, device: [0, 0], body: 'hello' },
      { name: 'a/sh', mode: 0o120777, device: [0, 0], body: 'busybox' },
    ]);
  });
});

describe('a bzImage', () => {
  it('gives its payload without the size that ends it', () => {
    const image = Buffer.alloc(4096);
    image[0x1f1] = 1;
    image.writeUInt32LE(16, 0x248);
    image.writeUInt32LE(12, 0x24c);
    image.write('COMPRESS', 1024 + 16);
    image.writeUInt32LE(77, 1024 + 24);
    const { data, size } = payloadOf(image);
    expect(data.toString()).toBe('COMPRESS');
    expect(size).toBe(77);
  });
});
