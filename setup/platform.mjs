/** What this machine must be: Linux, Debian 12 or 13, amd64, root or sudo, Node ≥ 20.19. */
import { readFileSync } from 'node:fs';
import { SetupError, tryCapture } from './exec.mjs';

/** Debian releases that the set-up knows, by VERSION_ID of os-release(5). */
const RELEASES = {
  12: { codename: 'bookworm', backports: true },
  13: { codename: 'trixie', backports: false },
};

const NODE_MINIMUM = [20, 19];

const OTHERWISE = 'Everything that needs no virtual machine works here too: npm run demo -- --sim';

/** Parses os-release(5): KEY=value lines, values perhaps quoted. */
export function parseOsRelease(text) {
  const fields = {};
  for (const line of text.split('\n')) {
    const match = /^([A-Z_0-9]+)=(?:"(.*)"|'(.*)'|(.*))$/.exec(line.trim());
    if (match) {
      fields[match[1]] = match[2] ?? match[3] ?? match[4];
    }
  }
  return fields;
}

export function checkNode(version = process.versions.node) {
  const [major, minor] = version.split('.').map(Number);
  if (major < NODE_MINIMUM[0] || (major === NODE_MINIMUM[0] && minor < NODE_MINIMUM[1])) {
    throw new SetupError(
      `Node ${version} is too old: install Node ${NODE_MINIMUM.join('.')} or newer and run the command again.`,
    );
  }
}

/**
 * Checks the machine.
 * @returns {{codename: string, backports: boolean}} what the other steps need to know
 * @throws {SetupError} one sentence saying what is missing and what to do
 */
export function checkPlatform() {
  if (process.platform !== 'linux') {
    throw new SetupError(`This needs Linux (Debian 12 or 13), and runs on ${process.platform}. ${OTHERWISE}`);
  }
  if (process.arch !== 'x64') {
    throw new SetupError(`This needs an amd64 machine, and runs on ${process.arch}. ${OTHERWISE}`);
  }
  let os;
  try {
    os = parseOsRelease(readFileSync('/etc/os-release', 'utf8'));
  } catch {
    os = {};
  }
  const release = os.ID === 'debian' ? RELEASES[Number(os.VERSION_ID)] : undefined;
  if (!release) {
    const name = os.PRETTY_NAME ?? 'an unknown system';
    throw new SetupError(
      `This needs Debian 12 or 13, and runs on ${name}: use one of the images in docker/. ${OTHERWISE}`,
    );
  }
  return release;
}

/** Command prefix that makes a command run as root: nothing, or sudo. */
export function asRoot() {
  if (process.getuid() === 0) {
    return [];
  }
  if (tryCapture('sh', ['-c', 'command -v sudo']) === undefined) {
    throw new SetupError('Debian packages are missing and there is no sudo: run the command as root once.');
  }
  return ['sudo'];
}
