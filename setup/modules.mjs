/**
 * Kernel modules: what a .ko says of itself, and the order in which a set of them must be loaded.
 */

/** Name of a module from its file: path/virtio-pci.ko.xz → virtio_pci. The kernel takes - for _. */
export function moduleName(path) {
  return path
    .replace(/^.*\//, '')
    .replace(/\.ko(\.(xz|zst|gz))?$/, '')
    .replaceAll('-', '_');
}

/**
 * Modules that a module depends on, from the "depends=" string of its .modinfo section (which
 * stands between NUL bytes). A hard dependency is needed for its symbols; soft ones are not
 * followed.
 * @param {Buffer} object the uncompressed .ko
 * @returns {string[]} normalized names
 */
export function moduleDepends(object) {
  const key = Buffer.from('\0depends=');
  const at = object.indexOf(key);
  if (at < 0) {
    return [];
  }
  const end = object.indexOf(0, at + key.length);
  const list = object.toString('latin1', at + key.length, end);
  return list.split(',').filter(Boolean).map(moduleName);
}

/**
 * Names in the order in which to load them: dependencies first, each once.
 * @param {string[]} wanted names
 * @param {(name: string) => string[] | undefined} dependsOf undefined: built in, or not there
 * @throws {Error} on a cycle, which no kernel has
 */
export function loadOrder(wanted, dependsOf) {
  const order = [];
  const state = new Map();
  const visit = (name) => {
    if (state.get(name) === 'done') {
      return;
    }
    if (state.get(name) === 'open') {
      throw new Error(`module ${name} depends on itself`);
    }
    state.set(name, 'open');
    const depends = dependsOf(name);
    if (depends) {
      depends.forEach(visit);
      order.push(name);
    }
    state.set(name, 'done');
  };
  wanted.map(moduleName).forEach(visit);
  return order;
}
