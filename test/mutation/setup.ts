/**
 * Modules stay loaded from one test file to the next, and so do Stryker's counts of what each test
 * reaches. It adds them up after each file: they start again with the file.
 */
const stryker = (globalThis as { __stryker__?: { mutantCoverage?: Record<'static' | 'perTest', object> } })
  .__stryker__;
if (stryker?.mutantCoverage !== undefined) Object.assign(stryker.mutantCoverage, { static: {}, perTest: {} });
