/** Runs the machine that has another in it, and listens to both. */
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';

/** Level 1 may be silent for so long while level 2's kernel starts. */
const SILENCE_MS = 600_000;
/** How often to say for how long it has been running. */
const PROGRESS_MS = 60_000;
/** What is for the test alone. */
const UNPRINTED = ['report', 'finished'];

/** The lines that level 1 and level 2 print for us: [who, what, fields]. */
function parseLine(line) {
  const match = /VIOMMU-(L1|GUEST): (\S+) ?(.*)$/.exec(line);
  if (match === null) return undefined;
  const [, who, what, rest] = match;
  const fields = Object.fromEntries(
    [...rest.matchAll(/(\w+)=("[^"]*"|\S+)/g)].map(([, name, value]) => [name, value.replaceAll('"', '')]),
  );
  return { who, what, rest, fields };
}

/**
 * Runs level 1 to its end. Resolves with its output: every line, and the fields of our own lines by
 * program and event.
 * @param {{
 *   console?: boolean,
 *   heard?: (line: {who: string, what: string, fields: object}) => void
 * }} options
 */
export function runLevel1([command, args], options) {
  const said = { lines: [], found: new Map() };
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  const stop = () => child.kill('SIGKILL');
  process.once('exit', stop);
  for (const name of ['SIGINT', 'SIGTERM'])
    process.once(name, () => process.exit(name === 'SIGINT' ? 130 : 143));
  let silence = setTimeout(stop, SILENCE_MS);
  const started = Date.now();
  const progress = setInterval(() => {
    console.log(`  … ${Math.round((Date.now() - started) / 1000)} s`);
  }, PROGRESS_MS);
  createInterface({ input: child.stdout }).on('line', (line) => {
    clearTimeout(silence);
    silence = setTimeout(stop, SILENCE_MS);
    said.lines.push(line);
    if (options.console) console.log(line);
    const parsed = parseLine(line);
    if (parsed === undefined) return;
    options.heard?.(parsed);
    const key = `${parsed.who} ${parsed.what}`;
    said.found.set(key, { ...parsed, fields: { ...said.found.get(key)?.fields, ...parsed.fields } });
    if (!options.console && !UNPRINTED.includes(parsed.what))
      console.log(`  ${parsed.who === 'L1' ? 'level 1' : 'level 2'}: ${parsed.what} ${parsed.rest}`);
  });
  return new Promise((done, failed) => {
    child.once('error', failed);
    child.once('exit', () => {
      clearTimeout(silence);
      clearInterval(progress);
      process.off('exit', stop);
      done(said);
    });
  });
}
