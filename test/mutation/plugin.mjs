/**
 * Stryker tries every mutant: this checker lets only those of the sample through, and this reporter
 * says how it goes.
 */
import { appendFileSync, readFileSync } from 'node:fs';
import { declareClassPlugin, PluginKind } from '@stryker-mutator/api/plugin';
import { keyOf } from './sample.mjs';

const { root, chosen, keep } = JSON.parse(readFileSync(process.env['VIOMMU_MUTANT_SAMPLE'], 'utf8'));
const sampled = new Set(chosen);

class SampleChecker {
  async init() {}

  async check(mutants) {
    const verdict = (mutant) =>
      sampled.has(keyOf(root, mutant, 0))
        ? { status: 'passed' }
        : { status: 'compileError', reason: 'not in the sample' };
    return Object.fromEntries(mutants.map((mutant) => [mutant.id, verdict(mutant)]));
  }
}

class SampleReporter {
  #done = 0;

  onMutantTested(mutant) {
    const key = keyOf(root, mutant, 1);
    if (!sampled.has(key)) return;
    this.#done++;
    // At once, so that a run that is cut short has not been in vain.
    if (keep !== undefined) appendFileSync(keep, `${JSON.stringify([key, mutant.status])}\n`);
    const lives = mutant.status === 'Survived' || mutant.status === 'NoCoverage';
    if (!lives && this.#done % 10 !== 0 && this.#done !== sampled.size) return;
    console.log(`mutants: ${this.#done} of ${sampled.size}${lives ? `, ${mutant.status}: ${key}` : ''}`);
  }
}

export const strykerPlugins = [
  declareClassPlugin(PluginKind.Checker, 'sample', SampleChecker),
  declareClassPlugin(PluginKind.Reporter, 'sample', SampleReporter),
];
