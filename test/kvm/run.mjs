/**
 * npm run test:kvm: a real KVM without hardware for it. Level 1 is a virtual machine whose
 * processor has virtualization, emulated; in it guests run under its KVM behind our IOMMU, in
 * scenarios. docs/testing.md says more.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { runLevel1 } from '../vfio/level1.mjs';
import { level1Command, settings } from './machines.mjs';
import { Rates } from './rates.mjs';
import { chosen, SCENARIOS } from './scenarios.mjs';

const HELP = `Usage: npm run test:kvm [-- --arch amd64|arm64] [options]

  --arch amd64|arm64  of both levels: level 2 is behind our VT-d (amd64, the default) or our SMMUv3 (arm64)
  --only NAME,…       these scenarios (all)
  --list              names the scenarios
  --limit S           seconds of level 1 after which a guest hangs (300)
  --console           also print all that level 1 and level 2 print
  --keep FILE         keep that in a file
  --help

Of the scenario \`reads\`:
  --runs N            guests of either side (2)
  --rounds N          rounds of reads in each guest (3)
  --cpus N            processors of level 2 (1)

Takes some minutes. Exit status 0 when everything held.`;

const NUMBERS = { runs: '2', rounds: '3', cpus: '1', limit: '300' };

function options() {
  const { values } = parseArgs({
    options: {
      ...Object.fromEntries(Object.keys(NUMBERS).map((name) => [name, { type: 'string' }])),
      only: { type: 'string' },
      list: { type: 'boolean', default: false },
      console: { type: 'boolean', default: false },
      keep: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  });
  for (const [name, number] of Object.entries(NUMBERS)) {
    const value = values[name] ?? number;
    if (!/^[1-9]\d{0,4}$/.test(value)) throw new Error(`--${name} is a number, not "${value}"`);
    values[name] = Number(value);
  }
  return values;
}

/** What held, and for how long each scenario ran. */
class Verdicts {
  #all = [];
  #finished = new Map();

  hear({ who, what, rest }) {
    if (who !== 'L1') return;
    if (what === 'verdict') this.#all.push(JSON.parse(rest));
    if (what === 'finished') {
      const { name, seconds } = JSON.parse(rest);
      this.#finished.set(name, seconds);
    }
  }

  /** Lines of text, and how many scenarios failed. */
  summary(names) {
    const lines = [];
    let failed = 0;
    for (const name of names) {
      const own = this.#all.filter((verdict) => verdict.name === name);
      const seconds = this.#finished.get(name);
      const good = seconds !== undefined && own.length > 0 && own.every(({ holds }) => holds);
      failed += good ? 0 : 1;
      lines.push(`${mark(good)}  ${name}${seconds === undefined ? ' did not end' : `, ${seconds} s`}`);
      for (const { holds, sentence } of own) lines.push(`  ${mark(holds)}  ${sentence.split('\n')[0]}`);
    }
    return { lines, failed };
  }
}

const mark = (holds) => (holds ? 'ok    ' : 'FAILED');

async function main() {
  const values = options();
  if (values.help) {
    console.log(HELP);
    return 0;
  }
  const { VIOMMU_PATHS, VIOMMU_LEVELS } = process.env;
  if (!VIOMMU_LEVELS) throw new Error('run this as `npm run test:kvm`');
  const levels = JSON.parse(VIOMMU_LEVELS);
  const names = chosen(levels.arch, values.only);
  if (values.list) {
    for (const name of names) console.log(`${name.padEnd(12)} ${SCENARIOS[name].what}`);
    return 0;
  }
  const paths = JSON.parse(readFileSync(VIOMMU_PATHS, 'utf8'));
  const scratch = mkdtempSync(join(tmpdir(), 'viommu-kvm-'));
  try {
    const file = join(scratch, 'settings');
    const initramfs = join(scratch, 'initramfs');
    const { level2 } = levels;
    writeFileSync(initramfs, Buffer.concat([readFileSync(level2.initramfs), readFileSync(level2.programs)]));
    writeFileSync(file, JSON.stringify(settings(paths, levels, initramfs, { ...values, scenarios: names })));
    console.log(`Level 1: ${levels.arch} with KVM; level 2 under it: ${names.join(', ')}.`);
    const rates = new Rates();
    const verdicts = new Verdicts();
    const heard = (line) => {
      rates.hear(line);
      verdicts.hear(line);
    };
    const said = await runLevel1(level1Command(paths, levels, file), { console: values.console, heard });
    if (values.keep) writeFileSync(values.keep, `${said.lines.join('\n')}\n`);
    console.log('');
    if (names.includes('reads')) console.log(`${rates.table().join('\n')}\n`);
    const { lines, failed } = verdicts.summary(names);
    for (const line of lines) console.log(line);
    if (failed > 0 && !values.console) console.log(`\n${said.lines.slice(-60).join('\n')}`);
    console.log(`\n${names.length - failed} passed, ${failed} failed`);
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
