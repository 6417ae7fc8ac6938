#!/usr/bin/env node
/** `npm run build`: compiles src into dist, with a stamp of what it was compiled from. */
import { join } from 'node:path';
import { Build } from './build-stamp.mjs';
import { runForeground } from './exec.mjs';
import { ROOT } from './project.mjs';

const build = new Build(ROOT);
const compiler = join(ROOT, 'node_modules/.bin/tsc');
process.exitCode = await runForeground(compiler, build.arguments, { cwd: ROOT });
if (process.exitCode === 0) build.finish();
else build.abandon();
