/**
 * Stryker tries every mutant in the ranges that it is given: this runner lets only those of the
 * sample through, and this reporter says how it goes.
 */
import { appendFileSync, readFileSync } from 'node:fs';
import {
  commonTokens,
  declareClassPlugin,
  declareFactoryPlugin,
  PluginKind,
  tokens,
} from '@stryker-mutator/api/plugin';
import { strykerPlugins as vitestPlugins } from '@stryker-mutator/vitest-runner';
import { keyOf } from './sample.mjs';

const { root, chosen, keep } = JSON.parse(readFileSync(process.env['VIOMMU_MUTANT_SAMPLE'], 'utf8'));
const sampled = new Set(chosen);

/** Of a test file that did not load Stryker says nothing. */
const notLoaded = (vitest) =>
  vitest.state.getFiles().some(({ tasks, result }) => tasks.length === 0 && result?.state === 'fail');

/**
 * Stryker's runner for vitest. A checker would do to leave mutants out, but is a process more, and
 * one more runner when it has ended.
 */
function createSampleRunner(injector) {
  const runner = injector.injectFunction(vitestPlugins[0].factory);
  const mutantRun = runner.mutantRun.bind(runner);
  runner.mutantRun = async (options) => {
    if (!sampled.has(keyOf(root, options.activeMutant, 0))) return { status: 'survived', nrOfTests: 0 };
    const result = await mutantRun(options);
    if (result.status !== 'survived' || !notLoaded(runner.ctx)) return result;
    return { status: 'killed', killedBy: [], failureMessage: 'a file does not load', nrOfTests: 0 };
  };
  return runner;
}
createSampleRunner.inject = tokens(commonTokens.injector);

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
  declareFactoryPlugin(PluginKind.TestRunner, 'sample', createSampleRunner),
  declareClassPlugin(PluginKind.Reporter, 'sample', SampleReporter),
];
