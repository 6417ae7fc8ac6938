/**
 * Reading the machine's apt sources (sources.list(5): one-line and deb822 style) and deriving a
 * private list from them, so that the mirror the machine is configured for is the one that is used,
 * and /etc/apt itself stays as it is.
 */

/** One-line style: `deb [option=value …] uri suite component…`. */
export function parseOneLine(text) {
  const entries = [];
  for (const raw of text.split('\n')) {
    const line = raw.replace(/#.*/, '').trim();
    const match = /^(deb|deb-src)\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s*(.*)$/.exec(line);
    if (!match) {
      continue;
    }
    const options = {};
    for (const pair of (match[2] ?? '').split(/\s+/).filter(Boolean)) {
      const [key, ...value] = pair.split('=');
      options[key.toLowerCase()] = value.join('=');
    }
    entries.push({
      types: [match[1]],
      uris: [match[3]],
      suites: [match[4]],
      components: match[5].split(/\s+/).filter(Boolean),
      signedBy: options['signed-by'],
      trusted: options.trusted,
    });
  }
  return entries;
}

/** Fields of one deb822 paragraph; continuation lines keep their line break. */
function paragraphFields(paragraph) {
  const fields = {};
  let last;
  for (const line of paragraph.split('\n')) {
    const match = /^([A-Za-z][A-Za-z-]*):\s*(.*)$/.exec(line);
    if (match) {
      last = match[1].toLowerCase();
      fields[last] = match[2];
    } else if (last && /^\s/.test(line)) {
      fields[last] += `\n${line}`;
    }
  }
  return fields;
}

/** deb822 style: paragraphs of `Field: value`. */
export function parseDeb822(text) {
  const withoutComments = text.replace(/^#.*\n?/gm, '');
  const words = (value) => (value ?? '').split(/\s+/).filter(Boolean);
  return withoutComments
    .split(/\n\s*\n/)
    .map(paragraphFields)
    .filter((fields) => fields.uris && (fields.enabled ?? 'yes').toLowerCase() !== 'no')
    .map((fields) => ({
      types: words(fields.types),
      uris: words(fields.uris),
      suites: words(fields.suites),
      components: words(fields.components),
      signedBy: fields['signed-by'],
      trusted: fields.trusted,
    }));
}

const isSecurity = (suite) => suite.endsWith('-security') || suite.endsWith('/updates');

/**
 * Whether an entry is Debian's own archive: others name their suites after Debian's releases too.
 */
function looksLikeDebian(entry) {
  const keys = entry.signedBy ?? '';
  const named = keys === '' || keys.includes('debian-archive') || keys.includes('BEGIN PGP');
  const path = entry.uris.some((uri) => /debian/i.test(uri) || /^(mirror|file|copy|cdrom)/.test(uri));
  return entry.components.includes('main') && named && path;
}

/**
 * The machine's main and security archives of one release.
 * @returns {{main: object, security: object | undefined} | undefined} undefined when there is none
 */
export function findDebian(entries, codename) {
  const binary = entries.filter((entry) => entry.types.includes('deb') && looksLikeDebian(entry));
  const alias = ['stable', 'oldstable'];
  const main =
    binary.find((entry) => entry.suites.includes(codename)) ??
    binary.find((entry) => entry.suites.some((suite) => alias.includes(suite)));
  if (!main) {
    return undefined;
  }
  const security = binary.find((entry) => entry.suites.some((s) => isSecurity(s) && s.startsWith(codename)));
  return { main, security };
}

function paragraph(types, entry, suites) {
  const lines = [
    `Types: ${types}`,
    `URIs: ${entry.uris.join(' ')}`,
    `Suites: ${suites.join(' ')}`,
    'Components: main',
  ];
  if (entry.signedBy) {
    lines.push(`Signed-By: ${entry.signedBy}`);
  }
  if (entry.trusted) {
    lines.push(`Trusted: ${entry.trusted}`);
  }
  return `${lines.join('\n')}\n`;
}

/**
 * Text of a private deb822 list.
 * @param {{main: object, security?: object}} debian from findDebian
 * @param {string[]} suites suites wanted from the main archive
 * @param {string[]} securitySuites suites wanted from the security archive, if the machine has one
 * @param {string} [types] with or without the sources
 */
export function privateSources(debian, suites, securitySuites, types = 'deb deb-src') {
  const parts = [paragraph(types, debian.main, suites)];
  if (debian.security && securitySuites.length > 0) {
    parts.push(paragraph(types, debian.security, securitySuites));
  }
  return parts.join('\n');
}
