import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { capabilityPage, untriedOptions } from './capability-page.js';

describe('docs/capabilities.md', () => {
  it('is what `npm run capabilities` writes', () => {
    const page = readFileSync(new URL('../../docs/capabilities.md', import.meta.url), 'utf8');
    expect(page, 'run: npm run build && npm run capabilities').toBe(capabilityPage());
  });

  it('tries every option that an identification register shows', () => {
    expect(untriedOptions()).toEqual([]);
  });
});
