import { describe, expect, it } from 'vitest';
import { findDebian, parseDeb822, parseOneLine, privateSources } from './apt-sources.mjs';

describe('one-line sources', () => {
  it('reads options, several components, and skips comments', () => {
    const text = [
      '# deb http://old.invalid/debian bookworm main',
      'deb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://mirror.invalid/debian bookworm main contrib # us',
      'deb-src http://mirror.invalid/debian bookworm main',
      '',
    ].join('\n');
    const [first, second, ...more] = parseOneLine(text);
    expect(more).toEqual([]);
    expect(first).toMatchObject({
      types: ['deb'],
      uris: ['http://mirror.invalid/debian'],
      suites: ['bookworm'],
      components: ['main', 'contrib'],
      signedBy: '/usr/share/keyrings/debian-archive-keyring.gpg',
    });
    expect(second.types).toEqual(['deb-src']);
  });
});

describe('deb822 sources', () => {
  it('reads paragraphs, folded fields and comments, and leaves out disabled ones', () => {
    const text = `Types: deb
# http://comment.invalid/debian
URIs: http://mirror.invalid/debian
Suites: trixie trixie-updates
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc

Enabled: no
Types: deb
URIs: http://off.invalid/debian
Suites: trixie
Components: main
`;
    const entries = parseDeb822(text);
    expect(entries).toHaveLength(1);
    expect(entries[0].suites).toEqual(['trixie', 'trixie-updates']);
    expect(entries[0].signedBy).toContain('\n -----BEGIN PGP');
  });
});

describe('finding Debian among the sources', () => {
  const docker =
    'deb [signed-by=/etc/apt/keyrings/docker.gpg] https://docker.invalid/linux/debian bookworm stable';
  const vendor = 'deb [signed-by=/etc/apt/keyrings/vendor.gpg] https://vendor.invalid/debian bookworm main';
  const own = 'deb http://mirror.invalid/debian bookworm main';
  const security = 'deb http://mirror.invalid/debian-security bookworm-security main';

  it("passes over others' archives, which name their suites after Debian's", () => {
    const found = findDebian(parseOneLine([docker, vendor, own, security].join('\n')), 'bookworm');
    expect(found.main.uris).toEqual(['http://mirror.invalid/debian']);
    expect(found.security.uris).toEqual(['http://mirror.invalid/debian-security']);
  });

  it('takes an alias only when the codename is nowhere', () => {
    const alias = 'deb http://alias.invalid/debian stable main';
    expect(findDebian(parseOneLine(`${alias}\n${own}`), 'bookworm').main.uris).toEqual([
      'http://mirror.invalid/debian',
    ]);
    expect(findDebian(parseOneLine(alias), 'bookworm').main.uris).toEqual(['http://alias.invalid/debian']);
  });

  it('finds nothing where there is nothing', () => {
    expect(findDebian(parseOneLine(docker), 'bookworm')).toBeUndefined();
  });

  it('derives a list that parses back to the same mirror, with sources and the suites asked for', () => {
    const found = findDebian(parseOneLine(`${own}\n${security}`), 'bookworm');
    const text = privateSources(found, ['bookworm', 'bookworm-backports'], ['bookworm-security']);
    const [main, second] = parseDeb822(text);
    expect(main).toMatchObject({
      types: ['deb', 'deb-src'],
      uris: ['http://mirror.invalid/debian'],
      suites: ['bookworm', 'bookworm-backports'],
    });
    expect(second.suites).toEqual(['bookworm-security']);
  });
});
