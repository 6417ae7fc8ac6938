import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { RULES } from '../assignment/plan-rules.js';
import { ERRORS } from '../base/errors.js';
import { HOST_ERRORS } from '../host/host-errors.js';
import type { Field } from '../spec/define.js';
import { VCMD_COMMAND, VCRSP_STATUS, VIRTUAL_COMMAND_REGISTERS } from '../spec/smmuv3/virtual-commands.js';
import { FEATURE, MESSAGE } from '../wire/frame.js';
import { EXIT } from './context.js';
import { CONTROL_ERRORS, CONTROL_METHODS } from './control-protocol.js';
import { run } from './program.js';
import { fakeServices, testContext } from './testing/fakes.js';

const doc = (name: string): string => readFileSync(new URL(`../../docs/${name}`, import.meta.url), 'utf8');

/** Rows of the table between two HTML comments, as cells. */
function table(text: string, mark: string): string[][] {
  const body = new RegExp(`<!-- ${mark}:[^>]*-->\\n([\\s\\S]*?)<!-- /${mark} -->`).exec(text)?.[1] ?? '';
  return body
    .trim()
    .split('\n')
    .slice(2)
    .map((line) =>
      line
        .split('|')
        .slice(1, -1)
        .map((cell) => cell.trim()),
    );
}

async function helpOf(...argv: string[]): Promise<string> {
  const context = testContext();
  expect(await run(context, fakeServices(), [...argv, '--help'])).toBe(0);
  context.cleanUp();
  return context.out();
}

const options = (help: string): string[] =>
  [...help.matchAll(/(?:^|\s)(--[a-z][a-z-]+)/gm)].map((match) => match[1] ?? '');

describe('docs/protocol.md', () => {
  it('has exactly the errors of the table', () => {
    const rows = Object.entries(ERRORS).map(([name, error]) => [
      String(error.code),
      `\`${name}\``,
      error.severity,
      error.reconnect ? 'yes' : 'no',
      error.meaning,
    ]);
    expect(table(doc('protocol.md'), 'errors')).toEqual(rows);
  });

  it('has exactly the errors and methods of the control channel', () => {
    const text = doc('protocol.md');
    const rows = Object.entries(CONTROL_ERRORS).map(([name, meaning]) => [`\`${name}\``, meaning]);
    expect(table(text, 'control errors')).toEqual(rows);
    for (const method of CONTROL_METHODS) expect(text).toContain(`| \`${method}\` `);
  });

  it('has exactly the features of the contract', () => {
    const rows = Object.entries(FEATURE).map(([name, mask]) => [String(Math.log2(mask)), `\`${name}\``]);
    expect(table(doc('protocol.md'), 'features').map((row) => row.slice(0, 2))).toEqual(rows);
  });

  it.each([
    ['front', 'Front', [1, 63]],
    ['backend', 'Backend', [64, 126]],
  ] as const)(
    'has each message of the %s channel once, and says which have replies',
    (mark, service, [a, b]) => {
      const contract = readFileSync(new URL('../../proto/viommu.proto', import.meta.url), 'utf8');
      const calls = new RegExp(`^service ${service} {([^}]*)`, 'm').exec(contract)?.[1] ?? '';
      const answered = new Set([...calls.matchAll(/rpc (\w+)/g)].map((match) => match[1]));
      // REG_WRITE has a reply only where it asks for one.
      answered.delete('REG_WRITE');
      const expected = Object.entries(MESSAGE)
        .filter(([, number]) => number >= a && number <= b)
        .map(([name]) => [name, answered.has(name) ? 'yes' : 'no']);
      const rows = table(doc('protocol.md'), mark).flatMap(([names = '', reply]) =>
        names.split(', ').map((name) => [name.replaceAll('`', ''), reply]),
      );
      expect(rows.sort()).toEqual(expected.sort());
    },
  );
});

describe('docs/cli.md', () => {
  it('names every command, and every option of those that run machines', async () => {
    const text = doc('cli.md');
    for (const command of ['demo', 'serve', 'qemu', 'dump', 'list', 'report', 'watch', 'plan']) {
      expect(text).toContain(`\`viommu ${command}\``);
    }
    for (const command of ['demo', 'serve', 'qemu', 'plan']) {
      const missing = options(await helpOf(command)).filter(
        (option) => !text.includes(option) && option !== '--help',
      );
      expect(missing, command).toEqual([]);
    }
  });

  it('has exactly the exit codes', () => {
    const section = /## Exit codes\n([^#]*)/.exec(doc('cli.md'))?.[1] ?? '';
    const codes = [...section.matchAll(/^\| ([\d, ]+?) +\|/gm)].flatMap(([, cell = '']) => cell.split(', '));
    expect(codes.map(Number)).toEqual(Object.values(EXIT));
  });
});

describe('docs/assignment.md', () => {
  it('has exactly the rules of the planner', () => {
    const rows = Object.entries(RULES).map(([code, rule]) => [`\`${code}\``, rule]);
    expect(table(doc('assignment.md'), 'rules')).toEqual(rows);
  });

  it('has exactly the errors of the host port', () => {
    const rows = Object.entries(HOST_ERRORS).map(([code, meaning]) => [`\`${code}\``, meaning]);
    expect(table(doc('assignment.md'), 'host errors')).toEqual(rows);
  });
});

describe('docs/pv-pasid.md', () => {
  it('has exactly the registers, commands and results that there are', () => {
    const text = doc('pv-pasid.md');
    const rows = VIRTUAL_COMMAND_REGISTERS.flatMap(({ name, offset, fields }) =>
      Object.values<Field>(fields).map((field) => [
        `\`${name.replace('SMMU_', '')}\``,
        `0x${offset.toString(16).toUpperCase()}`,
        `\`${field.name}\``,
        field.msb === field.lsb ? `${field.lsb}` : `${field.msb}:${field.lsb}`,
        field.access,
      ]),
    );
    expect(table(text, 'registers')).toEqual(rows);
    const named = (values: object) =>
      Object.entries(values).map(([name, value]) => [String(value), `\`${name}\``]);
    expect(table(text, 'commands').map((row) => row.slice(0, 2))).toEqual(named(VCMD_COMMAND));
    expect(table(text, 'results').map((row) => row.slice(0, 2))).toEqual(named(VCRSP_STATUS));
  });
});

describe('help', () => {
  it('is short enough for a screen and has examples', async () => {
    const help = await helpOf();
    expect(help.split('\n').length).toBeLessThan(45);
    expect(help).toContain('Examples:');
    expect(await helpOf('qemu')).toContain('Exit code: QEMU');
  });

  it('is printed with exit code 2 for a command that does not exist, with a guess', async () => {
    const context = testContext();
    expect(await run(context, fakeServices(), ['sevre'])).toBe(2);
    expect(context.err()).toContain('serve');
    expect(await run(context, fakeServices(), ['--version'])).toBe(0);
    expect(context.out()).toBe('9.9.9\n');
    context.cleanUp();
  });

  it('is printed, as usage error, when no command is given', async () => {
    const context = testContext();
    expect(await run(context, fakeServices(), [])).toBe(2);
    expect(context.err()).toContain('Usage: viommu');
    context.cleanUp();
  });
});
