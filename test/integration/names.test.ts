import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { SimVm } from '../../src/sim/vm.js';
import { MESSAGE } from '../../src/wire/frame.js';
import { ViommuCommand, viommu } from '../guests/viommu.js';
import { Daemon, eventually } from '../support/daemon.js';

/** Names that peers give are text, wherever a person meets them. */

/**
 * What no output may have, in ranges: see src/base/text.ts, and these are not made from it. A line
 * may end.
 */
const FOOLING = [
  ...[
    [0, 9],
    [0xb, 0x1f],
    [0x7f, 0x9f],
    [0x61c, 0x61c],
  ],
  ...[
    [0x200b, 0x200f],
    [0x2028, 0x202e],
    [0x2060, 0x206f],
    [0xfeff, 0xfeff],
  ],
] as const;

/** Those of a text that fool. */
function foolingIn(text: string): string[] {
  return [...text].filter((character) => {
    const code = character.codePointAt(0) as number;
    return FOOLING.some(([first, last]) => code >= (first as number) && code <= (last as number));
  });
}

/** Longer than a name may be once it is shown, and not before. */
const LONG = `${'a'.repeat(60)}\x1bbbb`;
const LONG_SHOWN = `${'a'.repeat(60)}\\u{1b}bbb`;
const EVIL = '\x1b]0;owned\x07\u202etxt.exe\x9b2J\r\nroot';
const SHOWN = '\\u{1b}]0;owned\\u{7}\\u{202e}txt.exe\\u{9b}2J\\u{d}\\u{a}root';

let daemon: Daemon;
const open: SimVm[] = [];

beforeAll(async () => {
  daemon = await Daemon.start(['--log-level', 'debug']);
});
afterAll(async () => {
  for (const vm of open) vm.close();
  await daemon.dispose();
});

function plug(name: string): SimVm {
  const vm = SimVm.connect(daemon.socket, { name, ramBytes: 2 ** 20 });
  open.push(vm);
  return vm;
}

async function names(): Promise<string[]> {
  const { text } = await viommu(daemon, 'list', '--json');
  const [listed] = JSON.parse(text) as { vms: { vm: string }[] }[];
  return (listed?.vms ?? []).map(({ vm }) => vm);
}

describe('names of machines', () => {
  it('are shown as they are, cut between characters, numbered where they are the same', async () => {
    for (const name of ['Büro', 'é'.repeat(100), 'Büro', 'Bu\u0308ro', EVIL, LONG, 'vm8', '', '']) plug(name);
    expect(await names()).toEqual([
      ...['Büro', 'é'.repeat(64), 'Büro-2', 'Büro-3', SHOWN, LONG_SHOWN],
      // The eighth has the number of one that has no name.
      ...['vm8', 'vm8-2', 'vm9'],
    ]);
    const { text } = await viommu(daemon, 'list');
    expect(text).toContain('Büro-3');
    expect(foolingIn(text)).toEqual([]);
  });

  it('name a machine as they are shown, and as they were given', async () => {
    const same = [
      [SHOWN, EVIL],
      [LONG_SHOWN, LONG],
    ] as const;
    for (const [shown, given] of same) {
      for (const wanted of [shown, given]) {
        const { code, text } = await viommu(daemon, 'report', '--vm', wanted);
        expect(code).toBe(0);
        expect((JSON.parse(text) as { vm: string }).vm).toBe(shown);
      }
    }
  });
});

describe('what peers say', () => {
  it('reaches no terminal as it is: log, watch, report, dump, list', async () => {
    const watching = new ViommuCommand(daemon, ['watch']);
    // It watches when it has told of something.
    const witness = plug('witness');
    await eventually(() => {
      witness.reset();
      return watching.text.includes('reset');
    }, 'watch to watch');
    const vm = plug(EVIL);
    vm.addDevice(1, 8, EVIL);
    vm.reset();
    await eventually(() => watching.text.includes(`device 00:01.0 ${SHOWN}`), 'the device to be told of');
    const name = `${SHOWN}-2`;
    for (const args of [['report', '--vm', name], ['dump', '--vm', name], ['list'], ['diff', '--vm', name]]) {
      const { text } = await viommu(daemon, ...args);
      expect(foolingIn(text), args[0]).toEqual([]);
    }
    // An error that quotes its peer.
    expect(() => SimVm.connect(daemon.socket, { name: EVIL, model: EVIL })).toThrow('model');
    expect(() => SimVm.connect(daemon.socket, { name: EVIL, options: { [EVIL]: EVIL } })).toThrow();
    vm.client.request(MESSAGE.RESET, {});
    vm.close();
    await eventually(() => watching.text.includes(`[${name}] disconnected`), 'its end');
    watching.interrupt();
    const { text } = await watching.end();
    expect(foolingIn(text)).toEqual([]);
    expect(foolingIn(daemon.text())).toEqual([]);
    expect(daemon.text()).toContain('owned');
  });
});
