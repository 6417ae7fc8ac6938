import { defineConfig } from 'vitest/config';
import { nothingFound } from './test/support/nothing-found.js';

// Guests share two cores with everything else: one file at a time keeps their timing honest.
export default defineConfig({
  plugins: [nothingFound],
  test: {
    include: ['src/**/*.test.ts', 'test/**/*.test.ts', 'setup/**/*.test.mjs'],
    testTimeout: 60_000,
    hookTimeout: 120_000,
    fileParallelism: false,
    reporters: ['verbose'],
  },
});
