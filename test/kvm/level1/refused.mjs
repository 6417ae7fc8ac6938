/** Scenario refused: devices that would have to be told of new mappings, and are not. */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { Level2 } from './guest.mjs';

const SCRIPT = `
say() { echo "VIOMMU-L1: $*"; }
up() { cut -d ' ' -f 1 /proc/uptime; }
. "$1"
echo "attach=$attach"
`;

/** QEMU's arguments for a virtual function that vfio-pci has. */
function virtualFunction({ project }) {
  const script = join(project, 'test/vfio/level1/function.sh');
  const { stdout } = spawnSync('/bin/sh', ['-c', SCRIPT, 'sh', script], { encoding: 'utf8' });
  process.stdout.write(stdout);
  const attach = /^attach=(.*)$/m.exec(stdout)?.[1];
  if (attach === undefined) throw new Error('level 1 has no virtual function for vfio-pci');
  return attach.split(' ');
}

/** Expects that QEMU does not start with a device, and says why. */
async function refuses(settings, what, devices, reason, check) {
  const guest = Level2.start(settings, { cpus: 1, devices, jobs: ['none'] });
  const { exitCode, stderr } = await guest.end();
  const said = stderr.split('\n').find((line) => reason.test(line)) ?? stderr.trim().split('\n').at(-1);
  check(exitCode === 1 && reason.test(stderr), `${what}: ${said}`);
}

const REASON = /must be told of new mappings, which takes caching-mode=on/;

export async function refused(settings, check) {
  await refuses(settings, 'a virtual function', virtualFunction(settings), REASON, check);
  const ours = ['-device', 'viommu-testdev,assigned=on'];
  await refuses(settings, 'viommu-testdev,assigned=on', ours, REASON, check);
}
