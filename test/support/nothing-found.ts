import type { Plugin } from 'vitest/config';
import type { Reporter, TestModule, Vitest } from 'vitest/node';

/**
 * Fails a run whose filter by name (`-t`) leaves no test to run: that is a name that has changed,
 * and no success.
 */
class NothingFound implements Reporter {
  readonly #vitest: Vitest;
  constructor(vitest: Vitest) {
    this.#vitest = vitest;
  }

  onTestRunEnd(modules: readonly TestModule[]): void {
    const { testNamePattern } = this.#vitest.config;
    if (testNamePattern === undefined || this.#vitest.config.watch) return;
    const ran = modules.some((module) =>
      [...module.children.allTests()].some((test) => test.result().state !== 'skipped'),
    );
    if (ran) return;
    this.#vitest.logger.error(
      `\nNo test has run: no name matches ${testNamePattern}, or what matches was skipped.`,
    );
    process.exitCode = 1;
  }
}

/** Whatever reporters a command line names. */
export const nothingFound: Plugin = {
  name: 'viommu:nothing-found',
  configureVitest({ vitest }) {
    vitest.config.reporters.push(new NothingFound(vitest));
  },
};
