/**
 * npm run test:kvm: a real KVM without hardware for it. Level 1 is a virtual machine whose
 * processor has virtualization, emulated; in it guests run under its KVM, one with QEMU's own IOMMU
 * and one behind ours in turns, on the same disks, in strict mode. Every guest must end, and see no
 * fault and no wait that its kernel complains of. docs/testing.md says more.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { runLevel1 } from '../vfio/level1.mjs';
import { level1Command, settings } from './machines.mjs';

const HELP = `Usage: npm run test:kvm [-- --arch amd64|arm64] [options]

  --arch amd64|arm64  of both levels: level 2 is behind our VT-d (amd64, the default) or our SMMUv3 (arm64)
  --runs N            guests of either side (2)
  --rounds N          rounds of reads in each guest (3)
  --cpus N            processors of level 2 (1)
  --limit S           seconds of level 1 after which a guest hangs (300)
  --console           also print all that level 1 and level 2 print
  --keep FILE         keep that in a file
  --help

Takes a minute or two for each run. Exit status 0 when everything held.`;

/** Rounds as level 2's job asks for them. */
const SHAPES = ['NVMe, depth 1', 'NVMe, depth 32', 'virtio-blk, depth 1', 'virtio-blk, depth 32'];

const median = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];

/** Collects what the guests say, by side. */
class Guests {
  #side = 'stock';
  #rounds = 0;
  /** Reads per second, by side and shape. */
  rates = { stock: SHAPES.map(() => []), ours: SHAPES.map(() => []) };
  ended = { stock: 0, ours: 0 };
  faults = { stock: 0, ours: 0 };
  stalls = { stock: 0, ours: 0 };
  hung = [];
  reports = [];

  hear({ who, what, rest, fields }) {
    const key = `${who} ${what}`;
    if (key === 'L1 begin') {
      this.#side = fields.side;
      this.#rounds = 0;
    } else if (key === 'GUEST read-bench' && fields.ns !== undefined) {
      const rate = (Number(fields.reads) * 1e9) / Number(fields.ns);
      this.rates[this.#side][this.#rounds++ % SHAPES.length].push(rate);
    } else if (key === 'GUEST DONE' && fields.status === '0') this.ended[this.#side]++;
    else if (key === 'GUEST faults' && fields.count !== undefined)
      this.faults[this.#side] += Number(fields.count);
    else if (key === 'GUEST stalls' && fields.count !== undefined)
      this.stalls[this.#side] += Number(fields.count);
    else if (key === 'L1 hung') this.hung.push(`${fields.side}, run ${fields.run}`);
    else if (key === 'L1 report') this.reports.push(JSON.parse(rest));
  }

  /** What has to hold: [holds, sentence]. */
  verdicts(runs) {
    const { ours, stock } = this.ended;
    return [
      [stock === runs, `${stock} of ${runs} guests with QEMU's own IOMMU ended well`],
      [ours === runs, `${ours} of ${runs} guests behind ours ended well`],
      [this.hung.length === 0, `none hung${this.hung.length > 0 ? `, but: ${this.hung.join('; ')}` : ''}`],
      [this.faults.ours === 0, 'level 2 logged no fault'],
      [this.stalls.ours === 0, `level 2 complained of ${this.stalls.ours} waits`],
      [this.reports.length === runs, `${this.reports.length} reports were written`],
    ];
  }

  /** Lines of text: reads per second, medians. */
  table() {
    return SHAPES.map((shape, index) => {
      const [ours, stock] = ['ours', 'stock'].map((side) => median(this.rates[side][index]) ?? Number.NaN);
      const [left, right] = [ours, stock].map((rate) => rate.toFixed(0).padStart(6));
      return `${shape.padEnd(22)} ${left} reads/s, stock ${right}: ${(ours / stock).toFixed(2)} ×`;
    });
  }
}

async function main() {
  const { values } = parseArgs({
    options: {
      runs: { type: 'string', default: '2' },
      rounds: { type: 'string', default: '3' },
      cpus: { type: 'string', default: '1' },
      limit: { type: 'string', default: '300' },
      console: { type: 'boolean', default: false },
      keep: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) {
    console.log(HELP);
    return 0;
  }
  for (const name of ['runs', 'rounds', 'cpus', 'limit'])
    if (!/^[1-9]\d{0,4}$/.test(values[name])) throw new Error(`--${name} is a number, not "${values[name]}"`);
  const { VIOMMU_PATHS, VIOMMU_LEVELS } = process.env;
  if (!VIOMMU_PATHS || !VIOMMU_LEVELS) throw new Error('run this as `npm run test:kvm`');
  const paths = JSON.parse(readFileSync(VIOMMU_PATHS, 'utf8'));
  const levels = JSON.parse(VIOMMU_LEVELS);
  const scratch = mkdtempSync(join(tmpdir(), 'viommu-kvm-'));
  try {
    const file = join(scratch, 'settings');
    const initramfs = join(scratch, 'initramfs');
    const { level2 } = levels;
    writeFileSync(initramfs, Buffer.concat([readFileSync(level2.initramfs), readFileSync(level2.programs)]));
    writeFileSync(file, settings(paths, levels, initramfs, values));
    console.log(`Level 1: ${levels.arch} with KVM; level 2 under it, with QEMU's own IOMMU and behind ours.`);
    const guests = new Guests();
    const options = { console: values.console, heard: (line) => guests.hear(line) };
    const said = await runLevel1(level1Command(paths, levels, file), options);
    if (values.keep) writeFileSync(values.keep, `${said.lines.join('\n')}\n`);
    console.log('');
    for (const line of guests.table()) console.log(line);
    console.log('');
    const results = guests.verdicts(Number(values.runs));
    for (const [holds, sentence] of results) console.log(`${holds ? 'ok    ' : 'FAILED'}  ${sentence}`);
    const failed = results.filter(([holds]) => !holds).length;
    if (failed > 0 && !values.console) console.log(`\n${said.lines.slice(-40).join('\n')}`);
    console.log(`\n${results.length - failed} passed, ${failed} failed`);
    return failed === 0 ? 0 : 1;
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

try {
  process.exitCode = await main();
} catch (error) {
  process.stderr.write(`test:kvm: ${error.message}\n`);
  process.exitCode = 1;
}
