/**
 * In level 1: runs the scenarios that the settings name, one after the other, and prints what held.
 *
 *   node main.mjs SETTINGS
 */
import { readFileSync } from 'node:fs';
import { affinity } from './affinity.mjs';
import { boot, reset } from './boot.mjs';
import { reads } from './reads.mjs';
import { refused } from './refused.mjs';
import { say, sayObject, seconds } from './say.mjs';
import { vhostUser } from './vhost-user.mjs';

const RUNS = { boot, reset, affinity, refused, reads, 'vhost-user': vhostUser };

const settings = JSON.parse(readFileSync(process.argv[2], 'utf8'));
for (const name of settings.scenarios) {
  say('scenario', { name, seconds: seconds() });
  const check = (holds, sentence) => sayObject('verdict', { name, holds: Boolean(holds), sentence });
  const before = seconds();
  try {
    await RUNS[name](settings, check);
  } catch (error) {
    check(false, error.message);
  }
  sayObject('finished', { name, seconds: Math.round(seconds() - before) });
}
process.exit(0);
