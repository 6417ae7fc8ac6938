/** The command line of setup/run.mjs. */
import { resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { SetupError } from './exec.mjs';

export const HELP = `Usage: npm run demo|setup|bench|fuzz|oracle|tree [-- options], npm test [-- options]

  demo    boots a Debian guest on the external IOMMU and reports what went through it
  test    lint, type check, and all tests, with guests
  setup   only prepares what the others need, and prints where it is
  build   only npm's packages and the compiled daemon
  bench   measures beside stock QEMU
  fuzz    runs the fuzzers
  table   runs every cell of the assignment table on simulated hosts: npm run test:table
  oracle  compares the models with stock QEMU's own
  shadow  maps and unmaps through VFIO in a guest: npm run test:shadow -- --minutes 10
  vfio    assigns a real device to a guest, in a virtual machine that has one: npm run test:vfio
  kvm     guests under a real KVM, in a virtual machine that has one: npm run test:kvm
  tree    compiles the bridge inside the source tree of another QEMU: npm run tree -- 10.2.2

Options here; all others go on to the command:
  --sim               demo: a simulated machine; needs no QEMU and no set-up but npm's
  --without-guests    test: leave out the tests that need QEMU, and say so
  --arch amd64|arm64  demo, vfio, kvm: the guest's architecture (amd64); setup: the only one to prepare (both)
  --level1 amd64      vfio: the machine around an arm64 guest is of this kind, which takes no arm64 programs (arm64)
  --iommufd           vfio: through iommufd; compiles a kernel that has it, once
  --mdev              vfio: a mediated device, through iommufd
  --nest              vfio: guest tables on a host that is our own VT-d
  --series 6.12,6.1   setup: the guest kernels to prepare (both)
  --qemu FILE         your own QEMU (10.0 or newer) for that architecture instead of Debian's
  --sources FILE      setup, tree: tarball of QEMU's sources, where Debian's mirror has none of that version
  --bridge FILE       a bridge that you built for it
  --kernel FILE       your own guest kernel, with --initramfs
  --initramfs FILE    and its initramfs
  --help

Needs Debian 12 or 13 on amd64, as root or with sudo. Everything made is kept in
\${VIOMMU_CACHE:-\${XDG_CACHE_HOME:-~/.cache}/viommu}; deleting it is always safe.
`;

const OWN = ['qemu', 'bridge', 'kernel', 'initramfs'];
const FILES = [...OWN, 'sources'];

const OPTIONS = {
  help: { type: 'boolean', short: 'h' },
  sim: { type: 'boolean' },
  'without-guests': { type: 'boolean' },
  arch: { type: 'string' },
  level1: { type: 'string' },
  series: { type: 'string' },
  iommufd: { type: 'boolean' },
  mdev: { type: 'boolean' },
  nest: { type: 'boolean' },
  ...Object.fromEntries(FILES.map((name) => [name, { type: 'string' }])),
};

/**
 * Splits the arguments into ours and those of the command, which keep their order.
 * @param {string[]} argv
 * @returns {{values: Record<string, string | boolean>, rest: string[]}}
 * @throws {SetupError} when one of ours lacks its value
 */
export function parse(argv) {
  const { tokens } = parseArgs({
    args: argv,
    options: OPTIONS,
    strict: false,
    allowPositionals: true,
    tokens: true,
  });
  const values = {};
  const taken = new Set();
  for (const token of tokens) {
    if (token.kind === 'option' && Object.hasOwn(OPTIONS, token.name)) {
      if (OPTIONS[token.name].type === 'string' && (!token.value || token.value.startsWith('-'))) {
        throw new SetupError(`--${token.name} needs a value.`, 2);
      }
      values[token.name] = token.value ?? true;
      taken.add(token.index);
      if (OPTIONS[token.name].type === 'string' && !token.inlineValue) {
        taken.add(token.index + 1);
      }
    }
    if (token.kind === 'option-terminator') {
      break;
    }
  }
  return { values, rest: argv.filter((_, index) => !taken.has(index)) };
}

/** The tarball of QEMU's sources that the user named, absolute, or undefined. */
export const sourcesFile = ({ sources }) => sources && resolve(sources);

/** The files that the user named, absolute; undefined where none was. */
export function ownFiles(values) {
  return Object.fromEntries(OWN.map((name) => [name, values[name] && resolve(values[name])]));
}
