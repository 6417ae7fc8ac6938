/** Texts of `viommu --help`. */

export const DESCRIPTION = `An IOMMU outside the virtual machine monitor: Intel VT-d for an unmodified QEMU.`;

export const EXAMPLES = `
Examples:
  viommu demo                            boot a Debian guest on the external VT-d, with disk and network DMA
  viommu demo --sim                      the same protocol with a simulated machine; needs no QEMU
  viommu qemu --memory 2G -- -machine q35 -accel kvm -drive file=disk.qcow2,if=virtio
  viommu serve --socket /run/viommu.sock    a daemon for several machines
  viommu dump                            registers and tables of the machine that runs
  viommu dump --rid 00:03.0 --tables     what one device can reach

Exit codes: 0 done, 1 failed, 2 wrong command line, 3 no such daemon or machine. "viommu qemu" passes QEMU's on.`;

export const CACHE_POLICY =
  'how caches behave: faithful = entries stay until the guest invalidates them, none = every access walks, hostile = as the architecture allows at worst';

export const DEMO = `Boots a Debian guest on the external VT-d, moves checked bytes through it, and reports.`;

export const DEMO_EXAMPLES = `
"npm run demo" in the checkout installs and builds what this needs, then runs it.

Exit code: 0 when every checksum agrees and nothing faulted, otherwise 1 with the reasons.

Examples:
  viommu demo
  viommu demo --mode scalable --strict --kernel-version 6.1
  viommu demo --sim
  viommu demo --qemu ./qemu-system-x86_64 --bridge ./bridge.so --verbose`;

export const SERVE = `Runs the daemon alone, for any number of machines, until SIGTERM.`;

export const SERVE_EXAMPLES = `
Only this user can connect (socket mode 0600). Several machines may connect at once; each has its own thread.

Examples:
  viommu serve --socket /run/viommu.sock
  viommu serve --socket /tmp/v.sock --log-level debug --cache-policy none`;

export const QEMU = `Runs QEMU with the bridge loaded and a daemon for it, and leaves nothing behind.`;

export const QEMU_EXAMPLES = `
"-device viommu-vtd,socket=…" is added in front of the QEMU arguments unless they have one. The machine has to be
q35. Guest RAM should be a shared memory backend, which the daemon maps; --memory adds one:
  -object memory-backend-memfd,id=ram0,size=2G,share=on -machine q35,memory-backend=ram0 -m 2G
Without it everything works, but each table entry is fetched by a message.

Virtio devices use the IOMMU with iommu_platform=on,disable-legacy=on. In the guest: intel_iommu=on.

Exit code: QEMU's; 128 + n when signal n ended it; 125 when the daemon failed, 126 when QEMU cannot be executed,
127 when there is none.

Examples:
  viommu qemu --memory 1G -- -machine q35 -nographic -kernel vmlinuz -append 'console=ttyS0 intel_iommu=on'
  viommu qemu --scalable-mode --caching-mode --report run.json -- -machine q35 …
  viommu qemu --attach /run/viommu.sock --name web1 -- -machine q35 …
  viommu qemu --print --attach /run/viommu.sock -- -machine q35      the line for your own scripts`;

export const DUMP = `Prints registers with named bits, and root → context → PASID → page tables as a tree.`;

export const DUMP_EXAMPLES = `
Reads guest memory as it is at this moment; changes nothing.

Examples:
  viommu dump
  viommu dump --vm web1 --registers --zeros
  viommu dump --rid 00:03.0 --tables --max-leaves 1000
  viommu dump --json | jq '.nodes[0].label'`;

export const LIST = `Lists your running daemons and the machines connected to them.`;

export const DIFF = `Compares the guest's tables with the host mappings of assigned devices that are in force; fails when they differ.`;

export const DIFF_EXAMPLES = `
With --watch the daemon compares before every completion that the guest gets to see, and reads the guest's own
commands to tell a mapping that the host refused, tables that the guest has changed and not invalidated (a mistake
of its driver, or a flush that it puts off), and an invalidation that the host does not follow (a defect of viommu).
Each difference is printed once, and how many completions were checked at the end.

Examples:
  viommu diff
  viommu diff --vm web1 --watch`;

export const REPORT = `Prints the counters of one machine as JSON.`;

export const WATCH = `Prints what happens in connected machines as it happens.`;

export const PLAN = `Prints what can be assigned to a guest on a host: bypass, shadow or nest, with the reason.`;

export const PLAN_EXAMPLES = `
Rows: a VF (a whole PCI function) and an mdev (a PASID of one). Columns: how the guest uses a vIOMMU. A host can do
all that its kind ever does, unless --without says otherwise.

Exit code: 1 when --mode forces what a cell can't do; stderr says which rule forbids it and what would work.

Examples:
  viommu plan                                   each kind of host
  viommu plan --host smmuv3 --device mdev
  viommu plan --host vtd3 --mode nest --guest vtd-legacy
  viommu plan --host vtd3 --container type1 --json`;
