/**
 * npm run test:vfio -- --nest: nesting on ourselves. Level 1 is a machine whose IOMMU is our VT-d,
 * in scalable mode; its kernel has iommufd, and grants guest tables on top of a nest parent of its
 * own to a program that plays the bridge and a guest (qemu-bridge/test/iommufd-nest.c), with
 * viommu-testdev as the device that is assigned; then to a daemon, for level 2: a guest behind our
 * VT-d, with a virtual function whose requests go through the guest's own tables.
 */
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';

/** What the program checks, in this order. */
const CHECKS = [
  ['device', 'the kernel makes nest parents behind our VT-d'],
  ['parent', 'the device reaches memory through the nest parent alone'],
  ['tables', 'and through guest tables on top of it'],
  ['missing', 'what they do not map is refused'],
  ['no-longer', 'and so are addresses of the level below'],
  ['cached', 'a changed entry does not count before it is invalidated'],
  ['remapped', 'an invalidation that is forwarded makes it count'],
  ['unmapped', 'and one that is gone'],
  ['bad-table', 'tables at an address that is none give no way through'],
  ['replaced', 'tables take the place of others'],
  ['pasid', 'a PASID has guest tables of its own'],
  ['beside', 'beside those of requests without'],
  ['other-pasid', 'another PASID has none'],
  ['pasid-unmapped', "a PASID's invalidations are its own"],
  ['page-request', 'a page that is missing is asked for, through the fault queue'],
  ['page-response', 'and the request goes on when it was answered'],
  ['detached', 'nothing is reached any more in the end'],
];

/** Builds the program; returns its path. */
export function buildProgram({ headers, uapi }, root, scratch) {
  const args = ['-s', '-C', join(root, 'qemu-bridge'), 'nest'];
  execFileSync('make', [...args, `QEMU_HEADERS=${headers}`, `UAPI_HEADERS=${uapi}`, `OUT=${scratch}`]);
  return join(scratch, 'x86_64/iommufd-nest');
}

/** What to run for level 1: a command and its arguments. */
export function nestCommand(paths, { level1 }, root, settings) {
  const words = [
    'console=ttyS0 quiet no_timer_check intel_iommu=on,sm_on',
    // Our VT-d does not remap interrupts, which VFIO asks for.
    'iommufd.allow_unsafe_interrupts=1 vfio_iommu_type1.allow_unsafe_interrupts=1',
    `viommu.script=${join(root, 'test/vfio/level1/nest.sh')}`,
    `viommu.settings=${settings}`,
  ];
  const unit = 'viommu-vtd,scalable-mode=on,device-iotlb=on,page-requests=on,timeout-ms=600000';
  return [
    process.execPath,
    [
      ...[
        join(root, 'dist/main.js'),
        'qemu',
        '--qemu',
        paths.qemu,
        '--bridge',
        paths.bridge,
        '--memory',
        '1G',
      ],
      ...[
        '--',
        '-device',
        unit,
        '-M',
        'q35',
        '-accel',
        'tcg,thread=multi',
        '-cpu',
        'max,la57=off',
        '-smp',
        '2',
      ],
      ...['-nodefaults', '-display', 'none', '-serial', 'stdio', '-no-reboot'],
      ...['-device', 'pcie-root-port,id=rp0,chassis=1', '-device', 'viommu-testdev,bus=rp0'],
      ...['-device', 'pcie-root-port,id=rp1,chassis=2'],
      ...['-netdev', 'user,id=net0,restrict=on', '-device', 'igb,bus=rp1,netdev=net0'],
      ...['-fsdev', 'local,id=root,path=/,security_model=none,readonly=on'],
      ...['-device', 'virtio-9p-pci,fsdev=root,mount_tag=root'],
      ...['-kernel', level1.kernel, '-initrd', level1.initramfs, '-append', words.join(' ')],
    ],
  ];
}

/** What has to hold: [holds, sentence]. */
export function nestVerdicts({ lines, found }, { frames }) {
  const said = new Map();
  for (const line of lines) {
    const match = /VIOMMU-L1: nest check=(\S+) ok=(yes|no) ?(.*)$/.exec(line);
    if (match !== null) said.set(match[1], match);
  }
  const checks = CHECKS.map(([name, sentence]) => {
    const [, , ok, more] = said.get(name) ?? [];
    return [ok === 'yes', ok === 'yes' ? sentence : `${sentence} (${more ?? 'not tried'})`];
  });
  return [...checks, ...guestVerdicts(found, frames)];
}

/** Level 2, whose own first-stage tables level 1's kernel has nested for its daemon. */
function guestVerdicts(found, frames) {
  const fields = (key) => found.get(key)?.fields ?? {};
  const vf = fields('GUEST vf');
  const report = found.get('L1 report')?.rest;
  const [{ assigned, nesting, shadow }] = report === undefined ? [{}] : Object.values(JSON.parse(report));
  const nested = assigned?.length === 1 && assigned[0].choice === 'nest' && shadow.length === 0;
  return [
    [Number(fields('L1 qemu').status) === 0, "level 2's QEMU, with our bridge, ends well"],
    [nested, 'its daemon nested the virtual function, and shadowed nothing'],
    [nesting?.operations > 0, `it asked for ${nesting?.operations ?? 0} operations on objects of the kernel`],
    [nesting?.refused === 0, 'none of which was refused'],
    [Number(vf.frames) >= Number(frames), `${vf.frames ?? 0} of ${frames} frames came back through it`],
    [Number(vf.interrupts) > 0, `${vf.interrupts ?? 0} interrupts of it arrived in level 2`],
    [Number(fields('GUEST faults').count) === 0, 'level 2 logged no fault'],
  ];
}
