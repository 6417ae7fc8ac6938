/**
 * Prints apt sources of a Debian release on this machine's own mirror: node setup/print-sources.mjs
 * trixie
 */

import { readFileSync } from 'node:fs';
import { machineSources } from './apt.mjs';
import { findDebian, privateSources } from './apt-sources.mjs';
import { parseOsRelease } from './platform.mjs';

const [wanted] = process.argv.slice(2);
const running = parseOsRelease(readFileSync('/etc/os-release', 'utf8')).VERSION_CODENAME;
const debian = running && findDebian(machineSources(), running);
if (!wanted || !debian) {
  process.stderr.write('usage: print-sources.mjs CODENAME, on a Debian machine with a mirror in /etc/apt\n');
  process.exitCode = 2;
} else {
  const suites = [wanted, `${wanted}-updates`];
  process.stdout.write(privateSources(debian, suites, [`${wanted}-security`], 'deb'));
}
