import { defineConfig } from 'vitest/config';
import { BaseSequencer, type Reporter, type TestModule, type TestSpecification } from 'vitest/node';

const tests = JSON.parse(process.env['VIOMMU_MUTANT_TESTS'] ?? '[]') as string[];

/** What each test file took in the run without mutants, and when it last found one. */
const took = new Map<string, number>();
const found = new Map<string, number>();
let finds = 0;

/** In place of vitest's own, which would print what failed, with the source around it. */
const observer: Reporter = {
  onTestModuleEnd(module: TestModule) {
    if (!took.has(module.moduleId)) took.set(module.moduleId, module.diagnostic().duration);
    if (module.state() === 'failed') found.set(module.moduleId, ++finds);
  },
};

/** First what has found the neighbours of this mutant, then the quick ones. */
class LikelyFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const last = ({ moduleId }: TestSpecification): number => found.get(moduleId) ?? 0;
    const time = ({ moduleId }: TestSpecification): number => took.get(moduleId) ?? 0;
    return files.toSorted((a, b) => last(b) - last(a) || time(a) - time(b));
  }
}

/**
 * For the mutation tester: the fast tests of one folder, which run.mjs names. The files share one
 * thread and the modules that they load, once for each mutant: loading takes longer than most
 * tests.
 */
export default defineConfig({
  test: {
    include: tests,
    setupFiles: ['test/mutation/setup.ts'],
    isolate: false,
    fileParallelism: false,
    // A busy machine finds no mutants.
    testTimeout: 120_000,
    hookTimeout: 120_000,
    reporters: [observer],
    sequence: { sequencer: LikelyFirst },
  },
});
