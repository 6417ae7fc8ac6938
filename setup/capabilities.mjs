#!/usr/bin/env node
// Writes docs/capabilities.md from the register tables and the models: npm run build && npm run
// capabilities
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { ROOT } from './project.mjs';

const built = join(ROOT, 'dist/device/capability-page.js');
if (!existsSync(built)) {
  console.error('not built yet: npm run build');
  process.exit(1);
}
const { capabilityPage } = await import(pathToFileURL(built).href);
writeFileSync(join(ROOT, 'docs/capabilities.md'), capabilityPage());
console.log('docs/capabilities.md');
