/**
 * npm run test:vfio: real VFIO without hardware for it. Level 1 is a virtual machine with an
 * emulated IOMMU and an SR-IOV network card; its programs are this machine's, mounted read-only, or
 * such of its own architecture. In it a virtual function is bound to vfio-pci and given to a stock
 * QEMU whose guest, level 2, is behind our IOMMU. Frames must pass, and level 1's own IOMMU must
 * have been told what our daemon asked for, no more and no less. docs/testing.md says more.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { runLevel1 } from './level1.mjs';
import { level1Command, quote, settings } from './machines.mjs';
import { buildProgram, nestCommand, nestVerdicts } from './nest.mjs';

const ROOT = resolve(import.meta.dirname, '../..');

const HELP = `Usage: npm run test:vfio [-- --arch amd64|arm64] [--iommufd] [options]

  --arch amd64|arm64  of both levels: level 2 is behind our VT-d (amd64, the default) or our SMMUv3 (arm64)
  --level1 amd64      with --arch arm64: level 1 is an amd64 machine (always so with the options below)
  --iommufd           through iommufd and VFIO's character device, with a kernel of our own in level 1
  --locked KIB        memory that QEMU may lock in level 1: too little to map all of level 2's (iommufd)
  --mdev              a mediated device instead, the kernel's sample mtty, through iommufd
  --nest              guest tables on a nest parent of level 1's kernel, whose IOMMU is our VT-d (implies --iommufd)
  --frames N          frames that have to come back (20)
  --console           also print all that level 1 and level 2 print
  --keep FILE         keep that in a file
  --help

Takes three to ten minutes: two levels of emulation. Exit status 0 when everything held.`;

/** What has to hold: [holds, sentence]. */
function verdicts({ found, lines }, { iommufd }, { frames, locked }) {
  const fields = (key) => found.get(key)?.fields ?? {};
  const seen = fields('L1 seen');
  const vf = fields('GUEST vf');
  return [
    [fields('L1 function').address !== undefined, 'a virtual function is bound to vfio-pci in level 1'],
    ...(iommufd ? [iommufdVerdict(fields('L1 held')), bridgeVerdict(lines)] : []),
    [Number(fields('L1 qemu').status) === 0, 'QEMU with our bridge ends well'],
    [Number(vf.frames) >= Number(frames), `${vf.frames ?? 0} of ${frames} frames came back through it`],
    [Number(vf.interrupts) > 0, `${vf.interrupts ?? 0} interrupts of it arrived in level 2`],
    [Number(fields('GUEST faults').count) === 0, 'level 2 logged no fault'],
    [Number(seen.mapRequests) > 0, `level 1's IOMMU saw ${seen.mapRequests ?? 0} maps`],
    [seen.lost === '0', 'no trace event was lost'],
    [seen.mappedTwice === '0', 'nothing was mapped over what was there'],
    [
      seen.left === '0' && seen.unmappedBytes === seen.mappedBytes,
      'all that was mapped was unmapped in the end',
    ],
    ...reportVerdicts(found.get('L1 report'), seen, locked),
  ];
}

/** The descriptors that QEMU held. */
function iommufdVerdict({ iommu, cdev, group }) {
  const holds = iommu === 'yes' && cdev === 'yes' && group === 'no';
  return [holds, "QEMU held /dev/iommu and the function's character device, and no group"];
}

/** What the bridge found out through the descriptors that QEMU holds. */
function bridgeVerdict(lines) {
  const said = lines.map((line) => /viommu: (\S+ by iommufd, behind .*)/.exec(line)?.[1]).find(Boolean);
  return [said !== undefined, `the bridge has them too: ${said ?? 'nothing said'}`];
}

/** What the daemon says that it asked for, beside what was seen. */
function reportVerdicts(line, seen, locked) {
  if (line === undefined) return [[false, 'the daemon wrote its report']];
  const [device] = JSON.parse(line.rest).shadow;
  if (device === undefined) return [[false, 'the daemon shadowed the device']];
  const { maps, pagesMapped, refused } = device.counters;
  const bytes = pagesMapped * 4096;
  if (locked !== undefined) {
    const heard = refused > 0 && refused === Number(seen.mapsRefused);
    return [[heard, `the daemon heard of ${refused} maps that were refused, ${seen.mapsRefused} were`]];
  }
  return [
    [refused === 0, 'nothing that the daemon asked for was refused'],
    [maps === Number(seen.mapRequests), `the daemon asked for ${maps} maps, ${seen.mapRequests} were made`],
    [bytes === Number(seen.mappedBytes), `it asked for ${bytes} bytes, ${seen.mappedBytes} were mapped`],
  ];
}

/** A virtual function given to level 2. */
async function assign(paths, levels, file, values) {
  writeFileSync(file, settings(paths, levels, values));
  console.log(
    `Level 1: ${levels.level1.arch}, a virtual function of an igb card by VFIO${levels.iommufd ? ' over iommufd' : ''}; level 2: ${levels.arch}, behind our IOMMU.`,
  );
  const said = await runLevel1(level1Command(paths, levels, file), values);
  return [said, verdicts(said, levels, values)];
}

/** A mediated device given to level 2. */
async function mediate(paths, levels, file, values) {
  writeFileSync(file, settings(paths, levels, values));
  console.log("Level 1: the kernel's sample mediated device over iommufd; level 2: behind our IOMMU.");
  const said = await runLevel1(level1Command(paths, levels, file), values);
  const fields = (key) => said.found.get(key)?.fields ?? {};
  const { sent, back } = fields('GUEST mdev');
  const results = [
    [fields('L1 mdev').uuid !== undefined, 'a mediated device is made in level 1'],
    [Number(fields('L1 qemu').status) === 0, 'QEMU with our bridge ends well'],
    iommufdVerdict(fields('L1 held')),
    [sent !== undefined && sent === back, 'what level 2 sends through it comes back'],
    [Number(fields('GUEST faults').count) === 0, 'level 2 logged no fault'],
  ];
  return [said, results];
}

/** Guest tables on level 1's nest parent. */
async function nest(paths, levels, file, values) {
  const program = buildProgram(paths, ROOT, dirname(file));
  writeFileSync(file, `PROGRAM=${quote(program)}\n${settings(paths, levels, values)}`);
  console.log('Level 1: a device behind our VT-d, and guest tables on a nest parent of its kernel.');
  const said = await runLevel1(nestCommand(paths, levels, ROOT, file), values);
  return [said, nestVerdicts(said, values)];
}

async function main() {
  const { values } = parseArgs({
    options: {
      arch: { type: 'string' },
      frames: { type: 'string', default: '20' },
      locked: { type: 'string' },
      console: { type: 'boolean', default: false },
      keep: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) {
    console.log(HELP);
    return 0;
  }
  const { VIOMMU_PATHS, VIOMMU_LEVELS } = process.env;
  if (!VIOMMU_PATHS || !VIOMMU_LEVELS) throw new Error('run this as `npm run test:vfio`');
  const paths = JSON.parse(readFileSync(VIOMMU_PATHS, 'utf8'));
  const levels = JSON.parse(VIOMMU_LEVELS);
  const scratch = mkdtempSync(join(tmpdir(), 'viommu-vfio-'));
  try {
    const file = join(scratch, 'settings');
    const run = levels.nest ? nest : levels.mdev ? mediate : assign;
    const [said, results] = await run(paths, levels, file, values);
    if (values.keep) writeFileSync(values.keep, `${said.lines.join('\n')}\n`);
    console.log('');
    for (const [holds, sentence] of results) console.log(`${holds ? 'ok    ' : 'FAILED'}  ${sentence}`);
    const failed = results.filter(([holds]) => !holds).length;
    if (failed > 0 && !values.console) console.log(`\n${said.lines.slice(-30).join('\n')}`);
    console.log(`\n${results.length - failed} passed, ${failed} failed`);
    return failed === 0 ? 0 : 1;
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

try {
  process.exitCode = await main();
} catch (error) {
  process.stderr.write(`test:vfio: ${error.message}\n`);
  process.exitCode = 1;
}
