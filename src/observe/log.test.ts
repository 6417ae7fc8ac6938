import { describe, expect, it } from 'vitest';
import { createLog, prettyLine, timeOfDay } from './log.js';

const AT = Date.UTC(2030, 0, 2, 13, 4, 5, 67);

function logged(json: boolean): { lines: string[]; log: ReturnType<typeof createLog> } {
  const lines: string[] = [];
  const log = createLog({ level: 'info', json, now: () => AT, write: (line) => lines.push(line) });
  return { lines, log };
}

describe('log', () => {
  it('writes one short line for people', () => {
    const { lines, log } = logged(false);
    log.child({ vm: 'debian' }).warn({ code: 'FRAME_SIZE', size: 70000 }, 'connection closed');
    expect(lines).toEqual(['13:04:05.067Z warn  [debian] connection closed code=FRAME_SIZE size=70000\n']);
  });

  it('writes JSON for machines and honours the level', () => {
    const { lines, log } = logged(true);
    log.debug('not seen');
    log.info({ vm: 'a' }, 'seen');
    expect(lines.map((line) => JSON.parse(line))).toEqual([{ level: 30, time: AT, vm: 'a', msg: 'seen' }]);
  });

  it('writes one line, with nothing that a terminal would obey, whatever its source', () => {
    const { lines, log } = logged(false);
    log.warn({ vm: 'a\u001b[2J', text: 'b\u009b1m\nc', list: ['\u202ed'] }, 'e\r\u0007');
    expect(lines).toEqual([
      '13:04:05.067Z warn  [a\\u{1b}[2J] e\\u{d}\\u{7} text=b\\u{9b}1m\\u{a}c list=["\\u{202e}d"]\n',
    ]);
    log.error({ stack: 'Error: \u001b\n    at x' }, 'f');
    expect(lines[1]).toBe('13:04:05.067Z error f\nError: \\u{1b}\n    at x\n');
  });

  it('leaves what is not a record alone', () => {
    expect(prettyLine('no json\n')).toBe('no json');
    expect(timeOfDay(0)).toBe('00:00:00.000Z');
  });
});
