import { defineConfig } from 'vitest/config';
import { BaseSequencer, type TestSpecification } from 'vitest/node';

const tests = JSON.parse(process.env['VIOMMU_MUTANT_TESTS'] ?? '[]') as string[];

/** In the order that run.mjs says: quick ones find most mutants. */
class InOrder extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const place = ({ moduleId }: TestSpecification): number =>
      tests.findIndex((test) => moduleId.endsWith(test));
    return files.toSorted((a, b) => place(a) - place(b));
  }
}

/** For the mutation tester: the fast tests of one folder, which run.mjs names. */
export default defineConfig({
  test: {
    include: tests,
    testTimeout: 20_000,
    fileParallelism: false,
    sequence: { sequencer: InOrder },
  },
});
